"""A coordinator with members on a real log, in virtual time: who is given what, when it is told, what survives."""

import asyncio

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.joining import Join
from riverrun_server.core.groups.offsets import OffsetsLimits
from riverrun_server.ports.coordination import (
    Detached,
    GroupQuery,
    MemberBeat,
    MemberName,
    MemberState,
    NewMember,
)
from riverrun_server.runtime.offsets_log import OffsetsLogSettings
from tests.rpc.joined_world import LIMITS, G, Members, beating, directory_of, with_members
from tests.sim.loop import simulate

STALLED = Refusal(Reason.STORAGE_STALLED, "behind")
FULL = Refusal(Reason.STORAGE_FULL, "no room")
DOUBT = Refusal(Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND, "too few replicas")
REWRITES = OffsetsLogSettings(
    limits=OffsetsLimits(rewrite_records_min=20, rewrite_factor=2),
    groups=LIMITS,
    batch_bytes=2000,
)


async def refused(awaitable):
    with pytest.raises(Refusal) as caught:
        await awaitable
    return caught.value.reason


# --- who has what


@with_members
async def test_the_first_member_has_everything(world):
    (a,) = await world.joined("a")
    assert a.owned == [0, 1, 2, 3]


@with_members
async def test_a_second_member_is_given_its_share_once_the_first_has_given_it_up(world):
    (a,) = await world.joined("a")
    b = await world.stream().join("b")
    await asyncio.sleep(0.1)
    assert len(a.revoking) == 2
    assert b.owned == []
    kept = a.owned
    await a.acknowledge()
    await asyncio.sleep(0.1)
    assert a.owned == kept
    assert sorted(a.owned + b.owned) == [0, 1, 2, 3]


@with_members
async def test_what_is_not_given_up_in_time_is_taken(world):
    (a,) = await world.joined("a", session_timeout_ms=2000, revocation_timeout_ms=5000)
    b = await world.stream().join("b")
    async with beating(a, b):
        await asyncio.sleep(4.5)
        assert b.owned == []
        await asyncio.sleep(1)
        assert len(b.owned) == 2
        assert a.revoking == []
    assert a.why is None, "it has lost the partitions and not its membership"


@with_members
async def test_the_time_to_give_up_begins_when_the_member_is_told(world):
    (a,) = await world.joined("a", session_timeout_ms=2000, revocation_timeout_ms=2000)
    async with beating(a):
        world.log.commits_at_once = False
        joining = asyncio.create_task(world.stream().join("b"))
        # Longer than its time, its coordinator's replicas are slow.
        await asyncio.sleep(2.5)
        assert not joining.done()
        world.log.commits_at_once = True
        world.log.commit()
        b = await joining
        await asyncio.sleep(1.5)
        assert len(a.revoking) == 2
        assert b.owned == []
    async with beating(a, b):
        await asyncio.sleep(1)
        assert a.revoking == []
        assert len(b.owned) == 2


@with_members
async def test_a_member_that_is_silent_loses_its_place_and_the_others_get_what_it_had(world):
    a, b = await world.joined("a", "b", session_timeout_ms=3000)
    async with beating(b):
        await asyncio.sleep(2.5)
        assert len(b.owned) == 2
        await asyncio.sleep(1)
    assert b.owned == [0, 1, 2, 3]
    assert a.why.reason is Reason.UNKNOWN_MEMBER
    assert await a.beat() == [Reason.UNKNOWN_MEMBER]


@with_members
async def test_a_member_that_leaves_is_told_so_and_frees_what_it_had_at_once(world):
    a, b = await world.joined("a", "b")
    await a.leave()
    assert a.why.reason is Reason.UNKNOWN_MEMBER
    await asyncio.sleep(0.1)
    assert b.owned == [0, 1, 2, 3]


@with_members
async def test_whoever_has_the_token_may_leave_for_a_member_and_nobody_else(world):
    a, b = await world.joined("a", "b")
    assert await refused(a.leave(proof=b"guessed")) is Reason.MEMBER_TAKEN_OVER
    await a.leave(proof=a.attached.token)
    await asyncio.sleep(0.1)
    assert b.owned == [0, 1, 2, 3]


