"""Groups: how partitions change hands, who may commit meanwhile, and resets of a group that lives."""

import dataclasses

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.assignment.values import AssignableTopic
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.group_views import GroupState
from riverrun_server.core.groups.holds import HoldState
from riverrun_server.core.groups.joining import Join, Reattach
from riverrun_server.core.groups.members import AssignmentRecord, GroupRecord, MemberRecord
from tests.core.groups_world import G, World, part, share, topic

T = Join(topics=("t",))
T0, T1, T2, T3 = (part("t", number) for number in range(4))


@pytest.fixture
def world():
    return World().start()


def reasons(world, attached, epoch, partitions):
    refused = world.machine.check_commit(G, *attached[:2], epoch, partitions)
    return {partition: each.reason for partition, each in refused.items()}


def view(world, attached):
    return world.machine.view(G, attached.member_id)


def wait(world, ms, *beating):
    """Let time pass in which members are heard of."""
    end = world.now + ms
    while world.now < end:
        world.beat(*beating)
        world.pass_time(min(5_000, end - world.now))


# Moving.


def test_only_what_moves_is_given_up_and_the_rest_goes_on(world):
    one, other = world.in_turn(T, T)
    assert len(world.owned(one)) == len(world.revoking(one)) == 2
    assert set(view(world, one).owned.values()) == {1}
    assert view(world, one).epoch == 2
    assert view(world, other) == (2, {}, {})
    assert world.machine.operations.describe(G, 0).listing.state is GroupState.RECONCILING


def test_nothing_is_given_before_it_was_given_up(world):
    one, other = world.in_turn(T, T)
    moving = world.revoking(one)
    first = min(moving)
    world.do(world.machine.revoked(G, *one[:2], [first], view(world, one).epoch))
    world.run()
    assert world.owned(other) == {first}
    world.acknowledge(one)
    world.run()
    assert world.owned(other) == moving
    assert world.machine.operations.describe(G, 0).listing.state is GroupState.STABLE


def test_each_view_has_its_own_number_and_each_partition_that_of_its_gift(world):
    one, other = world.in_turn(T, T)
    seen = [world.told[one.member_id].epoch]
    for partition in sorted(world.revoking(one)):
        world.do(world.machine.revoked(G, *one[:2], [partition]))
        world.run()
        seen.append(world.told[one.member_id].epoch)
    assert seen == sorted(set(seen))
    given = view(world, other).owned
    assert sorted(given.values()) == sorted(set(given.values()))
    assert max(given.values()) == view(world, other).epoch


def test_what_a_member_was_not_told_to_give_up_stays_its_own(world):
    (one,) = world.in_turn(T)
    assert world.machine.revoked(G, *one[:2], [T0, part("nothing", 0)]) == []
    assert world.owned(one) == {T0, T1, T2, T3}


def test_who_does_not_give_up_in_time_loses_that_and_nothing_else(world):
    one, other = world.in_turn(T, T)
    moving = world.revoking(one)
    wait(world, 59_999, one, other)
    world.run()
    assert world.revoking(one) == moving
    wait(world, 1, one, other)
    world.run()
    assert world.owned(other) == moving
    assert len(world.owned(one)) == 2
    assert world.told[one.member_id].revoking == {}
    assert reasons(world, one, 2, moving) == dict.fromkeys(moving, Reason.PARTITION_NOT_ASSIGNED)


def test_the_time_to_give_up_begins_for_each_partition_by_itself():
    world = World({"t": topic("t", 6)}).start()
    one, other = world.in_turn(T, T)
    first = world.revoking(one)
    wait(world, 30_000, one, other)
    (third,) = world.in_turn(T)
    second = world.revoking(one) - first
    assert second
    wait(world, 30_000, one, other, third)
    world.run()
    assert world.revoking(one) == second
    wait(world, 30_000, one, other, third)
    assert world.revoking(one) == set()


def test_the_time_to_give_up_begins_anew_with_another_coordinator(world):
    one, other = world.in_turn(T, T)
    wait(world, 50_000, one, other)
    world.crash()
    wait(world, 59_999, one, other)
    assert world.revoking(one)
    wait(world, 1, one, other)
    assert not world.revoking(one)


