"""A batch that is damaged on the disk is never taken for what was written: not read, not built upon."""

from __future__ import annotations

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.ports.log import CorruptData
from riverrun_server.wire.stored import received_records, record_times
from tests.runtime.manual import settle
from tests.runtime.partition_world import ID, World

VALUES = [b"<first>", b"<damaged>", b"<last>"]


def flipped(data, value):
    """Return a stored batch with one bit of a record's value changed; it can still be parsed."""
    at = data.index(value) + 1
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def flip_on_disk(world, value):
    """Change a bit of the batch that has a value."""

    def step(image):
        batches = image.partitions[ID].batches
        (at,) = [number for number, data in enumerate(batches) if value in data]
        batches[at] = flipped(batches[at], value)

    world.store.take(step)
    world.store.sync()


@pytest.fixture
async def world():
    """Three batches, of which memory holds none."""
    made = World(tail_bytes=0)
    await made.open()
    for value in VALUES:
        made.append(value)
    await made.sync()
    yield made
    made.running.cancel()


def refused(do, *args):
    with pytest.raises(Refusal) as caught:
        do(*args)
    return caught.value.reason


async def test_a_start_that_meets_damage_leaves_the_partition_offline(world):
    flip_on_disk(world, b"<damaged>")
    await world.crash()
    await world.open()
    assert world.append(b"more")[0].error.reason is Reason.PARTITION_OFFLINE
    assert refused(world.partition.check_readable, 0, None) is Reason.PARTITION_OFFLINE
    with pytest.raises(Refusal):
        await world.partition.watermarks()
    with pytest.raises(Refusal):
        await world.partition.trim(-1)


async def test_a_damaged_snapshot_of_producers_leaves_the_partition_offline(world):
    world.append(b"idempotent", producer_id=7)
    await world.sync()
    await world.close()
    offset, data = world.store.open(ID).snapshot()
    world.store.open(ID).save(world.store.open(ID).state, snapshot=(offset, b"\xff" + data))
    world.store.sync()
    await world.open()
    answers = world.append(b"idempotent", producer_id=7)
    assert answers[0].error.reason is Reason.PARTITION_OFFLINE


async def test_a_lookup_by_time_that_meets_damage_stops_the_partition(world):
    flip_on_disk(world, b"<damaged>")
    world.now_ms += 1_000
    world.append(b"later")
    await world.sync()
    with pytest.raises(Refusal) as caught:
        await world.partition.offset_at_time(world.now_ms)
    assert caught.value.reason is Reason.CORRUPT_DATA
    assert world.append(b"more")[0].error.reason is Reason.PARTITION_OFFLINE


async def test_a_reader_of_an_offline_partition_gets_nothing_from_memory_either():
    world = World(tail_bytes=1 << 20)
    await world.open()
    world.append(b"held in memory")
    await world.sync()
    cursor = world.partition.cursor(0, lambda: None)
    world.partition.go_offline("damage")
    assert refused(cursor.take, 1 << 20) is Reason.PARTITION_OFFLINE
    world.running.cancel()


async def test_an_append_that_waits_when_damage_is_found_is_still_answered_truly(world):
    """What is damaged is another batch: this one gets to the disk, and is there afterwards."""
    answers = world.append(b"waits")
    await settle()
    world.partition.go_offline("damage")
    await world.sync()
    assert answers[0].base_offset == len(VALUES)
    await world.crash()
    await world.open()
    assert (await world.read())[len(VALUES)] == b"waits"


@pytest.mark.parametrize(
    "take_apart",
    [record_times, lambda data: received_records(data, 0, 3, 1 << 20)],
    ids=["for their times", "for the offsets of groups"],
)
async def test_records_are_verified_before_they_are_taken_out(world, take_apart):
    (batch, *_) = world.store.open(ID).read(1, 2, 1 << 20)
    assert len(take_apart(batch.data)) == 1
    with pytest.raises(CorruptData, match="checksum"):
        take_apart(flipped(batch.data, b"<damaged>"))