@with_members
async def test_a_topic_that_is_made_or_grows_comes_by_itself(world):
    (a,) = await world.joined("a", topics=("t", "later"), pattern="orders-.*")
    world.directory.grow("t", 6)
    world.directory.create("later", 1)
    world.directory.create("orders-1", 2)
    world.directory.create("other", 2)
    await asyncio.sleep(0.1)
    topics = world.directory.topics
    ids = {topics[name][0].id.topic_id: name for name in topics}
    found = sorted((ids[each.topic_id], each.partition) for each in a.view.owned)
    everything = [("later", 0), ("orders-1", 0), ("orders-1", 1), *(("t", n) for n in range(6))]
    assert found == everything
    world.directory.delete("orders-1")
    await asyncio.sleep(0.1)
    assert len(a.view.owned) == 7


@with_members
async def test_a_pattern_that_is_none_is_refused(world):
    said = world.stream().join("a", topics=(), pattern="(a")
    assert await refused(said) is Reason.INVALID_REQUEST
    listed = await world.coordinator.list_groups(world.home, GroupQuery("", 10))
    assert listed.groups == []


@with_members
async def test_a_shorter_time_to_give_up_than_to_be_silent_is_refused(world):
    said = world.stream().join("a", session_timeout_ms=5000, revocation_timeout_ms=4000)
    assert await refused(said) is Reason.INVALID_REQUEST
    (a,) = await world.joined("a", session_timeout_ms=100_000)
    assert a.attached.revocation_timeout_ms == 100_000


# --- streams


@with_members
async def test_a_stream_that_goes_on_ends_the_one_before(world):
    (a,) = await world.joined("a")
    again = await world.stream().reattach(a)
    assert again.attached.attachment == a.attached.attachment + 1
    assert again.owned == [0, 1, 2, 3]
    assert a.why.reason is Reason.MEMBER_TAKEN_OVER
    assert await a.beat() == [Reason.MEMBER_TAKEN_OVER]
    assert await again.beat() == []
    b = await world.stream().join("b")
    await asyncio.sleep(0.1)
    assert len(again.revoking) == 2
    assert len(a.views) == len([view for view in a.views if not view.revoking])
    await world.settled(again, b)


@with_members
async def test_the_same_join_again_makes_no_second_member(world):
    (a,) = await world.joined("a")
    (again,) = await world.joined("a")
    described = await world.coordinator.describe(world.home, G)
    assert [member.member_id for member in described.members] == ["a"]
    assert again.owned == a.owned


@with_members
async def test_an_instance_that_comes_back_finds_its_partitions_and_nobody_moves(world):
    a, b = await world.joined("a", "b", session_timeout_ms=5000)
    (c,) = await world.joined("c", instance_id="three", session_timeout_ms=5000)
    await world.settled(a, b, c)
    views = a.view, b.view
    refusal = refused(world.stream().join("d", token=b"its own", instance_id="three"))
    assert await refusal is Reason.INSTANCE_IN_USE
    await c.leave(temporary=True)
    async with beating(a, b):
        await asyncio.sleep(4)
        again = await world.stream().join("d", token=b"its own", instance_id="three")
    assert again.member == c.member
    assert again.view.owned == c.view.owned
    assert (a.view, b.view) == views


@with_members
async def test_a_stream_that_is_detached_is_told_nothing_and_frees_its_instance_id(world):
    (a,) = await world.joined("a", instance_id="one")
    views = len(a.views)
    await a.detach()
    (again,) = await world.joined("x", instance_id="one")
    assert again.member == "a"
    world.directory.grow("t", 5)
    await asyncio.sleep(0.1)
    assert again.owned == [0, 1, 2, 3, 4]
    assert (len(a.views), a.why) == (views, None)


@with_members
async def test_a_stream_whose_caller_gave_up_speaks_for_nobody(world):
    world.log.commits_at_once = False
    stream = world.stream()
    start = NewMember("a", b"token", Join(topics=("t",), instance_id="one"))
    asked = world.coordinator.attach(world.home, G, start, 1, stream)
    await asyncio.sleep(0.1)
    asked.cancel()
    await asyncio.sleep(0)
    world.log.commits_at_once = True
    world.log.commit()
    await asyncio.sleep(0.1)
    assert stream.views == []
    (again,) = await world.joined("b", instance_id="one")
    assert again.member == "a"


# --- what is not committed is not told


