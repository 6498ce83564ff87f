"""A member's stream in virtual time: partitions come and go while it delivers."""

import asyncio
import time

from riverrun_server.core.delivery_budget import DeliveryBudget
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import OffsetCommit
from riverrun_server.core.reading.control import Grant, PartitionName, Pause, Resume, Seek
from riverrun_server.core.reading.events import Assigned, CommitOutcome, Heartbeat, PartitionFailed
from riverrun_server.core.reading.places import COMMITTED, LATEST, Place, PlaceKind
from riverrun_server.runtime.delivery_room import Deliveries, Room
from riverrun_server.wire import codecs, forms
from tests.rpc.fake_partitions import FakeDirectory
from tests.rpc.members_world import Member, nothing_is_left, of, offset
from tests.rpc.reading_world import World, simulated
from tests.sim.loop import simulate

T0 = PartitionName("t", b"", 0)
# A delivery reserves twice the topic's largest batch, which is 3 MiB here.
ONE = 6 << 20


@simulated
async def test_a_member_reads_what_it_is_given_from_where_its_group_has_come(world, t0, t1):
    t0.append(b"a", b"b")
    t1.append(b"old")
    await world.offsets.commit("g", [OffsetCommit("t", b"", 0, 1)])
    member = Member(world)
    async with member.stream.running():
        await asyncio.sleep(1)
        assert member.stream.kinds() == ["started"]
        member.give(t0, t1, place=Place(PlaceKind.COMMITTED, otherwise=LATEST))
        await asyncio.sleep(1)
        t1.append(b"new")
        await asyncio.sleep(1)
        assert member.stream.values() == [b"b", b"new"]
    told = [
        (each.id, each.assignment_epoch)
        for event in of(Assigned, member)
        for each in event.partitions
    ]
    assert sorted(told) == [(t0.id, 1), (t1.id, 1)]


@simulated
async def test_what_is_given_before_the_stream_runs_is_told_behind_its_start(world, t0, t1):
    t0.append(b"a")
    member = Member(world)
    member.give(t0)
    await asyncio.sleep(1)
    async with member.stream.running():
        await asyncio.sleep(1)
        assert member.stream.kinds()[0] == "started"
        assert member.story(t0) == ["Assigned", "delivery"]


@simulated
async def test_a_revoked_partition_stops_the_others_go_on_and_its_cursor_is_closed(world, t0, t1):
    member = Member(world)
    async with member.stream.running():
        member.give(t0, t1)
        t0.append(b"a")
        await asyncio.sleep(1)
        assert member.revoke(t0) == []
        assert await member.assigned.settled()
        assert t0.cursors == []
        t0.append(b"b")
        t1.append(b"c")
        await asyncio.sleep(1)
        assert member.stream.values() == [b"a", b"c"]
        member.release(t0)
        member.lose(t1)
        assert await member.assigned.settled()
        assert member.story(t0) == ["Assigned", "delivery", "Revoking"]
        assert member.story(t1) == ["Assigned", "delivery", "Lost"]
        nothing_is_left(member, t0, t1)


@simulated
async def test_a_partition_that_comes_back_begins_at_its_new_place_and_flows(world, t0, t1):
    t0.append(*[b"%d" % n for n in range(1000)])
    member = Member(world, frame_bytes=300)

    def give_up(frame):
        """In the middle of a chunk, with more of it to come."""
        if len(member.spans(t0)) == 2:
            member.stream.on_write = None
            member.lose(t0)
            member.give(t0, place=offset(900))

    member.stream.on_write = give_up
    async with member.stream.running():
        member.give(t0)
        await asyncio.sleep(1)
    story = member.story(t0)
    assert story[: story.index("Lost") + 1] == ["Assigned", "delivery", "delivery", "Lost"]
    assert story[story.index("Lost") + 1 :][:2] == ["Assigned", "delivery"]
    assert member.spans(t0)[2][0] == 900
    assert member.spans(t0)[-1][1] == 1000


@simulated
async def test_a_pause_does_not_outlive_the_assignment(world, t0, t1):
    member = Member(world)
    async with member.stream.running():
        member.give(t0)
        await asyncio.sleep(1)
        await member.stream.say(Pause([T0]))
        await asyncio.sleep(1)
        t0.append(b"a")
        member.revoke(t0)
        await member.assigned.settled()
        member.release(t0)
        member.give(t0)
        await asyncio.sleep(1)
        assert member.stream.values() == [b"a"]


