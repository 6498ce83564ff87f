"""A Fetch over more partitions than there is room for gets what fits, and none of them starves."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.core.delivery_budget import DeliveryBudget
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import Position
from riverrun_server.runtime.delivery_room import Deliveries, Room
from riverrun_server.runtime.fetch import Fetch
from riverrun_server.runtime.fetch_terms import FetchTerms, first_of_turn
from riverrun_server.wire import forms
from tests.rpc.fake_partitions import BehindPartition, FakeDirectory
from tests.rpc.reading_world import InlineThreads
from tests.sim.loop import simulate

# What a fetch takes for one batch here, which may have 3 MiB, and its message.
ONE = 6 << 20
LIMITS = ReadingLimits()


class Fetching:
    """Fetches again and again from where it has come to, as clients do."""

    def __init__(self, partitions, deliveries=None):
        self.partitions = partitions
        self.deliveries = deliveries or Deliveries(DeliveryBudget(512 << 20))
        self.offsets = dict.fromkeys(partitions, 0)

    async def ask(self, turn=0, **changes):
        """Return the partitions of which something was read."""
        terms = FetchTerms(
            **{"min_bytes": 1, "max_bytes": 1 << 20, "max_wait_s": 0, "turn": turn, **changes}
        )
        room = Room(self.deliveries, "client")
        fetch = Fetch(InlineThreads(), LIMITS, forms.RECORDS, terms, room)
        positions = [
            Position("t", each.id, self.offsets[each], each.high_watermark, 0)
            for each in self.partitions
        ]
        try:
            answers = await fetch.run(self.partitions, positions)
            # The answer is accounted for, with what it was made of.
            assert room.held_bytes in (0, 2 * fetch._size_bytes)
        finally:
            room.close()
        read = []
        for each, answer in zip(self.partitions, answers, strict=True):
            if isinstance(answer, Refusal):
                continue
            if answer.pieces:
                read.append(each)
            self.offsets[each] = answer.next_offset
        return read


def behind(count, *, batches=1):
    """Return partitions with the broker's own cursor, of which nothing is in memory."""
    made = FakeDirectory().create("t", count)
    for each in made:
        for _ in range(batches):
            each.append(b"x")
    return [BehindPartition(each) for each in made]


@pytest.mark.parametrize("batches_of_room", [1, 2, 5, 10])
def test_of_more_cold_partitions_than_there_is_room_for_each_call_brings_some_until_all_are_read(
    batches_of_room,
):
    async def scenario():
        deliveries = Deliveries(DeliveryBudget(batches_of_room * ONE))
        fetching, left = Fetching(behind(60), deliveries), 60
        for turn in range(60):
            read = await fetching.ask(turn)
            assert read
            left -= len(read)
            if not left:
                break
        assert left == 0
        assert deliveries.budget.used_bytes == 0

    simulate(scenario(), 0)


def test_who_wants_more_bytes_than_there_is_room_for_at_once_gets_them_in_turns():
    async def scenario():
        deliveries = Deliveries(DeliveryBudget(6 * ONE))
        fetching = Fetching(behind(100), deliveries)
        assert len(await fetching.ask(min_bytes=1 << 20, max_wait_s=30)) == 100

    simulate(scenario(), 0)


def test_beside_connections_that_read_nothing_there_is_a_batch_and_no_refusal():
    async def scenario():
        deliveries = Deliveries(DeliveryBudget(8 * ONE))
        hogs = [Room(deliveries, f"hog {number}") for number in range(4)]
        for hog in hogs:
            while hog.hold(hog.held_bytes + ONE, one_batch=True):
                pass
        fetching = Fetching(behind(20), deliveries)
        for turn in range(20):
            assert len(await fetching.ask(turn)) == 1
        # Only where a batch of each fills the reserve.
        more = [Room(deliveries, f"more {number}") for number in range(8)]
        while any(each.hold(each.held_bytes + ONE, one_batch=True) for each in more):
            pass
        fetching = Fetching(behind(20), deliveries)
        with pytest.raises(Refusal) as caught:
            await fetching.ask()
        assert caught.value.reason is Reason.OVERLOADED
        assert not any(each.reads for each in fetching.partitions)
        hogs[0].close()
        assert await fetching.ask()

    simulate(scenario(), 0)


def test_what_is_in_memory_is_delivered_though_others_find_no_room():
    async def scenario():
        deliveries = Deliveries(DeliveryBudget(ONE))
        assert Room(deliveries, "hog").hold(ONE)
        (hot,) = FakeDirectory().create("t")
        hot.append(b"x")
        for turn in range(4):
            fetching = Fetching([*behind(3), hot], deliveries)
            assert await fetching.ask(turn) == [hot]

    simulate(scenario(), 0)