@with_members
async def test_nothing_is_told_before_it_is_committed(world):
    (a,) = await world.joined("a")
    world.log.commits_at_once = False
    b = asyncio.create_task(world.stream().join("b"))
    described = asyncio.create_task(asyncio.sleep(0))
    await asyncio.sleep(0.1)
    asked = world.coordinator.describe(world.home, G)
    assert a.revoking == []
    assert not b.done()
    await asyncio.sleep(0.1)
    assert not asked.done(), "it would tell what is not committed"
    assert await a.beat() == [], "beats wait for nobody"
    world.log.commits_at_once = True
    world.log.commit()
    assert len((await asked).members) == 2
    await described
    await b
    await asyncio.sleep(0.1)
    assert len(a.revoking) == 2


@pytest.mark.parametrize("why", [FULL, DOUBT], ids=["definite", "in doubt"])
def test_a_failed_append_leaves_everybody_what_the_log_says(why):
    @with_members
    async def scenario(world):
        (a,) = await world.joined("a")
        world.log.answers += [why]
        reason = await refused(world.stream().join("b"))
        assert reason is why.reason
        await asyncio.sleep(1)
        assert a.why is None, "its stream still speaks for it"
        b = await world.stream().join("b")
        await world.settled(a, b)
        assert sorted(a.owned + b.owned) == [0, 1, 2, 3]
        assert await a.beat() == []

    scenario()


@with_members
async def test_a_full_disk_is_not_tried_again_and_again_and_whoever_asks_is_told(world):
    (a,) = await world.joined("a")
    tried = []

    def full(append):
        tried.append(asyncio.get_running_loop().time())
        append.refuse(FULL)

    submit, world.log.submit = world.log.submit, full
    assert await refused(world.stream().join("b")) is Reason.STORAGE_FULL
    for _ in range(100):
        await asyncio.sleep(0.1)
        assert await refused(world.stream().join("b")) in {
            Reason.STORAGE_FULL,
            Reason.COORDINATOR_LOADING,
        }
        assert await a.beat() == [], "what needs no disk goes on"
    # Each time twice as late, from half a second to ten; an append is tried a few times itself.
    assert len(tried) <= 60, len(tried)
    world.log.submit = submit
    async with beating(a):
        await asyncio.sleep(10)
    b = await world.stream().join("b")
    await world.settled(a, b)
    assert sorted(a.owned + b.owned) == [0, 1, 2, 3]


@with_members
async def test_who_was_thrown_out_by_an_append_in_doubt_is_told_what_the_log_says(world):
    a, b = await world.joined("a", "b")
    world.log.answers += [DOUBT]
    name = MemberName(member_id="a")
    assert await refused(world.coordinator.remove_member(world.home, G, name)) is DOUBT.reason
    await asyncio.sleep(1)
    assert a.why.reason is Reason.UNKNOWN_MEMBER, "the log has its removal"
    await world.settled(b)
    assert b.owned == [0, 1, 2, 3]


def test_another_coordinator_knows_what_the_first_had_told_and_moves_nothing():
    async def run():
        directory = directory_of()
        async with Members(directory) as world:
            a, b = await world.joined("a", "b")
            assert await a.commit(dict.fromkeys(a.owned, 5)) == {}
        assert a.why.reason is Reason.COORDINATOR_LOADING, "it is not a final one"
        async with Members(directory) as world:
            again = [world.stream(), world.stream()]
            for stream, before in zip(again, (a, b), strict=True):
                await stream.reattach(before)
            await asyncio.sleep(0.1)
            assert [stream.view.owned for stream in again] == [a.view.owned, b.view.owned]
            assert await world.committed() == dict.fromkeys(a.owned, 5)

    simulate(run(), 0)


def test_with_another_coordinator_everybody_has_a_whole_session_timeout():
    async def run():
        directory = directory_of()
        async with Members(directory) as world:
            await world.joined("a", session_timeout_ms=5000)
            await asyncio.sleep(4.9)
        async with Members(directory) as world:
            await asyncio.sleep(4.8)
            described = await world.coordinator.describe(world.home, G)
            assert [each.state for each in described.members] == [MemberState.DETACHED]
            await asyncio.sleep(0.5)
            # It has not committed anything, so nothing is left of the group.
            assert (
                await refused(world.coordinator.describe(world.home, G)) is Reason.GROUP_NOT_FOUND
            )

    simulate(run(), 0)


