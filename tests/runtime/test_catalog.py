"""Topics are made, found, changed and deleted, over restarts and on a disk that refuses."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.changes import NewTopic
from riverrun_server.core.cluster.values import Id, Incarnations
from riverrun_server.core.errors import Reason
from riverrun_server.core.log.batch import BatchHeader, PartitionId
from riverrun_server.ports.log import CorruptData, StorageFull, StorageStalled
from riverrun_server.ports.metadata import UnknownOutcome
from riverrun_server.ports.partitions import Acks, Append
from tests.runtime.catalog_world import (
    LIVES,
    CatalogWorld,
    create,
    refused,
    refused_at_once,
    until,
)

CRASHED = Incarnations(LIVES.fsync, Id(b"c" * 16))


@pytest.fixture
async def world():
    return CatalogWorld()


@pytest.fixture
async def catalog(world):
    async with world.started() as catalog:
        yield catalog


# --- creating and finding


async def test_a_topic_that_was_created_can_be_used_at_once(catalog):
    made = await create(catalog, "t", 3)
    assert [access.id.partition for access in catalog.partitions("t")] == [0, 1, 2]
    for found in (
        catalog.partition("t", b"", 2),
        catalog.partition("", made.topic_id, 2),
        catalog.partition("t", made.topic_id, 2),
    ):
        assert (found.topic, found.id) == ("t", (made.topic_id, 2))
        assert (await found.watermarks()).leader_epoch == 0


async def test_what_is_not_there_is_told_by_name_number_and_id(catalog):
    made = await create(catalog, "orders", 3)
    for arguments, reason, said in (
        (("order", b"", 0), Reason.TOPIC_NOT_FOUND, "did you mean 'orders'"),
        (("orders", b"", 3), Reason.PARTITION_NOT_FOUND, "it has 3, from 0"),
        (("orders", b"", -1), Reason.PARTITION_NOT_FOUND, "-1"),
        (("", made.topic_id, 9), Reason.PARTITION_NOT_FOUND, "'orders'"),
        (("orders", b"x" * 16, 0), Reason.TOPIC_ID_MISMATCH, made.topic_id.hex()),
        (("", b"x" * 16, 0), Reason.TOPIC_NOT_FOUND, "7878"),
        (("", b"", 0), Reason.INVALID_REQUEST, "name or its id"),
        (("a\r\nb", b"", 0), Reason.TOPIC_NOT_FOUND, r"a\r\nb"),
    ):
        refusal = refused_at_once(catalog.partition, *arguments)
        assert refusal.reason is reason
        assert said in refusal.message


async def test_of_many_creations_of_one_name_one_makes_it(catalog):
    results = await asyncio.gather(
        *(catalog.changes.create(NewTopic("t", 2), if_not_exists=True) for _ in range(10))
    )
    assert sum(result.created for result in results) == 1
    assert len({result.topic.topic_id for result in results}) == 1
    assert (await refused(create(catalog, "t"))).reason is Reason.TOPIC_EXISTS


async def test_a_request_that_is_only_checked_makes_nothing(world, catalog):
    before = await world.stored_keys()
    made = await catalog.changes.create(NewTopic("t", 5), validate_only=True)
    assert (made.topic.partitions, made.created) == (5, False)
    refusal = await refused(catalog.changes.create(NewTopic("t", -5), validate_only=True))
    assert refusal.reason is Reason.INVALID_REQUEST
    assert await world.stored_keys() == before


async def test_a_topic_of_more_partitions_than_a_transaction_holds_appears_whole(world, catalog):
    seen = set()
    making = asyncio.ensure_future(create(catalog, "t", 250))
    while not making.done():
        seen.add(len(catalog.partitions("t")) if catalog.topics.get("t") else 0)
        await asyncio.sleep(0)
    assert seen <= {0, 250}
    await making
    assert len(catalog.partitions("t")) == 250
    assert not [key for key in await world.stored_keys() if key.startswith("tombstones/")]


async def test_names_of_the_brokers_are_theirs(catalog):
    for call in (
        create(catalog, "__x"),
        catalog.changes.delete("__x"),
        catalog.changes.alter("__x", {}, ()),
        catalog.changes.add_partitions("__x", 2),
    ):
        assert (await refused(call)).reason is Reason.TOPIC_RESERVED


async def test_a_topic_of_the_brokers_is_made_once_by_whoever_comes_first(catalog):
    await asyncio.gather(
        *(catalog.ensure_internal_topic("__offsets", 4, {"retention.ms": "-1"}) for _ in range(5))
    )
    assert len(catalog.partitions("__offsets")) == 4
    assert catalog.is_internal("__offsets")
    assert not catalog.is_internal("offsets")
    topic = catalog.topics.find("__offsets")
    assert topic.value.internal
    assert topic.config.retention_ms is None


async def test_nothing_is_found_before_the_broker_has_started(world):
    async with world.started() as catalog:
        await create(catalog, "t")
    catalog = type(catalog)(catalog._services)
    refusal = refused_at_once(catalog.partition, "t", b"", 0)
    assert refusal.reason is Reason.NOT_READY
    assert refused_at_once(catalog.topics.after, "").reason is Reason.NOT_READY


# --- changing


async def test_more_partitions_can_be_used_once_they_are_answered(catalog):
    await create(catalog, "t", 2)
    before = catalog.partitions("t")
    assert (await catalog.changes.add_partitions("t", 150)).partitions == 150
    after = catalog.partitions("t")
    assert len(after) == 150
    assert after[:2] == before
    assert (await catalog.changes.add_partitions("t", 150)).partitions == 150
    checked = await catalog.changes.add_partitions("t", 160, validate_only=True)
    assert checked.partitions == 160
    assert len(catalog.partitions("t")) == 150


async def test_open_partitions_take_a_changed_configuration(world, catalog):
    await create(catalog, "t", 2, retention_ms="1000")
    await catalog.changes.alter("t", {"retention.ms": "2000", "max.batch.bytes": "2048"}, ())
    for number in range(2):
        assert world.opened["t", number].config.retention_ms == 2000
        assert catalog.partition("t", b"", number).max_batch_bytes == 2048
    await catalog.changes.alter("t", {}, ["retention.ms"])
    assert world.opened["t", 0].config.retention_ms == 7 * 86_400_000
    await catalog.changes.alter("t", {"retention.ms": "1"}, (), validate_only=True)
    assert world.opened["t", 0].config.retention_ms == 7 * 86_400_000


async def test_a_partition_relaxes_after_its_state_says_so_and_syncs_before(world, catalog):
    made = await create(catalog, "t")
    partition, history = world.opened["t", 0], []
    configure = partition.configure

    def durable_state():
        row = world.disk.synced_rows[b"metadata/key/" + keys.partition(made.topic_id, 0).encode()]
        return "relaxed" if b'"durability":"relaxed"' in row else "fsync"

    def noted(config):
        history.append(("fsync" if config.fsync else "relaxed", durable_state()))
        configure(config)

    partition.configure = noted
    await catalog.changes.alter("t", {"fsync": "relaxed"}, ())
    assert history == [("relaxed", "relaxed")]
    await catalog.changes.alter("t", {"fsync": "true"}, ())
    assert history[1:] == [("fsync", "relaxed")]
    assert durable_state() == "fsync"


# --- deleting


async def test_a_deleted_topic_is_gone_from_the_directory_the_disk_and_the_metadata(world, catalog):
    before = await world.stored_keys()
    made = await create(catalog, "t", 120)
    gone = catalog.partition("t", b"", 7)
    gone.append(b"data")
    await catalog.changes.delete("t", made.topic_id)
    assert gone.ended == "dropped"
    assert refused_at_once(catalog.partition, "t", b"", 0).reason is Reason.TOPIC_NOT_FOUND
    assert refused_at_once(catalog.partition, "", made.topic_id, 0).reason is Reason.TOPIC_NOT_FOUND
    assert world.logs.partitions() == []
    assert await world.stored_keys() == before


async def test_a_topic_made_anew_shows_nothing_of_the_old_one(world, catalog):
    for round_number in range(3):
        await create(catalog, "t", 2)
        partition = catalog.partition("t", b"", 1)
        assert partition.data == b""
        partition.append(b"old %d" % round_number)
        await catalog.changes.delete("t")


async def test_a_name_is_free_while_the_old_topics_data_is_still_being_deleted(world, catalog):
    old = await create(catalog, "t", 3)
    world.logs.refusals = [StorageStalled("busy")] * 2
    world.may_retry.clear()
    deleting = asyncio.ensure_future(catalog.changes.delete("t"))
    await until(lambda: world.pauses)
    new = await create(catalog, "t", 1)
    assert new.topic_id != old.topic_id
    assert not deleting.done()
    world.may_retry.set()
    await deleting
    assert [each.topic_id for each in world.logs.partitions()] == [new.topic_id]
    assert len(catalog.partitions("t")) == 1


async def test_only_the_topic_of_the_given_id_is_deleted(catalog):
    await create(catalog, "t")
    refusal = await refused(catalog.changes.delete("t", b"x" * 16))
    assert refusal.reason is Reason.TOPIC_ID_MISMATCH
    assert (await refused(catalog.changes.delete("u"))).reason is Reason.TOPIC_NOT_FOUND
    assert catalog.partitions("t")


async def test_deleting_many_topics_leaves_the_loop_to_others(world, catalog):
    for number in range(100):
        await create(catalog, f"t{number}", 3)
    most = in_a_row = 0
    drop = world.logs.drop

    def counted(partition):
        nonlocal in_a_row, most
        in_a_row += 1
        most = max(most, in_a_row)
        drop(partition)

    async def other_work():
        nonlocal in_a_row
        while True:
            in_a_row = 0
            await asyncio.sleep(0)

    world.logs.drop = counted
    other = asyncio.create_task(other_work())
    for begin in range(0, 100, 50):
        await asyncio.gather(
            *(catalog.changes.delete(f"t{number}") for number in range(begin, begin + 50))
        )
    other.cancel()
    assert world.logs.drops == 300
    # No more than one partition is dropped between two turns of the loop.
    assert most == 1
    assert world.logs.partitions() == []


# --- restarts


async def test_a_restart_brings_every_topic_back_in_the_next_leader_epoch(world):
    async with world.started() as catalog:
        made = await create(catalog, "t", 2, retention_ms="5000")
        catalog.partition("t", b"", 1).append(b"kept")
        cluster_id, revision = catalog.cluster_id, catalog.revision
    async with world.started() as catalog:
        partition = catalog.partition("t", made.topic_id, 1)
        assert partition.data == b"kept"
        assert partition.leader_epoch == 1
        assert partition.config.retention_ms == 5000
        assert catalog.cluster_id == cluster_id
        assert len(cluster_id) == 32
        assert catalog.revision > revision
        assert not catalog.unclean_recoveries


async def test_a_partition_whose_data_is_in_doubt_is_offline_and_the_others_serve(world):
    async with world.started() as catalog:
        await create(catalog, "strict", 1)
        await create(catalog, "loose", 2, fsync="relaxed")
        await create(catalog, "careless", 1, fsync="relaxed", unclean_recovery="accept")
    async with world.started(CRASHED) as catalog:
        assert (await catalog.partition("strict", b"", 0).watermarks()).leader_epoch == 1
        # Above every epoch that may have been lost.
        assert (await catalog.partition("careless", b"", 0).watermarks()).leader_epoch > 999
        assert catalog.unclean_recoveries == 1
        offline = catalog.partitions("loose")[1]
        assert (offline.topic, offline.id.partition) == ("loose", 1)
        assert offline.max_batch_bytes == 1 << 20
        answers = []
        offline.submit(Append(Batch(), Acks.ALL, answers.append))
        refusals = [
            answers[0].error,
            await refused(offline.watermarks()),
            await refused(offline.offset_at_time(5)),
            await refused(offline.trim(-1)),
            refused_at_once(offline.cursor(0, lambda: None).take, 100),
        ]
        for refusal in refusals:
            assert refusal.reason is Reason.PARTITION_OFFLINE
            assert (
                "riverrun-server recover --data-dir data --topic loose --partition 1 --accept-loss"
                in refusal.message
            )
        # Its topic can still be changed and deleted.
        await catalog.changes.alter("loose", {"retention.ms": "1000"}, ())
        await catalog.changes.delete("loose")
        assert {each.topic_id for each in world.logs.partitions()} == {
            catalog.topics.find(name).value.topic_id for name in ("strict", "careless")
        }


class Batch:
    header = BatchHeader(record_count=3, size_bytes=1)


async def test_a_cursor_of_an_offline_partition_can_be_moved_and_closed(world):
    async with world.started() as catalog:
        await create(catalog, "loose", 1, fsync="relaxed")
    async with world.started(CRASHED) as catalog:
        cursor = catalog.partition("loose", b"", 0).cursor(5, lambda: None)
        assert cursor.position == 5
        cursor.seek(9)
        assert cursor.position == 9
        cursor.close()


async def test_a_topic_that_comes_to_accept_its_loss_serves_after_a_restart(world):
    async with world.started() as catalog:
        await create(catalog, "loose", 1, fsync="relaxed")
        catalog.partition("loose", b"", 0).append(b"left")
    async with world.started(CRASHED) as catalog:
        await refused(catalog.partition("loose", b"", 0).watermarks())
        await catalog.changes.alter("loose", {"unclean.recovery": "accept"}, ())
    async with world.started(CRASHED) as catalog:
        assert catalog.unclean_recoveries == 1
        partition = catalog.partition("loose", b"", 0)
        assert partition.data == b"left"
        assert partition.leader_epoch > 1


async def test_producer_ids_that_a_damaged_store_may_have_forgotten_are_left_out(world):
    async with world.started() as catalog:
        before = await catalog.producer_ids.next()
        rows = dict(world.disk.rows)
        used = [await catalog.producer_ids.next() for _ in range(3_000)]
    # The disk lost the blocks that were taken last, and the store found out.
    world.disk = type(world.disk)(rows)
    async with world.started(Incarnations(Id(b"n" * 16), Id(b"m" * 16))) as catalog:
        assert await catalog.producer_ids.next() > max(used)
    async with world.started(Incarnations(Id(b"n" * 16), Id(b"m" * 16))) as catalog:
        assert before < await catalog.producer_ids.next() < 2_000_000_000


async def test_stored_partitions_that_no_topic_knows_are_kept_and_told(world):
    async with world.started() as catalog:
        await create(catalog, "t")
        stranger = world.logs.key(PartitionId(b"?" * 16, 3))
    # As in a data directory that was put together by hand.
    world.disk.rows[stranger] = b"data"
    async with world.started() as catalog:
        assert [str(each) for each in catalog.orphans] == [f"{(b'?' * 16).hex()}-3"]
        await catalog.changes.delete("t")
        assert world.disk.rows[stranger] == b"data"


# --- a disk that refuses


async def test_a_partition_that_the_disk_refuses_is_opened_later_and_the_rest_serves(world):
    async with world.started() as catalog:
        world.may_retry.clear()
        world.open_errors = [StorageFull("no room")]
        await create(catalog, "t", 2)
        first, second = catalog.partitions("t")
        refusal = await refused(first.watermarks())
        assert refusal.reason is Reason.STORAGE_FULL
        assert (await second.watermarks()).log_end_offset == 0
        world.may_retry.set()
        await until(lambda: catalog.partition("t", b"", 0) is not first)
        assert (await catalog.partition("t", b"", 0).watermarks()).log_end_offset == 0
        assert catalog.partition("t", b"", 1) is second


async def test_a_partition_with_damage_is_offline_and_not_tried_again(world):
    async with world.started() as catalog:
        world.open_errors = [CorruptData("bad checksum")]
        await create(catalog, "t", 2)
        refusal = await refused(catalog.partition("t", b"", 0).watermarks())
        assert refusal.reason is Reason.PARTITION_OFFLINE
        assert "bad checksum" in refusal.message
        assert "--topic t --partition 0 --accept-loss" in refusal.message
        assert world.pauses == 0


async def test_a_full_disk_refuses_a_topic_and_nothing_is_left_of_it(world, catalog):
    world.disk.refusals = [StorageFull("no room")]
    refusal = await refused(create(catalog, "t", 2))
    assert refusal.reason is Reason.STORAGE_FULL
    assert refused_at_once(catalog.partition, "t", b"", 0).reason is Reason.TOPIC_NOT_FOUND
    await create(catalog, "t", 2)


async def test_a_creation_that_fails_in_the_middle_is_taken_back(world, catalog):
    before = await world.stored_keys()
    write, steps = world.disk.write, 0

    def refusing(puts, deletes=()):
        nonlocal steps
        steps += 1
        if steps == 3:
            raise StorageFull("no room")
        write(puts, deletes)

    world.disk.write = refusing
    assert (await refused(create(catalog, "t", 300))).reason is Reason.STORAGE_FULL
    await world.quiet()
    assert await world.stored_keys() == before
    await create(catalog, "t", 300)


class LosesReplies:
    """A store whose answers to some transactions are lost, applied or not."""

    def __init__(self, store, faults):
        self._store = store
        self._faults = faults

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def transact(self, transaction):
        fault = self._faults.pop(0) if self._faults else None
        if fault == "request":
            raise UnknownOutcome("lost")
        result = await self._store.transact(transaction)
        if fault == "reply":
            raise UnknownOutcome("lost")
        return result


@pytest.mark.parametrize("fault", ["request", "reply"])
async def test_lost_answers_of_the_store_change_nothing_for_the_caller(world, fault):
    faults = []
    async with world.started(wrap=lambda store: LosesReplies(store, faults)) as catalog:
        faults[:] = [fault] * 2
        made = await catalog.changes.create(NewTopic("t", 150))
        assert made.created
        faults[:] = [fault]
        await catalog.changes.alter("t", {"fsync": "relaxed"}, ())
        faults[:] = [None, fault, None, fault]
        await catalog.changes.delete("t")
        await world.quiet()
        assert catalog.topics.names == []


async def test_a_store_that_never_answers_leaves_the_outcome_open(world):
    faults = []
    async with world.started(wrap=lambda store: LosesReplies(store, faults)) as catalog:
        faults[:] = ["request"] * 3
        refusal = await refused(create(catalog, "t"))
        assert not refusal.meaning.definite
        assert "nobody knows whether it was done" in refusal.message
        await create(catalog, "t")
