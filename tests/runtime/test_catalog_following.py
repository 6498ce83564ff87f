"""How a catalog follows the metadata, tells watchers, and ends."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.core.cluster.changes import TopicPolicy
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.limits import Limits
from riverrun_server.ports.log import StorageFull
from riverrun_server.ports.metadata import Compacted
from tests.runtime.catalog_world import (
    CatalogWorld,
    create,
    refused,
    refused_at_once,
    until,
)


@pytest.fixture
async def world():
    return CatalogWorld()


@pytest.fixture
async def catalog(world):
    async with world.started() as catalog:
        yield catalog


# --- following


class ForgetsHistory:
    """A store whose watches fall behind now and then."""

    def __init__(self, store, every):
        self._store = store
        self._every = every

    def __getattr__(self, name):
        return getattr(self._store, name)

    def watch(self, prefix, start):
        return ForgetfulWatch(self._store.watch(prefix, start), self._every)


class ForgetfulWatch:
    def __init__(self, watch, every):
        self._watch = watch
        self._left = every

    async def next(self):
        batch = await self._watch.next()
        self._left -= 1
        if self._left <= 0:
            raise Compacted(1, 2)
        return batch

    async def close(self):
        await self._watch.close()


@pytest.mark.parametrize("every", [1, 2, 3])
async def test_a_gap_in_the_watch_is_healed_by_listing_again(world, every):
    async with world.started(wrap=lambda store: ForgetsHistory(store, every)) as catalog:
        for number in range(4):
            await create(catalog, f"t{number}", 120)
        await catalog.changes.delete("t1")
        await create(catalog, "t1", 1)
        await catalog.changes.alter("t2", {"retention.ms": "77"}, ())
        assert catalog.topics.names == ["t0", "t1", "t2", "t3"]
        assert len(catalog.partitions("t1")) == 1
        assert world.opened["t2", 119].config.retention_ms == 77


async def test_a_watcher_hears_everything_first_then_what_changed(catalog):
    await create(catalog, "a")
    watcher = catalog.watch([])
    assert (await watcher.next()).topics is None
    await create(catalog, "b")
    await catalog.ensure_internal_topic("__x", 1, {})
    await catalog.changes.delete("a")
    news = await watcher.next()
    assert news.topics == ["a", "b"]
    watcher.close()


async def test_a_watcher_hears_only_of_the_topics_it_named(catalog):
    watcher = catalog.watch(["b", "__x"])
    await watcher.next()
    waiting = asyncio.ensure_future(watcher.next())
    await create(catalog, "a")
    await asyncio.sleep(0)
    assert not waiting.done()
    await create(catalog, "b")
    assert (await waiting).topics == ["b"]
    await catalog.ensure_internal_topic("__x", 1, {})
    assert (await watcher.next()).topics == ["__x"]


async def test_a_watcher_that_is_far_behind_gets_everything_anew(catalog):
    watcher = catalog.watch([])
    assert (await watcher.next()).topics is None
    watcher.note([f"t{number}" for number in range(1_000)], brokers=False)
    assert len(watcher._dirty) == 1_000
    watcher.note(["one more"], brokers=False)
    assert watcher._dirty is None
    assert (await watcher.next()).topics is None
    watcher.note([], brokers=True)
    assert (await watcher.next()).topics == []


async def test_watchers_are_counted_and_end_with_the_broker():
    world = CatalogWorld(policy=TopicPolicy(limits=Limits(max_metadata_watchers=2)))
    async with world.started() as catalog:
        watchers = [catalog.watch([]), catalog.watch([])]
        assert refused_at_once(catalog.watch, []).reason is Reason.OVERLOADED
        watchers[0].close()
        watchers[0] = catalog.watch([])
        for watcher in watchers:
            await watcher.next()
        waiting = asyncio.ensure_future(watchers[1].next())
        await asyncio.sleep(0)
    assert (await refused(waiting)).reason is Reason.SHUTTING_DOWN


# --- bounds and the end


async def test_changes_that_wait_are_bounded():
    world = CatalogWorld(policy=TopicPolicy(limits=Limits(max_waiting_topic_changes=3)))
    async with world.started() as catalog:
        results = await asyncio.gather(
            *(create(catalog, f"t{number}") for number in range(10)), return_exceptions=True
        )
        refusals = [each for each in results if isinstance(each, Refusal)]
        assert {each.reason for each in refusals} == {Reason.OVERLOADED}
        assert len(catalog.topics.names) == 10 - len(refusals) >= 3


async def test_a_caller_that_goes_away_does_not_leave_a_change_half_done(world, catalog):
    making = asyncio.ensure_future(create(catalog, "t", 250))
    await until(lambda: catalog._image.tombstones)
    making.cancel()
    await asyncio.wait([making])
    await create(catalog, "next")
    assert len(catalog.partitions("t")) == 250


async def test_a_change_that_takes_too_long_is_answered_and_goes_on():
    world = CatalogWorld(policy=TopicPolicy(limits=Limits(topic_change_timeout_ms=20)))
    async with world.started() as catalog:
        world.disk.may_sync.clear()
        refusal = await refused(create(catalog, "t"))
        assert refusal.reason is Reason.REQUEST_TIMED_OUT
        assert not refusal.meaning.definite
        world.disk.may_sync.set()
        await until(lambda: catalog.topics.get("t"))


async def test_changes_at_a_shutdown_are_told_what_is_known_of_them(world):
    async with world.started() as catalog:
        world.disk.may_sync.clear()
        under_way = asyncio.ensure_future(create(catalog, "a"))
        waiting = asyncio.ensure_future(create(catalog, "b"))
        for _ in range(10):
            await asyncio.sleep(0)
    begun, not_begun = await refused(under_way), await refused(waiting)
    assert not begun.meaning.definite
    assert not_begun.reason is Reason.SHUTTING_DOWN
    assert not_begun.meaning.definite
    assert (await refused(create(catalog, "c"))).reason is Reason.SHUTTING_DOWN


async def test_a_clean_end_closes_every_partition_and_deletes_nothing(world):
    async with world.started() as catalog:
        await create(catalog, "t", 100)
    assert {partition.ended for partition in world.opened.values()} == {"closed"}
    assert len(world.logs.partitions()) == 100


async def test_one_partition_that_does_not_close_well_does_not_keep_the_others_open(world):
    async def failing():
        raise StorageFull("no room for a snapshot")

    async def run():
        async with world.started() as catalog:
            await create(catalog, "t", 100)
            world.opened["t", 3].close = failing

    with pytest.raises(StorageFull):
        await run()
    assert sum(each.ended == "closed" for each in world.opened.values()) == 99


async def test_partitions_are_closed_although_the_metadata_does_not_let_go(world):
    async def stuck():
        raise OSError("no")

    async def live():
        async with world.started() as catalog:
            await create(catalog, "t", 2)
            catalog._feed._watch.close = stuck

    with pytest.raises(OSError, match="no"):
        await live()
    assert [each.ended for each in world.opened.values()] == ["closed", "closed"]
