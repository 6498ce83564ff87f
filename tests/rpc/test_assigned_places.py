"""Where a member begins in what it is given: found beside the deliveries of the rest, or not found."""

import asyncio

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.reading.control import PartitionName, Seek
from riverrun_server.core.reading.events import PartitionFailed
from riverrun_server.core.reading.places import COMMITTED, Place, PlaceKind
from tests.rpc.fake_partitions import FakeDirectory
from tests.rpc.members_world import Member, nothing_is_left, of, offset
from tests.rpc.reading_world import World, simulated
from tests.sim.loop import simulate

T0 = PartitionName("t", b"", 0)


@simulated
async def test_a_partition_whose_place_takes_long_keeps_no_other_waiting(world, t0, t1):
    answer = asyncio.Event()
    known = t0.watermarks

    async def slow():
        await answer.wait()
        return await known()

    t0.watermarks = slow
    t0.append(b"a")
    t1.append(b"b")
    member = Member(world)
    async with member.stream.running():
        member.give(t0, t1)
        await asyncio.sleep(60)
        assert member.stream.values() == [b"b"]
        assert member.story(t0) == []
        answer.set()
        await asyncio.sleep(1)
        assert member.stream.values() == [b"b", b"a"]


def test_partitions_without_a_leader_keep_few_others_waiting_and_the_disk_is_read_by_few():
    async def run():
        directory = FakeDirectory()
        many = directory.create("t", 200)
        asked, most = {"marks": 0, "time": 0}, {"marks": 0, "time": 0}

        def counted(kind, each, known):
            async def ask(*args):
                if each.id in member.stream.machine.partitions:
                    return await known(*args)  # for a heartbeat
                asked[kind] += 1
                most[kind] = max(most[kind], asked[kind])
                await asyncio.sleep(10)
                asked[kind] -= 1
                return await known(*args)

            return ask

        for each in many:
            each.watermarks = counted("marks", each, each.watermarks)
            each.offset_at_time = counted("time", each, each.offset_at_time)
        async with World(directory) as world:
            member = Member(world)
            async with member.stream.running():
                member.give(*many[:100])
                member.give(*many[100:], place=Place(PlaceKind.TIME, 1))
                await asyncio.sleep(25)
                assert all(member.story(each) == ["Assigned"] for each in many[:100])
                # Eight of them, for 10 s and 10 s.
                assert [member.story(each) for each in many[100:]].count(["Assigned"]) == 8
        assert most["time"] == 8
        assert 64 <= most["marks"] <= 64 + 8

    simulate(run(), 1)


@simulated
async def test_what_is_taken_away_before_its_place_is_found_is_never_told(world, t0, t1):
    given_up = []

    async def stuck():
        try:
            await asyncio.Event().wait()
        finally:
            given_up.append(True)

    t0.watermarks = t1.watermarks = stuck
    member = Member(world)
    async with member.stream.running():
        member.give(t0, t1, place=COMMITTED)
        await asyncio.sleep(1)
        assert member.revoke(t0) == [t0.id]
        member.lose(t1)
        assert await member.assigned.settled()
        await asyncio.sleep(1)
        assert given_up == [True, True]
        assert member.story(t0) == member.story(t1) == []
        nothing_is_left(member, t0, t1)


@simulated
async def test_a_partition_whose_place_cannot_be_found_is_assigned_fails_and_can_be_sought(
    world, t0, t1
):
    t0.broken = Refusal(Reason.PARTITION_OFFLINE, "damaged")
    t0.append(b"a")
    t1.append(b"b")
    member = Member(world)
    async with member.stream.running():
        member.give(t0, t1)
        await asyncio.sleep(10)
        assert member.stream.values() == [b"b"]
        assert [each.refusal.reason for each in of(PartitionFailed, member)] == [t0.broken.reason]
        assert member.story(t0) == ["Assigned"]
        t0.broken = None
        await member.stream.say(Seek(1, T0, offset(0)))
        await asyncio.sleep(1)
        assert member.stream.values() == [b"b", b"a"]
        member.lose(t0, t1)
        await member.assigned.settled()
        nothing_is_left(member, t0, t1)


@simulated
async def test_offsets_that_nobody_can_tell_fail_the_partitions_that_need_them(world, t0, t1):
    loading = Refusal(Reason.COORDINATOR_LOADING, "wait")

    async def committed(*_):
        await asyncio.sleep(10)
        raise loading

    world.offsets.committed = committed
    t1.append(b"b")
    member = Member(world)
    async with member.stream.running():
        member.give(t0, place=COMMITTED)
        member.give(t1)
        await asyncio.sleep(1)
        assert member.stream.values() == [b"b"]
        await asyncio.sleep(10)
        assert of(PartitionFailed, member) == [PartitionFailed("t", *t0.id, loading)]


@simulated
async def test_a_bug_in_finding_a_place_ends_the_stream(world, t0, t1):
    async def committed(*_):
        raise ZeroDivisionError("a bug")

    world.offsets.committed = committed
    member = Member(world)
    async with member.stream.running() as task:
        member.give(t0, place=COMMITTED)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(task, 10)


@simulated
async def test_a_stream_that_ends_gives_up_looking_for_places(world, t0, t1):
    given_up = []

    async def stuck():
        try:
            await asyncio.Event().wait()
        finally:
            given_up.append(True)

    t0.watermarks = stuck
    member = Member(world)
    async with member.stream.running():
        member.give(t0, place=COMMITTED)
        await asyncio.sleep(1)
    assert given_up == [True]
    member.give(t0)
    member.revoke(t0)
    member.lose(t0)
    assert not await member.assigned.settled()