@simulated
async def test_large_chunks_of_a_lost_partition_do_not_stand_in_the_way_of_others(world, t0, t1):
    for partition in (t0, t1):
        partition.append(*[bytes([n]) * 90_000 for n in range(10)])
    member = Member(world, frame_bytes=100_000, credit_records=2)
    async with member.stream.running():
        member.give(t0)
        await asyncio.sleep(1)
        assert member.stream.reader._sources.has_chunk
        member.lose(t0)
        member.give(t1)
        await member.stream.say(Grant(10, None))
        await asyncio.sleep(1)
    assert [span[0] for span in member.spans(t1)] == list(range(10))
    assert len(member.spans(t0)) == 2


@simulated
async def test_control_over_a_partition_that_was_taken_away_fails_and_the_stream_goes_on(
    world, t0, t1
):
    member = Member(world)
    async with member.stream.running() as task:
        member.give(t0, t1)
        await asyncio.sleep(1)
        member.revoke(t0)
        await member.stream.say(Seek(7, T0, offset(0)))
        await member.stream.say(Pause([T0]))
        await member.stream.say(Resume([]))
        await asyncio.sleep(1)
        member.release(t0)
        await member.stream.say(Seek(8, T0, offset(0)))
        t0.append(b"a")
        t1.append(b"b")
        await asyncio.sleep(1)
        assert not task.done()
    failed = of(PartitionFailed, member)
    assert [each.seek_id for each in failed] == [7, 0, 8]
    assert {each.refusal.reason for each in failed} == {Reason.PARTITION_NOT_ASSIGNED}
    assert member.stream.values() == [b"b"]
    assert member.story(t0) == ["Assigned", "Revoking"]


# A reader that does not read.


@simulated
async def test_what_happens_while_a_reader_is_stuck_is_told_when_it_reads_again(world, t0, t1):
    t0.append(b"a")
    t1.append(b"b")
    member = Member(world)
    async with member.stream.running():
        member.give(t0)
        await asyncio.sleep(1)
        member.stream.flowing.clear()
        t0.append(b"c")
        await asyncio.sleep(1)
        assert member.revoke(t0) == []
        waiting = asyncio.create_task(member.assigned.settled())
        for _ in range(100):
            member.give(t1)
            await asyncio.sleep(0.1)
            member.lose(t1)
        member.give(t1)
        await asyncio.sleep(1)
        assert not waiting.done()
        member.stream.flowing.set()
        assert await waiting
        await asyncio.sleep(1)
        assert member.story(t0) == ["Assigned", "delivery", "delivery", "Revoking"]
        assert member.story(t1) == ["Assigned", "delivery"]


@simulated
async def test_a_revocation_is_settled_once_its_message_is_written(world, t0, t1):
    member = Member(world)
    async with member.stream.running():
        member.give(t0)
        await asyncio.sleep(1)
        member.stream.flowing.clear()
        member.revoke(t0)
        waiting = asyncio.create_task(member.assigned.settled())
        await asyncio.sleep(1)
        assert member.story(t0) == ["Assigned", "Revoking"]
        assert not waiting.done()
        member.stream.flowing.set()
        assert await waiting


@simulated
async def test_nobody_waits_for_a_stream_that_has_ended(world, t0, t1):
    member = Member(world)
    async with member.stream.running():
        member.give(t0)
        await asyncio.sleep(1)
        member.stream.flowing.clear()
        member.revoke(t0)
        waiting = asyncio.create_task(member.assigned.settled())
        await asyncio.sleep(1)
    assert not await waiting


# Fencing.


@simulated
async def test_a_fenced_member_is_delivered_nothing_and_lives(world, t0, t1):
    member = Member(world)
    async with member.stream.running():
        member.give(t0)
        t0.append(b"a")
        await asyncio.sleep(1)
        member.assigned.fence()
        t0.append(b"b")
        member.give(t1)
        t1.append(b"c")
        await asyncio.sleep(10)
        assert member.stream.values() == [b"a"]
        assert member.story(t1) == ["Assigned"]
        assert len(of(Heartbeat, member)) >= 2
        member.assigned.unfence()
        await asyncio.sleep(1)
        assert sorted(member.stream.values()) == [b"a", b"b", b"c"]