def test_what_comes_back_while_it_is_given_up_is_given_anew(world):
    one, other = world.in_turn(T, T)
    moving = world.revoking(one)
    world.do(world.machine.leave(G, *other[:2], world.now, temporary=False))
    world.run()
    assert world.revoking(one) == moving
    world.acknowledge(one)
    world.run()
    given = view(world, one).owned
    assert {each for each, epoch in given.items() if epoch > 1} == moving


def test_a_word_that_comes_late_gives_up_only_what_it_is_about(world):
    one, other = world.in_turn(T, T)
    late = view(world, one)
    world.do(world.machine.leave(G, *other[:2], world.now, temporary=False))
    world.acknowledge(one)
    world.run()
    world.in_turn(T)
    again = world.revoking(one)
    assert again
    assert again <= late.revoking.keys()
    assert world.machine.revoked(G, *one[:2], late.revoking, late.epoch) == []
    assert world.revoking(one) == again


def test_a_slow_member_does_not_stop_what_others_hand_over():
    world = World({"t": topic("t", 6)}).start()
    slow, quick = world.in_peace(T, T)
    third, _ = world.in_turn(T, T)
    assert world.revoking(slow)
    handed_over = world.revoking(quick)
    assert handed_over
    world.acknowledge(quick)
    world.run()
    assert world.revoking(slow)
    assert world.owned(third) & handed_over


def test_a_thousand_joins_in_a_batch_are_one_computation(world):
    computed = []
    world.assign = lambda *args: computed.append(1) or share(*args)
    for _ in range(1_000):
        world.attach(T)
    world.run()
    assert len(computed) == 1


def test_only_who_has_something_new_gets_a_record():
    world = World({"t": topic("t", 100)}).start()
    for _ in range(100):
        world.attach(T)
    world.run()
    world.attach(T)
    written = world.run()
    assert [type(each) for each in written] == [GroupRecord, AssignmentRecord]


def test_a_large_group_computes_no_more_often_than_its_size_allows():
    world = World(limits=GroupsLimits(pause_us_per_member=50_000)).start()
    one, other = world.in_turn(T, T)
    assert view(world, other).epoch == 0, "two members, so targets stay for 100 ms"
    assert world.machine.next_deadline() == world.now + 100
    assert world.machine.is_settled
    world.pass_time(99)
    assert world.run() == []
    world.pass_time(1)
    world.run()
    assert world.revoking(one)
    (third,) = world.in_turn(T)
    world.acknowledge(one)
    world.run()
    assert len(world.owned(other)) == 2, "what was decided goes on meanwhile"
    assert view(world, third).epoch == 0


def test_the_pause_has_an_end_however_large_the_group_is():
    limits = GroupsLimits()
    assert [limits.pause_ms(members) for members in (1, 2, 1_000, 10_000)] == [0, 1, 500, 1_000]


# Topics.


def test_topics_that_come_grow_and_go_are_shared_out_by_themselves(world):
    (one,) = world.in_turn(Join(topics=("t", "later"), pattern="p*"))
    assert len(world.owned(one)) == 4
    for topics, expected in (
        ({"t": topic("t", 5), "p1": topic("p1", 1), "q": topic("q", 9)}, 6),
        ({"t": topic("t", 5), "p1": topic("p1", 1), "later": topic("later", 2)}, 8),
    ):
        world.machine.topics_changed(topics)
        world.run()
        assert len(world.owned(one)) == expected
    world.machine.topics_changed({"p1": topic("p1", 1)})
    world.run()
    assert world.owned(one) == {part("p1", 0)}
    assert len(world.revoking(one)) == 7


def test_a_topic_made_anew_is_another_one(world):
    (one,) = world.in_turn(T)
    world.machine.topics_changed({"t": AssignableTopic(topic_id=b"another topic...", partitions=4)})
    world.run()
    assert {each.topic_id for each in world.owned(one)} == {b"another topic..."}
    assert world.revoking(one) == {T0, T1, T2, T3}


