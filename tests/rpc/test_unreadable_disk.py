"""A disk that cannot be read: whoever reads is told so, waits for nothing, and goes on when it can be read."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.reading.control import PartitionName, Seek
from riverrun_server.core.reading.places import Place, PlaceKind
from riverrun_server.core.retention import RetentionRule
from riverrun_server.ports.log import CorruptData, StorageError, StorageFailed, StorageStalled
from tests.rpc.reading_world import World as ReadingWorld
from tests.rpc.reading_world import until
from tests.runtime.manual import ManualThreads, settle
from tests.runtime.partition_world import NOW_MS, World

PASSING = [StorageError("reading: EIO"), StorageStalled("reading: busy")]
NAMES = [type(error).__name__ for error in PASSING]
ONE_BYTE = RetentionRule(retention_bytes=1)


class Reads(ManualThreads):
    """Threads that run at once until a test wants to turn them by hand."""

    at_once = True

    def run(self, function, *args):
        future = super().run(function, *args)
        if self.at_once:
            self.step()
        return future


@pytest.fixture
async def world():
    """A partition of three batches of which nothing is in memory."""
    made = World(tail_bytes=0, reads=Reads())
    await made.open()
    for value in (b"a", b"b", b"c"):
        made.append(value)
    await made.sync()
    yield made
    made.running.cancel()


async def refusal_of(world, offset=0):
    """Return what a reader of the disk is told; it must be woken for it."""
    woken = asyncio.Event()
    cursor = world.partition.cursor(offset, woken.set)
    assert cursor.take(1 << 20) is None
    async with asyncio.timeout(10):
        await woken.wait()
    with pytest.raises(Refusal) as refused:
        cursor.take(1 << 20)
    return refused.value


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StorageError("reading: EIO"), Reason.STORAGE_STALLED),
        (StorageStalled("reading: busy"), Reason.STORAGE_STALLED),
        (StorageFailed("the store is closed"), Reason.STORAGE_STALLED),
        (ZeroDivisionError("a bug"), Reason.INTERNAL),
    ],
    ids=lambda each: type(each).__name__,
)
async def test_a_reader_is_told_and_the_partition_stays_online(world, error, reason):
    world.store.refuse_reads(error)
    refusal = await refusal_of(world)
    assert refusal.reason is reason
    assert str(error) in refusal.message
    assert world.partition.offline is None
    world.store.refuse_reads(None)
    assert await world.read() == {0: b"a", 1: b"b", 2: b"c"}


async def test_damage_is_told_and_takes_the_partition_offline(world):
    world.store.refuse_reads(CorruptData("the checksum is wrong"))
    assert (await refusal_of(world)).reason is Reason.CORRUPT_DATA
    assert world.partition.offline is not None


async def test_a_reader_of_a_partition_that_is_being_closed_is_told_that(world):
    woken = asyncio.Event()
    cursor = world.partition.cursor(0, woken.set)
    world.reads.at_once = False
    assert cursor.take(1 << 20) is None  # its read waits for a thread
    await world.close()
    woken.clear()
    world.store.refuse_reads(StorageFailed("the store is closed"))
    world.reads.step()
    await settle()
    assert woken.is_set()
    with pytest.raises(Refusal) as refused:
        cursor.take(1 << 20)
    assert refused.value.reason is Reason.SHUTTING_DOWN


@pytest.mark.parametrize("error", PASSING, ids=NAMES)
async def test_a_stream_says_which_partition_stopped_and_goes_on_after_a_seek(world, error):
    reading, partition = ReadingWorld(), world.partition
    reading.directory.topics["t"] = [partition]
    async with reading:
        stream = reading.stream(partition, place=Place(PlaceKind.OFFSET, 0))
        world.store.refuse_reads(error)
        async with stream.running():
            await until(lambda: stream.of("partition_error"))
            (stopped,) = stream.of("partition_error")
            assert stopped.error.reason == Reason.STORAGE_STALLED.value
            world.store.refuse_reads(None)
            name = PartitionName(partition.topic, b"", 0)
            await stream.say(Seek(1, name, Place(PlaceKind.OFFSET, 1)))
            await until(lambda: len(stream.values()) == 2)
            assert stream.values() == [b"b", b"c"]


@pytest.mark.parametrize("error", PASSING, ids=NAMES)
@pytest.mark.parametrize(
    "work",
    [
        lambda partition: partition.offset_at_time(NOW_MS),
        lambda partition: partition.trim(2),
        lambda partition: partition.retain(ONE_BYTE, NOW_MS),
    ],
    ids=["offset_at_time", "trim", "retain"],
)
async def test_what_else_reads_the_disk_is_refused_changes_nothing_and_works_later(
    world, error, work
):
    world.store.refuse_reads(error)
    with pytest.raises(Refusal) as refused:
        await work(world.partition)
    assert refused.value.reason is Reason.STORAGE_STALLED
    assert refused.value.meaning.definite
    assert world.partition.offline is None
    assert world.partition.log_start_offset == 0
    world.store.refuse_reads(None)
    working = asyncio.create_task(work(world.partition))
    await world.sync()
    await working


@pytest.mark.parametrize("work", ["offset_at_time", "trim"])
async def test_a_store_that_failed_as_a_whole_is_more_than_a_refusal(world, work):
    world.store.refuse_reads(StorageFailed("gone"))
    with pytest.raises(StorageFailed):
        await getattr(world.partition, work)(2)
