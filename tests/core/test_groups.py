"""Groups: who is in them, who speaks for a member, and for how long."""

import dataclasses

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.group import MemberKey, StreamState
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.group_views import GroupState
from riverrun_server.core.groups.joining import Join, Reattach
from riverrun_server.core.groups.members import (
    AssignmentRecord,
    AssignmentValue,
    Assignor,
    GroupRecord,
    GroupValue,
    MemberRecord,
)
from riverrun_server.core.groups.membership import Beat
from riverrun_server.core.groups.offsets import OffsetRecord
from tests.core.groups_world import G, World, compacted, hard_state, part, topic

T = Join(topics=("t",))
ONE = Join(topics=("t",), instance_id="one")
TWO = Join(topics=("t",), instance_id="two")
T0, T1, T2, T3 = (part("t", number) for number in range(4))


@pytest.fixture
def world():
    return World().start()


def refused(reason, call, *args, **kwargs):
    with pytest.raises(Refusal) as caught:
        call(*args, **kwargs)
    assert caught.value.reason is reason
    return caught.value.message


def leave(world, attached, *, temporary=False):
    records = world.machine.leave(G, *attached[:2], world.now, temporary=temporary)
    return world.do(records)


def state(world):
    return world.machine.operations.describe(G, world.now).listing.state


# Coming.


def test_the_first_member_gets_everything(world):
    one = world.attach(T)
    world.run()
    assert world.owned(one) == {T0, T1, T2, T3}
    assert world.told[one.member_id].epoch == 1
    assert state(world) is GroupState.STABLE


@pytest.mark.parametrize("start", [T, ONE])
def test_a_join_that_is_asked_again_makes_no_second_member(start):
    world = World(limits=GroupsLimits(group_members_max=1)).start()
    for attachment in (1, 2):
        records, attached = world.machine.attach(G, start, world.now, "drawn once", b"token")
        world.do(records)
        world.run()
        assert attached == ("drawn once", attachment, b"token")
    assert world.owned(attached) == {T0, T1, T2, T3}
    assert len(world.machine.registry.get(G).members) == 1
    # Of an instance it may be drawn anew, as long as the token proves it.
    if start is ONE:
        assert world.machine.attach(G, start, world.now, "another", b"token")[1][0] == "drawn once"


def test_a_member_id_that_is_drawn_twice_does_not_take_a_member_over(world):
    world.do(world.machine.attach(G, T, world.now, "drawn", b"token")[0])
    refused(Reason.MEMBER_TAKEN_OVER, world.machine.attach, G, T, world.now, "drawn", b"other")


def test_who_names_no_topic_is_refused(world):
    assert "at least one topic" in refused(Reason.INVALID_REQUEST, world.attach, Join())


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        ({"topics": tuple(f"t{n}" for n in range(1_001))}, Reason.LIMIT_EXCEEDED, "1001 topics"),
        ({"topics": ("",)}, Reason.INVALID_REQUEST, "empty name"),
        ({"topics": ("x" * 250,)}, Reason.INVALID_REQUEST, "250 bytes and 249"),
        ({"pattern": "x" * 1_000 + "*"}, Reason.INVALID_REQUEST, "1001 bytes and 1000"),
        ({"pattern": "no star"}, Reason.INVALID_REQUEST, "does not end with a star"),
        ({"instance_id": "a\nb"}, Reason.INVALID_REQUEST, "cannot be printed"),
        ({"client_id": "x" * 250}, Reason.INVALID_REQUEST, "client_id"),
        ({"rack": "x" * 250}, Reason.INVALID_REQUEST, "rack"),
        ({"session_timeout_ms": 999}, Reason.INVALID_REQUEST, "999 ms, and 1000 to 1800000 ms"),
        ({"session_timeout_ms": 1_800_001}, Reason.INVALID_REQUEST, "session_timeout"),
        ({"revocation_timeout_ms": 0}, Reason.INVALID_REQUEST, "revocation_timeout is 0 ms"),
    ],
)
def test_what_a_start_may_not_say(world, change, reason, says):
    wanted = dataclasses.replace(T, **change)
    assert says in refused(reason, world.attach, wanted)
    assert world.machine.registry.count == 0
    assert not world.machine.registry.groups


def test_a_group_needs_a_name(world):
    assert "empty" in refused(Reason.INVALID_REQUEST, world.attach, T, "")


def test_timeouts_that_are_not_given_are_the_default_ones(world):
    one = world.attach(T)
    value = world.machine.registry.get(G).members[one.member_id]
    assert (value.session_timeout_ms, value.revocation_timeout_ms) == (10_000, 60_000)