def test_topics_that_nobody_reads_disturb_nobody(world):
    world.in_turn(T)
    world.machine.topics_changed({**world.topics, "u": topic("u", 9)})
    assert world.machine.is_settled
    world.machine.topics_changed({**world.topics, "u": topic("u", 9)})
    assert world.run() == []


def test_replicas_that_move_between_racks_change_nothing_by_themselves(world):
    world.in_turn(T)
    moved = dataclasses.replace(world.topics["t"], racks=(frozenset({"a"}),) * 4)
    world.machine.topics_changed({"t": moved})
    assert not world.machine.is_settled
    assert world.run() == []


def test_a_pattern_that_is_none_for_this_version_gives_its_member_nothing(world):
    world.in_turn(T)
    value = world.machine.registry.get(G).members["m0001"]
    old = dataclasses.replace(value, topics=(), pattern="of another version")
    world.do([MemberRecord(G, "m0002", old)])
    world.run()
    assert world.machine.view(G, "m0002") == (2, {}, {})
    world.machine.topics_changed({**world.topics, "u": topic("u", 9)})
    world.run()


def test_members_get_only_what_they_want():
    world = World({"t": topic("t", 2), "u": topic("u", 2)}).start()
    one, other = world.in_turn(T, Join(pattern="u*"))
    assert {each.topic_id for each in world.owned(one)} == {world.topics["t"].topic_id}
    assert {each.topic_id for each in world.owned(other)} == {world.topics["u"].topic_id}


# Commits.


def test_a_commit_counts_from_the_epoch_of_the_gift_to_that_of_the_member(world):
    one, other = world.in_peace(T, T)
    mine, theirs = sorted(world.owned(one)), sorted(world.owned(other))
    assert view(world, one).epoch == 3
    for epoch, expected in ((0, False), (1, True), (2, True), (3, True), (4, False)):
        reason = {} if expected else dict.fromkeys(mine, Reason.FENCED_MEMBER_EPOCH)
        assert reasons(world, one, epoch, mine) == reason
    assert reasons(world, one, 3, [mine[0], theirs[0]]) == {
        theirs[0]: Reason.PARTITION_NOT_ASSIGNED
    }


def test_a_commit_counts_until_the_partition_is_given_up(world):
    one, other = world.in_turn(T, T)
    moving = world.revoking(one)
    assert reasons(world, one, 1, moving) == {}
    world.acknowledge(one)
    assert set(reasons(world, one, 1, moving).values()) == {Reason.PARTITION_NOT_ASSIGNED}
    world.run()
    assert reasons(world, other, view(world, other).epoch, moving) == {}


def test_a_commit_of_an_earlier_assignment_of_the_same_member_does_not_count(world):
    one, other = world.in_turn(T, T)
    early, moving = view(world, one).epoch, world.revoking(one)
    world.acknowledge(one)
    world.run()
    world.do(world.machine.leave(G, *other[:2], world.now, temporary=False))
    world.run()
    assert world.owned(one) >= moving
    refused = world.machine.check_commit(G, *one[:2], early, [T0, T1, T2, T3])
    assert refused.keys() == moving
    assert {each.reason for each in refused.values()} == {Reason.FENCED_MEMBER_EPOCH}


def test_a_commit_off_the_stream_needs_no_attachment(world):
    (one,) = world.in_turn(T)
    world.attach(Reattach(member_id=one.member_id, token=one.token))
    assert world.machine.check_commit(G, one.member_id, None, 1, [T0]) == {}
    with pytest.raises(Refusal) as caught:
        world.machine.check_commit(G, one.member_id, 1, 1, [T0])
    assert caught.value.reason is Reason.MEMBER_TAKEN_OVER


def test_a_commit_without_a_member_counts_only_where_there_is_none(world):
    assert world.machine.check_commit(G, None, None, 0, [T0]) == {}
    (one,) = world.in_turn(T)
    with pytest.raises(Refusal) as caught:
        world.machine.check_commit(G, None, None, 0, [T0])
    assert caught.value.reason is Reason.GROUP_HAS_MEMBERS
    assert "1 members" in caught.value.message
    world.do(world.machine.leave(G, *one[:2], world.now, temporary=False))
    assert world.machine.check_commit(G, None, None, 0, [T0]) == {}


