"""One partition from submit to restart: what was answered is there, and nothing twice."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.ports.log import StorageFailed, StorageFull, StorageStalled
from riverrun_server.ports.partitions import Acks
from riverrun_server.runtime import appender
from tests.runtime.manual import settle
from tests.runtime.partition_world import World


@pytest.fixture
async def world():
    made = World()
    await made.open()
    yield made
    made.running.cancel()


async def test_an_append_is_answered_and_readable_only_once_it_is_on_the_disk(world):
    answers = world.append(b"a", b"b")
    await settle()
    assert answers == []
    assert await world.read() == {}
    await world.sync()
    assert answers[0].base_offset == 0
    assert await world.read() == {0: b"a", 1: b"b"}


async def test_without_acks_the_answer_does_not_wait_but_readers_do(world):
    answers = world.append(b"a", acks=Acks.NONE)
    assert answers[0].base_offset == 0
    assert await world.read() == {}


async def test_a_relaxed_topic_does_not_wait_for_the_disk():
    world = World(config=TopicConfig(fsync=False))
    await world.open()
    assert world.append(b"a")[0].base_offset == 0
    assert await world.read() == {0: b"a"}
    world.running.cancel()


async def test_readers_of_a_relaxed_topic_are_woken_by_the_append():
    world = World(config=TopicConfig(fsync=False))
    await world.open()
    woken = asyncio.Event()
    cursor = world.partition.cursor(0, woken.set)
    assert cursor.take(1 << 20) is None
    world.append(b"a")
    assert woken.is_set()
    world.running.cancel()


async def test_a_partition_dropped_during_a_sync_leaves_the_flusher_alive(world, monkeypatch):
    monkeypatch.setattr(appender, "SNAPSHOT_INTERVAL_BYTES", 1)
    world.append(b"a", producer_id=7)
    await settle()  # the sync is under way
    await world.partition.drop()
    await world.sync()
    assert not world.running.done()


async def test_a_full_disk_does_not_keep_groups_from_committing():
    world = World(topic="__consumer_offsets")
    await world.open()
    world.full = Refusal(Reason.STORAGE_FULL, "full")
    answers = world.append(b"a")
    await world.sync()
    assert answers[0].base_offset == 0
    world.running.cancel()


async def test_a_duplicate_waits_for_its_original(world):
    first = world.append(b"a", producer_id=7)
    again = world.append(b"a", producer_id=7)
    await settle()
    assert (first, again) == ([], [])
    await world.sync()
    assert (again[0].base_offset, again[0].duplicate) == (0, True)
    assert await world.read() == {0: b"a"}


async def test_a_producer_is_remembered_over_a_clean_restart(world):
    world.append(b"a", producer_id=7)
    await world.sync()
    await world.close()
    await world.open()
    again = world.append(b"a", producer_id=7)
    assert (again[0].base_offset, again[0].duplicate) == (0, True)
    assert world.append(b"b", producer_id=7, base_sequence=1) == []


async def test_a_producer_is_remembered_when_its_records_were_trimmed_before_a_crash(world):
    world.append(b"a", producer_id=7)
    world.append(b"b")
    await world.sync()
    trimming = asyncio.create_task(world.partition.trim(-1))
    await world.sync()
    assert await trimming == 2
    await world.crash()
    await world.open()
    assert world.partition.log_start_offset == 2
    again = world.append(b"a", producer_id=7)
    assert again[0].duplicate


async def test_a_trim_waits_until_its_snapshot_speaks_only_of_what_is_committed(world):
    world.append(b"a")
    await world.sync()
    world.append(b"b", producer_id=7)  # not on the disk yet
    trimming = asyncio.create_task(world.partition.trim(1))
    await settle()
    assert not trimming.done()
    assert world.partition.log_start_offset == 0
    await world.sync()
    assert await trimming == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [(StorageStalled("x"), Reason.STORAGE_STALLED), (StorageFull("x"), Reason.STORAGE_FULL)],
)
async def test_a_write_that_the_store_refuses_changes_nothing(world, error, reason):
    world.store.refuse_writes(error)
    answers = world.append(b"a", producer_id=7)
    assert answers[0].error.reason is reason
    assert answers[0].error.meaning.definite
    world.store.refuse_writes(None)
    world.append(b"a", producer_id=7)  # the same sequence: it was never taken in
    await world.sync()
    assert await world.read() == {0: b"a"}


async def test_a_full_disk_refuses_appends_and_serves_reads_and_trims(world):
    world.append(b"a")
    await world.sync()
    world.full = Refusal(Reason.STORAGE_FULL, "full")
    assert world.append(b"b")[0].error.reason is Reason.STORAGE_FULL
    assert await world.read() == {0: b"a"}
    trimming = asyncio.create_task(world.partition.trim(-1))
    await world.sync()
    assert await trimming == 1
    world.full = None
    world.append(b"b")
    await world.sync()
    assert await world.read(1) == {1: b"b"}


async def test_a_failed_sync_answers_nothing_as_written(world):
    answers = world.append(b"a")
    world.store.refuse_syncs(StorageFailed("EIO"))
    await world.sync()
    with pytest.raises(StorageFailed):
        await world.running
    assert answers == []


@pytest.mark.parametrize("epoch", [0, 1])
async def test_a_log_newer_than_the_metadata_stays_offline(world, epoch):
    await world.close()
    world.epoch = epoch - 1
    await world.open()
    assert world.append(b"a")[0].error.reason is Reason.PARTITION_OFFLINE


async def test_every_start_begins_an_epoch_and_its_readers_are_told_of_a_truncation(world):
    world.append(b"a", b"b", b"c")
    await world.sync()
    world.append(b"lost")
    await world.crash()
    await world.open()
    world.partition.check_readable(3, 1)
    with pytest.raises(Refusal) as refused:
        world.partition.check_readable(4, 1)  # it had seen the lost record
    assert refused.value.reason is Reason.LOG_TRUNCATED
    assert refused.value.diverging_offset == 3


async def scenario(seed, steps):
    """Producers that pipeline and retry, power cuts, restarts, trims; checked against what was said."""
    rng = random.Random(seed)
    world = World(tail_bytes=rng.choice([0, 2_000, 1 << 20]))
    await world.open()
    answered: dict[int, bytes] = {}  # what a client was told is there
    exposed: dict[int, bytes] = {}  # what a reader has ever seen
    unresolved: list[tuple[int, bytes, list]] = []
    sequence, start = 0, 0
    for step in range(steps):
        match rng.choice(["append"] * 5 + ["sync"] * 2 + ["retry", "read", "crash", "trim"]):
            case "append" if len(unresolved) < 30:
                value = b"%d" % step
                answers = world.append(value, producer_id=1, base_sequence=sequence)
                unresolved.append((sequence, value, answers))
                sequence += 1
            case "retry":
                unresolved = [
                    (n, v, world.append(v, producer_id=1, base_sequence=n))
                    for n, v, _ in unresolved
                ]
            case "sync":
                await world.sync()
            case "read":
                exposed |= await world.read(start)
            case "crash":
                for _, value, answers in unresolved:
                    if answers and answers[0].error is None:
                        answered[answers[0].base_offset] = value
                await world.crash(rng.randint(0, 5))
                await world.open()
                start = world.partition.log_start_offset
                # What was not resolved is sent again in order, as a client does.
                unresolved = [
                    (n, v, world.append(v, producer_id=1, base_sequence=n))
                    for n, v, _ in unresolved
                ]
            case "trim":
                high = world.partition.high_watermark
                target = rng.randint(start, high)
                trimming = asyncio.create_task(world.partition.trim(target))
                await world.sync()
                start = await trimming
        pending = []
        for n, value, answers in unresolved:
            if not answers:
                pending.append((n, value, answers))
                continue
            assert answers[0].error is None, answers[0].error
            if answers[0].base_offset is not None:
                assert answered.setdefault(answers[0].base_offset, value) == value
        unresolved = pending
    await world.sync()
    final = await world.read(start)
    for offset, value in {**answered, **exposed}.items():
        assert offset < start or final[offset] == value
    values = list(final.values())
    assert len(values) == len(set(values))  # exactly once
    assert values == sorted(values, key=int)  # in the order of sending
    world.running.cancel()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32))
def test_what_was_answered_or_seen_survives_power_cuts_once_and_in_order(seed):
    asyncio.run(scenario(seed, 60))


async def test_a_partition_that_cannot_be_flushed_is_closed_all_the_same(world):
    answers = world.append(b"a")
    world.store.refuse_syncs(StorageFailed("disk gone"))
    closing = asyncio.create_task(world.partition.close())
    await world.sync()
    with pytest.raises(StorageFailed, match="disk gone"):
        await closing
    assert answers[0].error.reason is Reason.STORAGE_FAILED
    with pytest.raises(Refusal) as refused:
        await world.partition.watermarks()
    assert refused.value.reason is Reason.SHUTTING_DOWN