def test_a_group_and_all_groups_have_room_for_so_many():
    limits = GroupsLimits(group_members_max=2, groups_max=2, members_max=3, pause_us_per_member=0)
    world = World(limits=limits).start()
    world.attach(T, "g")
    last = world.attach(T, "g")
    assert "2 members and 2 are allowed" in refused(Reason.LIMIT_EXCEEDED, world.attach, T, "g")
    world.attach(T, "h")
    assert "2 groups of 2 allowed" in refused(Reason.LIMIT_EXCEEDED, world.attach, T, "i")
    assert "3 members of 3 allowed" in refused(Reason.LIMIT_EXCEEDED, world.attach, T, "h")
    leave(world, last)
    world.attach(T, "h")


def test_memory_has_a_bound_that_an_instance_which_comes_back_does_not_meet():
    world = World(limits=GroupsLimits(bytes_max=1)).start()
    one = world.attach(ONE)
    assert "bytes of memory of 1 allowed" in refused(Reason.LIMIT_EXCEEDED, world.attach, T)
    world.machine.detached(G, *one[:2])
    assert world.attach(ONE).member_id == one.member_id


def test_what_is_forgotten_takes_no_memory(world):
    attached = [world.attach(T), world.attach(ONE)]
    world.run()
    assert world.machine.registry.size_bytes > 2_000
    for each in attached:
        leave(world, each)
        world.run()
    assert world.machine.registry.size_bytes == world.machine.registry.members == 0
    assert world.machine.registry.count == 0
    assert world.machine.next_deadline() is None


# Who speaks for a member.


def test_a_new_stream_takes_the_place_of_the_old_one_and_nothing_moves(world):
    one = world.attach(T)
    world.run()
    log = len(world.log)
    again = world.attach(Reattach(member_id=one.member_id, token=one.token, address="b:2"))
    assert again == (one.member_id, 2, one.token)
    assert world.run() == []
    assert [type(each) for each in world.log[log:]] == [MemberRecord]
    assert world.told[one.member_id].owned.keys() == {T0, T1, T2, T3}
    (ended,) = world.ended
    assert (ended.member, ended.attachment) == (MemberKey(G, one.member_id), 1)
    assert ended.why.reason is Reason.MEMBER_TAKEN_OVER
    assert world.machine.registry.get(G).members[one.member_id].address == "b:2"


def test_the_old_stream_can_do_nothing_any_more(world):
    one, other = world.in_turn(T, T)
    world.attach(Reattach(member_id=one.member_id, token=one.token))
    machine, old = world.machine, (G, *one[:2])
    assert world.beat(one) == [Beat.TAKEN_OVER]
    refused(Reason.MEMBER_TAKEN_OVER, leave, world, one)
    refused(Reason.MEMBER_TAKEN_OVER, machine.revoked, *old, world.revoking(one), 9)
    refused(Reason.MEMBER_TAKEN_OVER, machine.check_commit, *old, 1, [T0])
    machine.detached(*old)
    assert machine.registry.get(G).presence[one.member_id].stream is StreamState.ATTACHED
    assert world.revoking(one)
    assert world.beat(other) == [Beat.OK]


def test_a_gateway_that_goes_on_by_itself_does_not_get_in_front_of_a_stream_opened_since(world):
    one = world.attach(Join(topics=("t",), address="a:1"))
    goes_on = Reattach(
        member_id=one.member_id, token=one.token, address="a:1", attachment=one.attachment
    )
    other = world.attach(Reattach(member_id=one.member_id, token=one.token, address="b:2"))
    assert "stream 1 of" in refused(Reason.MEMBER_TAKEN_OVER, world.attach, goes_on)
    assert world.beat(other) == [Beat.OK]


def test_a_gateway_that_goes_on_by_itself_may_try_again_where_an_answer_was_lost(world):
    one = world.attach(Join(topics=("t",), address="a:1"))
    goes_on = Reattach(
        member_id=one.member_id, token=one.token, address="a:1", attachment=one.attachment
    )
    assert [world.attach(goes_on).attachment for _ in range(2)] == [2, 3]
    nowhere = Reattach(member_id=one.member_id, token=one.token, attachment=one.attachment)
    assert world.attach(nowhere).attachment == 4


def test_a_token_that_is_not_the_members_takes_nothing(world):
    one = world.attach(T)
    wrong = Reattach(member_id=one.member_id, token=b"guess")
    assert "not, or no longer" in refused(Reason.MEMBER_TAKEN_OVER, world.attach, wrong)
    nobody = Reattach(member_id="nobody", token=one.token)
    refused(Reason.UNKNOWN_MEMBER, world.attach, nobody)
    refused(Reason.UNKNOWN_MEMBER, world.attach, nobody, "another group")
    assert world.beat(one) == [Beat.OK]


