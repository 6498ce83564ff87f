"""From every moment of a run the next start finds its way: nothing half made, nothing half deleted."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.core.cluster.changes import NewTopic
from riverrun_server.core.cluster.values import Id, Incarnations
from riverrun_server.runtime.broker_start import accept_partition_loss
from tests.runtime.catalog_world import LIVES, CatalogWorld, registration

# Every moment of a small run; of one with hundreds of writes some of them, first and last included.
MOMENTS = 24


def sampled(moments):
    step = max(1, len(moments) // MOMENTS)
    return [*[*enumerate(moments)][::step], (len(moments) - 1, moments[-1])]


async def record(run, partitions):
    """Return the moments of a run, and for each answer the number of moments before it."""
    world = CatalogWorld()
    answered = {}
    async with world.started() as catalog:
        await catalog.changes.create(NewTopic("other", 2))
        catalog.partition("other", b"", 1).append(b"other")
        await world.disk.durable()
        world.disk.remembers = True
        world.disk.note()
        await run(
            world,
            catalog,
            partitions,
            lambda what: answered.setdefault(what, len(world.disk.moments)),
        )
        # What was answered was durable before: the moments that follow begin with it.
        world.disk.remembers = False
    return world.disk.moments, answered


async def create(_world, catalog, partitions, answer):
    await catalog.changes.create(NewTopic("t", partitions))
    answer("created")


async def create_and_delete(world, catalog, partitions, answer):
    await create(world, catalog, partitions, answer)
    catalog.partition("t", b"", partitions - 1).append(b"secret")
    await world.disk.durable()
    answer("written")
    deleting = asyncio.ensure_future(catalog.changes.delete("t"))
    # It begins with the tombstone, which may be there from here on.
    answer("delete asked")
    await deleting
    answer("deleted")


async def grow(world, catalog, partitions, answer):
    await catalog.changes.create(NewTopic("t", 1))
    answer("created")
    await catalog.changes.add_partitions("t", partitions)
    answer("grown")


async def relax_and_harden(world, catalog, partitions, answer):
    await create(world, catalog, partitions, answer)
    await catalog.changes.alter("t", {"fsync": "relaxed"}, ())
    await catalog.changes.alter("t", {"fsync": "true"}, ())
    answer("hardened")


async def start_from(rows, check, lives=LIVES):
    world = CatalogWorld(rows)
    async with world.started(lives) as catalog:
        await world.quiet()
        await check(world, catalog)


async def check_consistent(world, catalog):
    """What is there is whole, what is not there has left nothing."""
    assert catalog.partition("other", b"", 1).data == b"other"
    ids = {catalog.topics.find(name).value.topic_id: name for name in catalog.topics.names}
    counts = {name: len(catalog.partitions(name)) for name in ids.values()}
    stored = world.logs.partitions()
    assert {each.topic_id for each in stored} == set(ids)
    assert len(stored) == sum(counts.values())
    for key in await world.stored_keys():
        kind, _, rest = key.partition("/")
        assert kind != "tombstones", key
        if kind == "partitions":
            topic_id, _, number = rest.partition("/")
            name = ids[bytes.fromhex(topic_id)]
            # Growing that stopped leaves partitions that nobody sees; growing again takes them.
            assert int(number) < counts[name] or "t" in ids.values(), key
    for name in ids.values():
        for partition in catalog.partitions(name):
            await partition.watermarks()


@pytest.mark.parametrize("kind", ["kill", "power cut"])
@pytest.mark.parametrize("partitions", [2, 120])
@pytest.mark.parametrize("run", [create, create_and_delete, grow, relax_and_harden])
async def test_a_crash_at_any_moment_leaves_nothing_half_done(run, partitions, kind):
    moments, answered = await record(run, partitions)
    assert len(moments) > 3
    outcomes = set()
    for number, (rows, synced_rows) in sampled(moments):

        async def check(world, catalog, number=number):
            await check_consistent(world, catalog)
            there = "t" in catalog.topics.names
            count = len(catalog.partitions("t")) if there else 0
            outcomes.add(count)
            if number >= answered.get("grown", 1 << 60):
                assert count == partitions
            if number >= answered.get("deleted", 1 << 60):
                assert not there
            elif answered["created"] <= number < answered.get("delete asked", 1 << 60):
                assert there
            if there:
                assert count in {1, partitions}
                if answered.get("written", 1 << 60) <= number:
                    assert catalog.partition("t", b"", partitions - 1).data == b"secret"
                await catalog.changes.delete("t")
            # Made anew it is empty, whatever was there.
            await catalog.changes.create(NewTopic("t", 2))
            assert {each.data for each in catalog.partitions("t")} == {b""}

        await start_from(rows if kind == "kill" else synced_rows, check)
    assert len(outcomes) > 1, "no moment before or after the change was tried"


async def test_a_second_crash_during_the_start_changes_nothing():
    moments, _ = await record(create_and_delete, 120)
    rows = moments[len(moments) * 3 // 4][0]
    again = CatalogWorld(rows)
    async with again.started():
        again.disk.remembers = True
        await again.quiet()
    for _, (rows, synced_rows) in sampled(again.disk.moments)[::5]:
        await start_from(rows, check_consistent)
        await start_from(synced_rows, check_consistent)


@pytest.mark.parametrize("kind", ["kill", "power cut"])
async def test_a_relaxed_partition_never_comes_back_as_if_it_had_everything(kind):
    """After a crash it is either offline, or was never acknowledged before the disk had it."""
    moments, answered = await record(relax_and_harden, 3)
    crashed = Incarnations(LIVES.fsync, Id(b"c" * 16))
    for number, (rows, synced_rows) in sampled(moments):
        world = CatalogWorld(rows if kind == "kill" else synced_rows)
        async with world.started(crashed) as catalog:
            if "t" not in catalog.topics.names:
                assert number < answered["created"]
                continue
            for partition, state in zip(
                catalog.partitions("t"), catalog.topics.find("t").states, strict=True
            ):
                led = state.leader_broker_epoch == catalog.changes.leader.broker_epoch
                assert led is hasattr(partition, "leader_epoch")
                if number >= answered["hardened"]:
                    assert led


async def test_an_accepted_loss_lets_the_partition_serve_after_the_next_start():
    world = CatalogWorld()
    async with world.started() as catalog:
        await catalog.changes.create(NewTopic("t", 2))
        catalog.partition("t", b"", 1).append(b"what is left")
    replaced = Incarnations(Id(b"1" * 16), Id(b"2" * 16))
    async with world.started(replaced) as catalog:
        assert not hasattr(catalog.partition("t", b"", 1), "data")
        await accept_partition_loss(
            world.store, world.documents, world.dice, 1, replaced, "t", 1, 0
        )
    async with world.started(replaced) as catalog:
        assert not hasattr(catalog.partition("t", b"", 0), "data")
        recovered = catalog.partition("t", b"", 1)
        assert recovered.data == b"what is left"
        assert recovered.leader_epoch > 1_000  # above all that may have been lost
        assert registration(replaced).incarnations == catalog.brokers()[0].incarnations