# --- beats


@with_members
async def test_a_coordinator_that_cannot_prove_that_it_leads_prolongs_nobody(world):
    (a,) = await world.joined("a")
    world.log.broken = Refusal(Reason.PARTITION_OFFLINE, "the lease is over, and nobody confirms")
    assert await refused(a.beat()) is Reason.PARTITION_OFFLINE
    world.log.broken = None
    world.log.leader_epoch += 1
    assert await refused(a.beat()) is Reason.FENCED_LEADER_EPOCH
    await asyncio.sleep(1)
    assert a.why.reason is Reason.COORDINATOR_LOADING


@with_members
async def test_a_beat_is_refused_only_for_what_is_committed(world):
    (a,) = await world.joined("a")
    world.log.commits_at_once = False
    name = MemberName(member_id="a")
    removed = world.coordinator.remove_member(world.home, G, name)
    await asyncio.sleep(0.1)
    beat = asyncio.create_task(a.beat())
    await asyncio.sleep(0.1)
    assert not beat.done()
    world.log.commits_at_once = True
    world.log.commit()
    assert await removed == "a"
    assert await beat == [Reason.UNKNOWN_MEMBER]


@with_members
async def test_a_call_in_another_leader_epoch_is_refused(world):
    (a,) = await world.joined("a")
    beat = MemberBeat(G, "a", a.attached.attachment)
    older = world.coordinator.beat(world.home, [beat], leader_epoch=0)
    assert await refused(older) is Reason.FENCED_LEADER_EPOCH
    newer = world.coordinator.beat(world.home, [beat], leader_epoch=2)
    assert await refused(newer) is Reason.UNKNOWN_LEADER_EPOCH


# --- commits


@with_members
async def test_a_commit_without_a_member_counts_only_while_there_is_none(world):
    await world.coordinator.commit(world.home, G, world.records({0: 1}))
    (a,) = await world.joined("a")
    by_nobody = world.coordinator.commit(world.home, G, world.records({0: 2}))
    assert await refused(by_nobody) is Reason.GROUP_HAS_MEMBERS
    await a.leave()
    await world.coordinator.commit(world.home, G, world.records({0: 3}))
    assert await world.committed() == {0: 3}


@with_members
async def test_a_member_commits_what_it_has_and_each_partition_by_itself(world):
    a, b = await world.joined("a", "b")
    refused_ones = await a.commit(dict.fromkeys(range(4), 7))
    assert refused_ones == dict.fromkeys(b.owned, Reason.PARTITION_NOT_ASSIGNED)
    assert await world.committed() == dict.fromkeys(a.owned, 7)


@with_members
async def test_what_a_member_is_to_give_up_it_may_commit_until_it_has(world):
    (a,) = await world.joined("a")
    await world.stream().join("b")
    await asyncio.sleep(0.1)
    going = a.revoking
    assert await a.commit(dict.fromkeys(going, 9)) == {}
    await a.acknowledge()
    lost = dict.fromkeys(going, Reason.PARTITION_NOT_ASSIGNED)
    assert await a.commit(dict.fromkeys(going, 10)) == lost
    assert await world.committed() == dict.fromkeys(going, 9)


@with_members
async def test_commits_and_joins_that_wait_together_are_served_in_their_order(world):
    before = world.coordinator.commit(world.home, G, world.records({0: 1}))
    start = NewMember("a", b"token", Join(topics=("t",)))
    joined = world.coordinator.attach(world.home, G, start, 1, world.stream())
    behind = world.coordinator.commit(world.home, G, world.records({0: 2}))
    assert await refused(behind) is Reason.GROUP_HAS_MEMBERS
    await before
    await joined
    assert await world.committed() == {0: 1}


@with_members
async def test_a_stream_that_was_replaced_and_detaches_changes_nothing(world):
    (a,) = await world.joined("a", instance_id="one")
    again = await world.stream().reattach(a)
    late = Detached(a.member, a.attached.attachment)
    await world.coordinator.detached(world.home, G, late)
    refusal = refused(world.stream().join("d", token=b"its own", instance_id="one"))
    assert await refusal is Reason.INSTANCE_IN_USE
    assert await again.beat() == []