def test_what_nobody_has_been_told_of_is_unknown(world):
    one = world.attach(T)
    future = one._replace(attachment=2)
    assert world.beat(future, one._replace(member_id="x")) == [Beat.UNKNOWN, Beat.UNKNOWN]
    assert world.machine.beat([("nothing", *one[:2])], world.now) == [Beat.UNKNOWN]
    refused(Reason.UNKNOWN_MEMBER, leave, world, future)


# Instances.


def test_an_instance_at_work_is_not_replaced(world):
    one = world.attach(ONE)
    world.run()
    message = refused(Reason.INSTANCE_IN_USE, world.attach, ONE)
    assert one.member_id in message
    assert "10000 ms" in message
    assert world.beat(one) == [Beat.OK]


def test_an_instance_that_was_killed_comes_back_to_what_it_had(world):
    one, _ = world.in_peace(ONE, T)
    before = dict(world.machine.registry.get(G).assignments)
    world.machine.detached(G, *one[:2])
    log = len(world.log)
    back = world.attach(ONE)
    assert (back.member_id, back.attachment) == (one.member_id, 2)
    assert back.token != one.token
    assert world.run() == []
    assert len(world.log) == log + 1
    assert world.machine.registry.get(G).assignments == before
    refused(
        Reason.MEMBER_TAKEN_OVER, world.attach, Reattach(member_id=one.member_id, token=one.token)
    )


def test_an_instance_that_wants_other_topics_gets_them():
    world = World({"t": topic("t", 2), "u": topic("u", 1)}).start()
    one = world.attach(ONE)
    world.run()
    leave(world, one, temporary=True)
    back = world.attach(dataclasses.replace(ONE, topics=("u",)))
    world.run()
    assert world.owned(back) == {part("u", 0)}
    assert world.revoking(back) == {part("t", 0), part("t", 1)}


def test_the_order_of_topics_is_no_other_subscription():
    world = World({"t": topic("t", 2), "u": topic("u", 1)}).start()
    one = world.attach(dataclasses.replace(ONE, topics=("t", "u")))
    world.run()
    leave(world, one, temporary=True)
    world.attach(dataclasses.replace(ONE, topics=("u", "t", "t")))
    assert world.run() == []


def test_an_instance_that_left_for_a_moment_keeps_what_it_has(world):
    one, other = world.in_peace(ONE, TWO)
    owned = world.owned(one)
    leave(world, one, temporary=True)
    assert world.run() == []
    assert world.beat(one) == [Beat.UNKNOWN]
    world.pass_time(9_000)
    world.beat(other)
    assert world.owned(one) == owned
    back = world.attach(ONE)
    world.run()
    assert back.member_id == one.member_id
    assert world.owned(back) == owned
    assert not world.machine.registry.get(G).members[one.member_id].is_away


def test_an_instance_that_does_not_come_back_in_time_is_gone(world):
    one, other = world.attach(ONE), world.attach(TWO)
    world.run()
    world.pass_time(5_000)
    leave(world, one, temporary=True)
    world.pass_time(4_999)
    world.beat(other)
    world.pass_time(5_000)
    assert one.member_id in world.machine.registry.get(G).members
    world.beat(other)
    world.pass_time(1)
    world.run()
    assert world.owned(other) == {T0, T1, T2, T3}
    (ended,) = [each for each in world.ended if "not come back" in each.why.message]
    assert ended.member.member_id == one.member_id


def test_leaving_for_a_moment_twice_does_not_put_the_end_off(world):
    one = world.attach(ONE)
    leave(world, one, temporary=True)
    world.pass_time(9_000)
    assert leave(world, one, temporary=True) == []
    world.pass_time(1_000)
    assert world.machine.registry.get(G) is None


def test_who_has_no_instance_id_leaves_for_good(world):
    leave(world, world.attach(T), temporary=True)
    assert not world.machine.has_members(G)


def test_what_an_instance_was_to_give_up_is_free_when_it_leaves_for_a_moment(world):
    one, other = world.in_turn(ONE, T)
    given_up = world.revoking(one)
    assert given_up
    leave(world, one, temporary=True)
    world.run()
    assert world.owned(other) == given_up


def test_what_an_instance_that_is_away_should_not_have_moves_at_once(world):
    one = world.attach(ONE)
    world.run()
    leave(world, one, temporary=True)
    other = world.attach(T)
    world.run()
    assert len(world.owned(other)) == 2
    assert not world.revoking(one)


