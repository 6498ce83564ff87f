"""Nothing is read for a reader before there is room for it, and who holds room keeps nobody from living."""

import asyncio

import pytest

from riverrun_server.core.delivery_budget import DeliveryBudget
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.reading.control import Grant, PartitionName, Pause, Resume
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import Position
from riverrun_server.runtime.delivery_room import Deliveries, Room
from riverrun_server.runtime.fetch import Fetch
from riverrun_server.runtime.fetch_terms import FetchTerms
from riverrun_server.wire import forms
from tests.rpc.fake_partitions import BehindPartition
from tests.rpc.reading_world import InlineThreads, simulated

# A delivery reserves twice the topic's largest batch, which is 3 MiB here.
ONE = 6 << 20


def of(deliveries, connection):
    return Room(deliveries, connection)


@simulated
async def test_a_stream_without_room_reads_nothing_until_another_one_reads(world, t0, t1):
    t0.cold = True
    t0.append(b"a")
    deliveries = Deliveries(DeliveryBudget(ONE))
    stalled = world.stream(t0, room=of(deliveries, "stalled"))
    other = world.stream(t0, room=of(deliveries, "other"))
    async with stalled.running():
        await asyncio.sleep(1)
        stalled.flowing.clear()
        t0.append(b"b")
        await asyncio.sleep(1)
        assert deliveries.budget.held_by("stalled") >= ONE
        takes = t0.takes
        async with other.running():
            await asyncio.sleep(10)
            assert other.values() == []
            assert t0.takes == takes
            # It waits, and lives: its client hears of it.
            assert other.kinds().count("heartbeat") >= 2
            stalled.flowing.set()
            await asyncio.sleep(1)
            assert other.values() == [b"a", b"b"]
    assert deliveries.budget.used_bytes == 0


@simulated
async def test_what_many_cursors_read_ahead_is_counted(world, t0, t1):
    for partition in (t0, t1):
        partition.cold = True
        partition.append(b"x")
    deliveries = Deliveries(DeliveryBudget(10 * ONE))
    stream = world.stream(t0, t1, room=of(deliveries, "a"))
    async with stream.running():
        await asyncio.sleep(0.005)
        assert deliveries.budget.used_bytes >= 2 * ONE
        await asyncio.sleep(1)
        assert sorted(stream.values()) == [b"x", b"x"]
        assert deliveries.budget.used_bytes <= 2 * ONE
    assert deliveries.budget.used_bytes == 0


@simulated
async def test_a_stream_that_is_cancelled_while_it_writes_gives_its_room_back(world, t0, t1):
    t0.append(b"a")
    deliveries = Deliveries(DeliveryBudget(10 * ONE))
    stream = world.stream(t0, room=of(deliveries, "a"))
    async with stream.running():
        await asyncio.sleep(1)
        stream.flowing.clear()
        t0.append(b"b")
        await asyncio.sleep(1)
        assert deliveries.budget.used_bytes == ONE
    assert deliveries.budget.used_bytes == 0


@simulated
async def test_who_keeps_up_is_delivered_to_although_there_is_no_room(world, t0, t1):
    deliveries = Deliveries(DeliveryBudget(ONE))
    assert of(deliveries, "attacker").hold(ONE)
    stream = world.stream(t0, room=of(deliveries, "other"))
    async with stream.running():
        await asyncio.sleep(1)
        for value in (b"a", b"b"):
            t0.append(value)
            await asyncio.sleep(1)
        assert stream.values() == [b"a", b"b"]
        t0.append(bytes(100_000))
        await asyncio.sleep(5)
        assert len(stream.values()) == 2
    assert (await fetched(t0, of(deliveries, "third"))).next_offset == 2


@simulated
async def test_who_finds_no_room_for_a_message_goes_on_with_one_batch(world, t0, t1):
    t0.max_batch_bytes = 100_000
    for _ in range(5):
        t0.append(b"x" * 1000)
    behind = BehindPartition(t0)
    deliveries = Deliveries(DeliveryBudget(ONE))
    assert of(deliveries, "attacker").hold(ONE - 300_000)
    stream = world.stream(behind, room=of(deliveries, "other"))
    async with stream.running():
        await asyncio.sleep(5)
        assert len(stream.values()) == 5
        assert max(size for _, size in behind.reads) <= t0.max_batch_bytes


async def fetched(partition, room):
    (answer,) = await fetched_of([partition], room)
    return answer


async def fetched_of(partitions, room, **changes):
    terms = FetchTerms(**{"min_bytes": 1 << 20, "max_bytes": 1 << 20, "max_wait_s": 1, **changes})
    fetch = Fetch(InlineThreads(), ReadingLimits(), forms.RECORDS, terms, room)
    positions = [Position("t", each.id, 0, each.high_watermark, 0) for each in partitions]
    return await fetch.run(partitions, positions)


@simulated
async def test_a_fetch_without_room_is_refused_and_nothing_is_read_for_it(world, t0, t1):
    t0.cold = True
    t0.append(b"a")
    deliveries = Deliveries(DeliveryBudget(ONE))
    holder = of(deliveries, "holder")
    assert holder.hold(ONE)
    with pytest.raises(Refusal) as caught:
        await fetched(t0, of(deliveries, "late"))
    assert caught.value.reason is Reason.OVERLOADED
    assert t0.takes == 0
    holder.close()
    room = of(deliveries, "late")
    assert (await fetched(t0, room)).next_offset == 1
    # Until it has been sent; then whoever let the call in gives it back.
    assert 0 < room.held_bytes < ONE
    room.close()
    assert deliveries.budget.used_bytes == 0