def test_a_commit_of_nobodys_member_is_refused(world):
    with pytest.raises(Refusal) as caught:
        world.machine.check_commit(G, "m", 1, 1, [T0])
    assert caught.value.reason is Reason.UNKNOWN_MEMBER


# Resets.


def test_a_hold_takes_partitions_from_their_owner_and_gives_them_back(world):
    (one,) = world.in_turn(T)
    operations = world.machine.operations
    number = operations.hold(G, [T0, T1], world.now + 30_000)
    assert operations.hold_state(G, number) is HoldState.WAITING
    world.run()
    assert world.revoking(one) == {T0, T1}
    assert world.owned(one) == {T2, T3}
    world.acknowledge(one)
    world.run()
    assert operations.hold_state(G, number) is HoldState.FREE
    assert world.owned(one) == {T2, T3}
    assert operations.describe(G, world.now).held == {T0, T1}
    operations.lift(G, number)
    assert operations.hold_state(G, number) is HoldState.OVER
    world.run()
    given = view(world, one).owned
    assert (given[T2], given[T3]) == (1, 1)
    assert given[T0] == given[T1] == view(world, one).epoch
    assert set(reasons(world, one, 1, [T0]).values()) == {Reason.FENCED_MEMBER_EPOCH}


def test_a_hold_ends_by_itself(world):
    (one,) = world.in_turn(T)
    number = world.machine.operations.hold(G, [T0], world.now + 1_000)
    world.run()
    world.acknowledge(one)
    world.pass_time(999)
    world.run()
    assert T0 not in world.owned(one)
    world.pass_time(1)
    world.run()
    assert T0 in world.owned(one)
    assert world.machine.operations.hold_state(G, number) is HoldState.OVER


def test_a_hold_ends_with_its_coordinator(world):
    (one,) = world.in_turn(T)
    number = world.machine.operations.hold(G, [T0], world.now + 10**6)
    world.run()
    world.acknowledge(one)
    world.run()
    world.crash()
    assert world.machine.operations.hold_state(G, number) is HoldState.OVER
    world.run()
    assert T0 in world.owned(one)


def test_nobody_else_is_given_what_is_held(world):
    (one,) = world.in_turn(T)
    world.machine.operations.hold(G, [T0], world.now + 10**6)
    world.run()
    world.acknowledge(one)
    world.do(world.machine.leave(G, *one[:2], world.now, temporary=False))
    (other,) = world.in_turn(T)
    assert world.owned(other) == {T1, T2, T3}


def test_one_partition_is_reset_by_one_at_a_time(world):
    world.in_turn(T)
    operations = world.machine.operations
    operations.hold(G, [T0, T1], world.now + 10)
    with pytest.raises(Refusal) as caught:
        operations.hold(G, [T1, T2], world.now + 10)
    assert caught.value.reason is Reason.CONFLICT
    operations.hold(G, [T2], world.now + 10)


def test_so_many_resets_may_be_under_way_and_a_group_must_be_there(world):
    operations = world.machine.operations
    with pytest.raises(Refusal) as caught:
        operations.hold(G, [T0], world.now + 10)
    assert caught.value.reason is Reason.GROUP_NOT_FOUND
    world.in_turn(T)
    for number in range(16):
        operations.hold(G, [part("u", number)], world.now + 10)
    with pytest.raises(Refusal) as caught:
        operations.hold(G, [T0], world.now + 10)
    assert caught.value.reason is Reason.LIMIT_EXCEEDED


def test_a_hold_of_a_group_that_is_forgotten_is_over(world):
    (one,) = world.in_turn(T)
    number = world.machine.operations.hold(G, [T0], world.now + 10)
    world.do(world.machine.leave(G, *one[:2], world.now, temporary=False))
    world.run()
    assert world.machine.operations.hold_state(G, number) is HoldState.OVER
    assert world.machine.next_deadline() is None
    world.machine.operations.lift(G, number)
    assert world.run() == []