# Going.


def test_who_leaves_leaves_everything_at_once(world):
    one, other = world.attach(T), world.attach(T)
    world.run()
    leave(world, one)
    world.run()
    assert world.owned(other) == {T0, T1, T2, T3}
    assert world.beat(one) == [Beat.UNKNOWN]
    assert [each.why.reason for each in world.ended] == [Reason.UNKNOWN_MEMBER]


def test_who_is_silent_goes_and_who_beats_stays(world):
    one, other = world.attach(T), world.attach(T)
    world.run()
    world.pass_time(9_999)
    assert world.beat(other) == [Beat.OK]
    assert world.machine.next_deadline() == world.now + 1
    world.pass_time(1)
    assert set(world.machine.registry.get(G).members) == {other.member_id}
    world.run()
    (ended,) = world.ended
    assert ended.member.member_id == one.member_id
    assert "10000 ms" in ended.why.message
    assert world.owned(other) == {T0, T1, T2, T3}


def test_who_could_not_be_heard_while_the_coordinator_stood_still_is_not_silent_yet(world):
    one, other = world.attach(T), world.attach(T)
    world.run()
    world.now += 11_001
    assert world.machine.expire(world.now) == []
    assert world.beat(one) == [Beat.OK]
    world.pass_time(2_999)
    assert world.beat(one) == [Beat.OK]
    world.pass_time(1)
    assert set(world.machine.registry.get(G).members) == {one.member_id}
    assert other.member_id not in world.machine.registry.get(G).presence


def test_a_coordinator_that_is_a_little_late_spares_nobody(world):
    world.attach(T)
    world.now += 11_000
    assert world.machine.expire(world.now)


def test_a_stream_that_ended_keeps_its_member_until_it_was_silent_for_too_long(world):
    one = world.attach(T)
    world.run()
    world.pass_time(5_000)
    world.beat(one)
    world.machine.detached(G, *one[:2])
    world.pass_time(9_999)
    assert world.machine.has_members(G)
    world.pass_time(1)
    assert not world.machine.has_members(G)


def test_a_beat_from_before_the_end_of_its_stream_does_not_hold_the_instance(world):
    one = world.attach(ONE)
    world.machine.detached(G, *one[:2])
    assert world.beat(one) == [Beat.UNKNOWN]
    world.attach(ONE)


def test_a_member_can_be_removed_and_is_told(world):
    one, other = world.attach(T), world.attach(T)
    world.run()
    world.do(world.machine.remove_member(G, one.member_id))
    world.run()
    assert world.owned(other) == {T0, T1, T2, T3}
    assert "an operator has removed it" in world.ended[0].why.message
    refused(Reason.UNKNOWN_MEMBER, world.machine.remove_member, G, one.member_id)


def test_an_instance_that_was_removed_comes_as_another_member(world):
    one, _ = world.in_turn(ONE, T)
    world.do(world.machine.remove_member(G, one.member_id))
    back = world.attach(ONE)
    assert back.member_id != one.member_id
    assert back.attachment == 1


# The group itself.


def test_a_group_without_members_and_offsets_is_forgotten(world):
    leave(world, world.attach(T))
    world.run()
    assert hard_state(world.machine) == {}
    refused(Reason.GROUP_NOT_FOUND, world.machine.operations.describe, G, world.now)
    assert world.machine.operations.list_groups() == []


def test_a_group_with_offsets_is_remembered_for_as_long_as_they_are_kept(world):
    world.offsets = {G}
    one = world.attach(T)
    world.run()
    assert not world.machine.operations.is_idle(G, world.now + 10**12)
    leave(world, one)
    world.run()
    emptied_at = world.now
    assert state(world) is GroupState.EMPTY
    world.crash()
    world.now += 10
    assert world.machine.operations.describe(G, world.now).emptied_at_ms == emptied_at
    kept = world.limits.retention_ms
    assert world.machine.operations.idle(emptied_at + kept - 1) == []
    assert world.machine.operations.idle(emptied_at + kept) == [G]
    world.attach(T)
    world.run()
    assert world.machine.operations.idle(emptied_at + kept) == []


def test_a_group_of_which_only_offsets_are_known_is_empty(world):
    world.offsets = {G}
    assert state(world) is GroupState.EMPTY
    assert world.machine.operations.is_idle(G, world.now)