@simulated
async def test_a_stream_that_is_cancelled_while_it_waits_keeps_nobody_waiting(world, t0, t1):
    for partition in (t0, t1):
        partition.cold = True
        partition.append(b"x")
    deliveries = Deliveries(DeliveryBudget(ONE))
    holder = of(deliveries, "holder")
    assert holder.hold(ONE)
    async with world.stream(t0, t1, room=of(deliveries, "a")).running():
        await asyncio.sleep(1)
    other = world.stream(t0, room=of(deliveries, "a"))
    async with other.running():
        await asyncio.sleep(1)
        holder.close()
        await asyncio.sleep(1)
        assert other.values() == [b"x"]
    assert deliveries.budget.used_bytes == len(deliveries.queue) == 0


@simulated
async def test_a_stream_whose_credit_is_used_up_keeps_no_room_from_others(world, t0, t1):
    for partition in (t0, t1):
        partition.cold = True
        partition.append(b"x")
    deliveries = Deliveries(DeliveryBudget(ONE))
    stream = world.stream(t0, t1, room=of(deliveries, "a"), credit_records=1)
    other = world.stream(t0, room=of(deliveries, "a"))
    async with stream.running():
        await asyncio.sleep(1)
        assert stream.values() == [b"x"]
        async with other.running():
            await asyncio.sleep(1)
            assert other.values() == [b"x"]
            await stream.say(Grant(5, None))
            await asyncio.sleep(1)
            assert stream.values() == [b"x", b"x"]
    assert deliveries.budget.used_bytes == len(deliveries.queue) == 0


@simulated
async def test_a_partition_that_is_paused_waits_for_no_room(world, t0, t1):
    t0.cold = True
    t0.append(b"x")
    deliveries = Deliveries(DeliveryBudget(ONE))
    holder, room = of(deliveries, "holder"), of(deliveries, "a")
    stream = world.stream(t0, t1, room=room)
    assert holder.hold(ONE)
    async with stream.running():
        await asyncio.sleep(1)
        assert room.partitions == [t0.id]
        await stream.say(Pause([PartitionName("t", b"", 0)]))
        await asyncio.sleep(1)
        assert room.partitions == []
        await stream.say(Resume([]))
        await asyncio.sleep(1)
        holder.close()
        await asyncio.sleep(1)
        assert stream.values() == [b"x"]
    assert deliveries.budget.used_bytes == len(deliveries.queue) == 0


@simulated
async def test_partitions_of_one_stream_take_turns_where_there_is_room_for_one(world, t0, t1):
    for partition in (t0, t1):
        for _ in range(50):
            partition.append(b"x")
    deliveries = Deliveries(DeliveryBudget(ONE))
    stream = world.stream(BehindPartition(t0), BehindPartition(t1), room=of(deliveries, "a"))
    async with stream.running():
        await asyncio.sleep(5)
        order = [each.partition for each in stream.of("delivery")]
        assert order == [order[0], 1 - order[0]] * 50
    assert deliveries.budget.used_bytes == len(deliveries.queue) == 0


@simulated
async def test_streams_of_one_connection_take_turns_where_there_is_room_for_one(world, t0, t1):
    for _ in range(50):
        t0.append(b"x")
    deliveries = Deliveries(DeliveryBudget(ONE))
    streams = [world.stream(BehindPartition(t0), room=of(deliveries, "a")) for _ in range(2)]
    async with streams[0].running(), streams[1].running():
        for _ in range(40):
            await asyncio.sleep(0.025)
            first, second = (len(each.values()) for each in streams)
            assert abs(first - second) <= 1
        await asyncio.sleep(5)
        assert [len(each.values()) for each in streams] == [50, 50]


@simulated
async def test_what_is_read_ahead_stays_within_what_was_taken_for_it(world, t0, t1):
    """Though credit comes in between, with which more could be sent, and so more would be read."""
    for _ in range(50):
        t0.append(b"x" * 100)
    t0.max_batch_bytes = 1000
    behind = BehindPartition(t0)
    deliveries = Deliveries(DeliveryBudget(ONE))
    stream = world.stream(behind, room=of(deliveries, "a"), credit_bytes=1)
    async with stream.running():
        await asyncio.sleep(0.005)
        assert deliveries.budget.used_bytes == 2 * 1000
        deliveries.budget.take("others", ONE)
        for _ in range(20):
            await stream.say(Grant(None, 1 << 20))
            await asyncio.sleep(0.01)
            held = deliveries.budget.held_by("a")
            assert stream.reader._sources.ahead_bytes <= held
            assert 2 * behind.reads[-1][1] <= 2 * 1000
    assert deliveries.budget.used_bytes == ONE


@simulated
async def test_who_is_alone_reads_ahead(world, t0, t1):
    for _ in range(3):
        t0.append(b"x")
    behind = BehindPartition(t0)
    deliveries = Deliveries(DeliveryBudget(10 * ONE))
    stream = world.stream(behind, room=of(deliveries, "a"))
    async with stream.running():
        await asyncio.sleep(0.005)
        stream.flowing.clear()
        await asyncio.sleep(1)
        # The first chunk is on its way, and the second is read.
        assert [offset for offset, _ in behind.reads] == [0, 1]


@simulated
async def test_a_pause_gives_back_the_room_of_what_it_drops(world, t0, t1):
    t0.append(*[b"x"] * 10)
    deliveries = Deliveries(DeliveryBudget(10 * ONE))
    room = of(deliveries, "a")
    stream = world.stream(t0, room=room, credit_records=3)
    async with stream.running():
        await asyncio.sleep(1)
        # What does not fit into the credit stays open.
        assert room.held_bytes == ONE
        await stream.say(Pause([]))
        await asyncio.sleep(1)
        assert room.held_bytes == deliveries.budget.used_bytes == 0
        await stream.say(Resume([]))
        await stream.say(Grant(7, None))
        await asyncio.sleep(1)
        assert len(stream.values()) == 10