@simulated
async def test_a_fence_that_falls_while_a_chunk_is_taken_apart_holds_it_back(world, t0, t1):
    t0.append(b"a", codec=codecs.ZSTD)
    at_once, member = world.threads.run, None

    async def later(function, *args):
        member.assigned.fence()
        return await at_once(function, *args)

    world.threads.run = later
    member = Member(world)
    async with member.stream.running():
        member.give(t0)
        await asyncio.sleep(1)
        assert member.stream.values() == []
        member.assigned.unfence()
        await asyncio.sleep(1)
        assert member.stream.values() == [b"a"]


@simulated
async def test_what_was_committed_on_delivery_before_the_fence_fell_is_delivered(world, t0, t1):
    """Whoever is given the partition begins behind it, so nobody else would deliver it."""
    offsets = world.directory.create("__consumer_offsets", 1)[0]
    offsets.commits_at_once = False
    t0.append(b"a")
    member = Member(world, commit_on_delivery=True)
    async with member.stream.running():
        member.give(t0)
        await asyncio.sleep(1)
        member.assigned.fence()
        t0.append(b"b")
        offsets.commit()
        await asyncio.sleep(1)
        assert member.stream.values() == [b"a"]
        offsets.commits_at_once = True
        member.assigned.unfence()
        await asyncio.sleep(1)
        assert member.stream.values() == [b"a", b"b"]


# Commits on delivery.


@simulated
async def test_commits_on_delivery_go_where_the_member_has_them_go(world, t0, t1):
    t0.append(b"a")
    t1.append(b"b")
    fenced = Refusal(Reason.FENCED_MEMBER_EPOCH, "too old")
    stored = []

    async def store(commits, _):
        (commit,) = commits
        stored.append((commit.partition, commit.offset))
        refusal = fenced if commit.partition == t1.id.partition else None
        return [CommitOutcome("t", commit.topic_id, commit.partition, refusal)]

    member = Member(world, commit_on_delivery=True, store=store)
    async with member.stream.running():
        member.give(t0, t1)
        await asyncio.sleep(1)
        t0.append(b"c")
        await asyncio.sleep(1)
        assert member.stream.values() == [b"a", b"c"]
        assert of(PartitionFailed, member) == [PartitionFailed("t", *t1.id, fenced)]
        assert sorted(stored) == [(0, 1), (0, 2), (1, 1)]


@simulated
async def test_a_partition_that_is_revoked_while_its_commit_is_under_way_is_finished_first(
    world, t0, t1
):
    offsets = world.directory.create("__consumer_offsets", 1)[0]
    offsets.commits_at_once = False
    t0.append(b"a")
    member = Member(world, commit_on_delivery=True)
    async with member.stream.running():
        member.give(t0)
        await asyncio.sleep(1)
        member.revoke(t0)
        await asyncio.sleep(1)
        assert member.story(t0) == ["Assigned"]
        offsets.commit()
        await member.assigned.settled()
        assert member.story(t0) == ["Assigned", "delivery", "Revoking"]
        assert (await world.offsets.committed("g"))[t0.id].offset == 1


# Room.


@simulated
async def test_a_partition_that_is_taken_away_waits_for_no_room(world, t0, t1):
    t0.cold = True
    t0.append(b"x")
    deliveries = Deliveries(DeliveryBudget(ONE))
    holder, room = Room(deliveries, "holder"), Room(deliveries, "a")
    member = Member(world, room=room)
    assert holder.hold(ONE)
    async with member.stream.running():
        member.give(t0, t1)
        await asyncio.sleep(1)
        assert room.partitions == [t0.id]
        member.revoke(t0)
        await member.assigned.settled()
        assert room.partitions == []
        holder.close()
        assert deliveries.budget.used_bytes == len(deliveries.queue) == 0


@simulated
async def test_room_for_what_is_taken_away_is_given_back(world, t0, t1):
    t0.append(*[b"x"] * 10)
    t1.cold = True
    t1.append(b"y")
    deliveries = Deliveries(DeliveryBudget(10 * ONE))
    room = Room(deliveries, "a")
    member = Member(world, room=room, credit_records=3)
    async with member.stream.running():
        member.give(t0)
        await asyncio.sleep(1)
        # What does not fit into the credit stays open.
        assert room.held_bytes == ONE
        member.lose(t0)
        await member.assigned.settled()
        assert room.held_bytes == 0
        await member.stream.say(Grant(3, None))
        member.give(t1)
        await asyncio.sleep(0.005)
        # Its disk is being read.
        assert room.held_bytes == ONE
        member.lose(t1)
        await member.assigned.settled()
        assert room.held_bytes == deliveries.budget.used_bytes == 0