def test_a_group_with_members_cannot_be_deleted(world):
    world.offsets = {G}
    delete = world.machine.operations.delete_group
    one = world.attach(T)
    world.run()
    assert "1 members" in refused(Reason.GROUP_HAS_MEMBERS, delete, G, [T0])
    leave(world, one)
    world.run()
    assert delete(G, [T0]) == [OffsetRecord(G, T0, None), GroupRecord(G, None)]
    world.do(delete(G, [T0]))
    refused(Reason.GROUP_NOT_FOUND, delete, G, [])
    assert world.machine.registry.count == 0


def test_most_members_decide_how_partitions_are_shared_out(world):
    asked = []
    world.machine._settling._assignors = lambda assignor: asked.append(assignor) or world.assign
    attached = [
        world.attach(dataclasses.replace(T, assignor=each))
        for each in (Assignor.RANGE, Assignor.RANGE, Assignor.UNIFORM, None)
    ]
    world.run()
    assert asked == [Assignor.RANGE]
    leave(world, attached[0])
    world.run()
    assert asked[1:] == [Assignor.RANGE], "a tie moves nothing"
    leave(world, attached[1])
    world.run()
    leave(world, attached[2])
    world.run()
    assert asked[2:] == [Assignor.UNIFORM, Assignor.UNIFORM]
    assert world.machine.registry.get(G).value.assignor is Assignor.UNIFORM


# Coordinators.


def test_another_coordinator_gives_everybody_their_whole_time(world):
    one = world.attach(T)
    world.run()
    world.pass_time(9_000)
    world.crash()
    world.pass_time(9_999)
    assert world.beat(one) == [Beat.OK]
    world.pass_time(9_999)
    assert world.machine.has_members(G)


def test_another_coordinator_does_not_let_an_instance_be_replaced_that_may_be_at_work(world):
    one, two = world.attach(ONE), world.attach(TWO)
    world.run()
    world.crash()
    assert "3000 ms" in refused(Reason.COORDINATOR_LOADING, world.attach, ONE)
    world.beat(one)
    world.pass_time(3_000)
    refused(Reason.INSTANCE_IN_USE, world.attach, ONE)
    assert world.attach(TWO).member_id == two.member_id


def test_another_coordinator_takes_an_instance_that_was_away_at_once(world):
    one = world.attach(ONE)
    leave(world, one, temporary=True)
    world.run()
    world.crash()
    assert world.attach(ONE).attachment == 2


def test_another_coordinator_moves_nothing_and_writes_nothing(world):
    world.in_peace(T, T)
    log = [*world.log]
    world.crash()
    assert world.run() == []
    assert world.log == log
    assert world.machine.take_news().changed == ()


def test_a_join_that_was_written_before_its_share_gets_it_from_the_next_coordinator(world):
    world.attach(T)
    world.run()
    other = world.attach(T)
    world.crash(survived=1)
    world.run()
    assert len(world.told[other.member_id].owned) == 0
    assert len(world.machine.registry.get(G).assignments[other.member_id].target) == 2


def test_nothing_is_given_before_the_topics_are_known():
    world = World()
    with pytest.raises(AssertionError, match="without topics"):
        world.machine.loaded(0)


def test_partitions_of_a_member_that_is_not_known_are_set_free(world):
    lost = AssignmentValue(epoch=5, owned={T0: 5}, target=frozenset({T0}))
    world.log = [
        GroupRecord(G, GroupValue(epoch=5)),
        AssignmentRecord(G, "lost", lost),
    ]
    world.committed = 2
    world.crash()
    one = world.attach(T)
    world.run()
    assert world.owned(one) == {T0, T1, T2, T3}
    assert "lost" not in world.machine.registry.get(G).assignments


def test_a_rewritten_log_says_the_same(world):
    world.in_peace(T, T, T, T, T)
    world.attach(T, "another group")
    world.run()
    before = hard_state(world.machine)
    assert len(world.stored()) > len(before)
    world.rewrite(limit_bytes=1)
    assert world.log_start > 0
    assert len(world.stored()) == len(before) == world.machine.registry.count
    for log in (world.stored(), compacted(world.stored())):
        assert hard_state(world.started(log)) == before


def test_what_is_to_be_rewritten_comes_in_pieces_oldest_first(world):
    for _ in range(5):
        world.attach(T)
    below = world.machine.registry.live_records_below
    everything = below(5, 10**9)
    assert [each.member_id for each in everything] == [f"m{n:04}" for n in range(1, 6)]
    assert below(5, 1) == everything[:1]
    assert below(3, 10**9) == everything[:3]
    assert below(0, 10**9) == []


def test_a_rewrite_tells_nobody_anything(world):
    world.in_peace(T, T)
    world.told.clear()
    world.rewrite()
    assert world.told == {}
    assert world.settle() == []