def test_a_partition_that_is_behind_is_read_beside_a_busy_one_that_is_in_memory():
    async def scenario():
        (hot,), (cold,) = FakeDirectory().create("t"), behind(1)
        fetching, read = Fetching([hot, cold]), []
        for turn in range(4):
            hot.append(bytes(3000))
            read += await fetching.ask(turn, max_bytes=2000)
        assert read.count(cold) == 1
        assert read.count(hot) >= 3

    simulate(scenario(), 0)


class SlowPartition(BehindPartition):
    """Its disk takes a hundred times as long as the others'."""

    delay_s = 1.0

    def read_disk(self, offset, max_bytes):
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self.reads.append((offset, max_bytes))
        loop.call_later(
            self.delay_s, lambda: answer.done() or answer.set_result(self.read(offset, 1))
        )
        return answer


def test_a_partition_that_is_read_slowly_gets_its_turn_beside_faster_ones():
    async def scenario():
        (slow,) = FakeDirectory().create("t")
        slow.append(b"x")
        slow = SlowPartition(slow)
        slow.delay_s = LIMITS.answer_wait_s_max / 2
        fetching, read = Fetching([*behind(3, batches=50), slow]), []
        for turn in range(12):
            read += await fetching.ask(turn)
        assert slow in read

    simulate(scenario(), 0)


def test_a_disk_that_takes_too_long_keeps_nobody_from_reading_the_others():
    async def scenario():
        (stuck,) = FakeDirectory().create("t")
        stuck.append(b"x")
        stuck = SlowPartition(stuck)
        stuck.delay_s = 1000.0
        clock = asyncio.get_running_loop().time
        for turn in range(6):
            fetching = Fetching([*behind(2), stuck])
            before = clock()
            assert len(await fetching.ask(turn)) > 0
            assert clock() - before <= LIMITS.answer_wait_s_max + 0.1

    simulate(scenario(), 0)


def test_no_more_is_on_its_way_from_the_disk_than_one_fetch_may_have():
    under_way, most = set(), 0

    class Counted(BehindPartition):
        def read_disk(self, offset, max_bytes):
            nonlocal most
            reading = super().read_disk(offset, max_bytes)
            under_way.add(reading)
            reading.add_done_callback(under_way.discard)
            most = max(most, len(under_way))
            return reading

    async def scenario():
        partitions = FakeDirectory().create("t", 50)
        for each in partitions:
            each.append(b"x")
        fetching = Fetching([Counted(each) for each in partitions])
        assert len(await fetching.ask()) == 50

    simulate(scenario(), 0)
    assert most == LIMITS.read_ahead_bytes // (3 << 20)


def test_a_partition_that_was_passed_over_is_read_as_soon_as_the_disk_is_free():
    async def scenario():
        long, short = FakeDirectory().create("t", 2)
        for each, batches in ((long, 5), (short, 1)):
            each.max_batch_bytes = 5 << 20  # one at a time
            for _ in range(batches):
                each.append(b"x")
        fetching = Fetching([BehindPartition(long), BehindPartition(short)])
        # More than there is: it is answered with everything when its time is up.
        assert await fetching.ask(min_bytes=1 << 20, max_wait_s=5) == fetching.partitions
        assert list(fetching.offsets.values()) == [5, 1]

    simulate(scenario(), 0)


def test_a_partition_that_cannot_be_read_keeps_no_other_from_its_turn():
    async def scenario():
        (broken,), cold = FakeDirectory().create("t"), behind(2)
        broken.append(b"x")
        broken.log_start_offset = 1  # what it is asked for is gone
        fetching = Fetching([broken, *cold])
        read = [each for turn in range(3) for each in await fetching.ask(turn)]
        assert set(cold) <= set(read)

    simulate(scenario(), 0)


@pytest.mark.parametrize("partitions", [1, 2, 10, 250, 1000])
@pytest.mark.parametrize("clients", [1, 2, 3, 5, 10])
def test_every_partition_is_first_for_each_of_several_clients_that_ask_by_turns(
    partitions, clients
):
    calls = range(0, 25 * clients * partitions, clients)
    firsts = {first_of_turn(turn, partitions) for turn in calls}
    assert firsts == set(range(partitions))


def test_one_client_sees_each_of_its_partitions_first_within_three_rounds():
    for partitions in (1, 2, 3, 10, 100, 1000):
        for began in (0, 1, 12_345):
            turns = range(began, began + 3 * partitions)
            assert len({first_of_turn(turn, partitions) for turn in turns}) == partitions