# Lives.


@simulated
async def test_heartbeats_go_on_while_partitions_come_and_go(world, t0, t1):
    """Also where another broker is asked and answers when nobody wants to know any more."""
    answers = []
    known = t0.watermarks

    async def slow():
        if member.stream.reader._accesses:
            answers.append(asyncio.Event())
            await answers[-1].wait()
        return await known()

    t0.watermarks, t0.led_here = slow, False
    member = Member(world)
    async with member.stream.running() as task:
        member.give(t0)
        await asyncio.sleep(4)
        assert answers
        member.lose(t0)
        await member.assigned.settled()
        for answer in answers:
            answer.set()
        await asyncio.sleep(4)
        member.give(t1)
        await asyncio.sleep(4)
        assert not task.done()
        beats = [[each.id for each in beat.positions] for beat in of(Heartbeat, member)]
        assert (beats[0], beats[1], beats[-1]) == ([t0.id], [], [t1.id])


@simulated
async def test_a_heartbeat_speaks_of_nothing_that_was_not_told(world, t0, t1):
    member = Member(world)
    async with member.stream.running():
        member.give(t0)
        await asyncio.sleep(1)
        member.stream.flowing.clear()
        await member.stream.say(Seek(1, T0, offset(0)))
        await asyncio.sleep(4)
        # While its answer is written a heartbeat has fallen due.
        member.give(t1)
        await asyncio.sleep(1)
        member.stream.flowing.set()
        await asyncio.sleep(1)
    told = set()
    for each in member.heard:
        if isinstance(each, Assigned):
            told |= {one.id for one in each.partitions}
        elif isinstance(each, Heartbeat):
            assert {one.id for one in each.positions} <= told
    assert of(Heartbeat, member)
    assert told == {t0.id, t1.id}


@simulated
async def test_a_member_that_has_half_closed_waits_for_partitions(world, t0, t1):
    member = Member(world)
    async with member.stream.running() as task:
        await member.stream.half_close()
        await asyncio.sleep(10)
        member.give(t0)
        t0.append(b"a")
        await asyncio.sleep(1)
        member.revoke(t0)
        await member.assigned.settled()
        member.release(t0)
        await asyncio.sleep(10)
        assert not task.done()
        assert member.stream.values() == [b"a"]


@simulated
async def test_a_member_that_stops_at_the_end_waits_for_what_it_was_given(world, t0, t1):
    t1.append(b"b")
    known = t1.watermarks

    async def slow():
        await asyncio.sleep(5)
        return await known()

    t1.watermarks = slow
    member = Member(world, stop_at_end=True)
    async with member.stream.running() as task:
        member.give(t0, t1)
        await asyncio.wait_for(task, 10)
    assert member.stream.values() == [b"b"]


@simulated
async def test_a_member_that_has_enough_waits_for_nothing(world, t0, t1):
    async def stuck():
        await asyncio.Event().wait()

    t0.append(b"a", b"b")
    t1.watermarks = stuck
    member = Member(world, max_records=1)
    async with member.stream.running() as task:
        member.give(t0, t1)
        await asyncio.wait_for(task, 10)
    assert member.stream.values() == [b"a"]
    assert t0.cursors == []


def test_a_thousand_partitions_come_and_go_at_once():
    async def run():
        directory = FakeDirectory()
        many = directory.create("t", 1_000)
        for each in many:
            each.append(b"x")
        async with World(directory) as world:
            member = Member(world, form=forms.batches(codecs.NAMES))
            async with member.stream.running():
                member.give(*many, place=COMMITTED)
                await asyncio.sleep(1)
                assert len(member.stream.of("delivery")) == 1_000
                began = time.process_time()
                member.revoke(*many)
                await member.assigned.settled()
                member.release(*many)
                await member.assigned.settled()
                assert time.process_time() - began < 1
                nothing_is_left(member, *many)
        assert all(member.story(each) == ["Assigned", "delivery", "Revoking"] for each in many[:9])

    simulate(run(), 1)
