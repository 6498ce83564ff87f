"""What is said of members comes out of the wire as it went in, or is refused."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.group_views import MemberView
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.peer.attach_messages import (
    attach_from_wire,
    attach_to_wire,
    attached_from_wire,
    attached_to_wire,
    join_from_wire,
    view_changed_to_wire,
    view_from_wire,
    view_to_wire,
)
from riverrun_server.peer.coordination_messages import (
    done_to_wire,
    stored_from_wire,
    stored_to_wire,
)
from riverrun_server.peer.member_messages import (
    beaten_from_wire,
    beaten_to_wire,
    beats_from_wire,
    beats_to_wire,
    commit_from_wire,
    commit_to_wire,
    detached_from_wire,
    detached_to_wire,
    leave_from_wire,
    leave_to_wire,
    revoked_from_wire,
    revoked_to_wire,
)
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.v1 import coordination_pb2 as wire
from riverrun_server.ports.coordination import BeatRefused, MemberBeat, MemberCommit
from tests.peer import group_values as values

T = b"t" * 16
# What an untuned peer takes.
MESSAGE_BYTES_MAX = 4 << 20


def sent(message):
    """Return what arrives of a message."""
    return type(message).FromString(message.SerializeToString())


def answered(answer, kind):
    """Return what arrives of an answer, which is of this kind and of no other."""
    answer = sent(answer)
    assert answer.call_id == 7
    assert answer.WhichOneof("kind") == kind
    return getattr(answer, kind)


@given(values.starts)
def test_how_a_stream_begins_arrives(start):
    assert attach_from_wire(sent(attach_to_wire(start))) == start


@given(values.attached)
def test_for_which_member_a_stream_speaks_arrives(attached):
    assert attached_from_wire(answered(attached_to_wire(7, attached), "attached")) == attached


@given(values.views())
def test_what_a_member_has_arrives(view):
    assert view_from_wire(answered(view_changed_to_wire(7, view), "view_changed")) == view


def test_what_a_member_has_is_small():
    of = {PartitionId(T, number): 3 for number in range(1000)}
    assert len(view_to_wire(MemberView(5, of, {})).SerializeToString()) < 2_000


@given(st.lists(values.beats, max_size=9))
def test_beats_arrive_by_group(beats):
    calls = list(beats_to_wire(beats))
    assert len(calls) == (1 if beats else 0)
    assert Counter(each for call in calls for each in beats_from_wire(sent(call))) == Counter(beats)


@given(st.lists(values.refused_beats, max_size=9))
def test_beats_that_did_not_count_arrive_by_group(refused):
    arrived = beaten_from_wire(answered(beaten_to_wire(7, refused), "beaten"))
    assert Counter(arrived) == Counter(refused)


@pytest.mark.parametrize(
    ("groups", "members"), [(10_000, 1), (20_000, 1), (1, 10_000), (2, 10_000), (100, 200)]
)
def test_any_number_of_beats_fits_calls_and_their_answers_however_long_the_names(groups, members):
    beats = [
        MemberBeat(f"{group:0249}", f"{member:036}", 1)
        for member in range(members)
        for group in range(groups)
    ]
    arrived = []
    for call in beats_to_wire(beats):
        assert call.ByteSize() < MESSAGE_BYTES_MAX // 2
        found = beats_from_wire(sent(call))
        refused = [BeatRefused(beat, Reason.MEMBER_TAKEN_OVER) for beat in found]
        assert beaten_to_wire(7, refused).ByteSize() < MESSAGE_BYTES_MAX // 2
        arrived += found
    assert sorted(arrived) == sorted(beats)


@given(values.revocations)
def test_what_a_member_has_given_up_arrives(revoked):
    assert revoked_from_wire(sent(revoked_to_wire(revoked))) == revoked


@given(values.leaves)
def test_that_a_member_leaves_arrives(leave):
    found = leave_from_wire(sent(leave_to_wire(leave)))
    assert found == leave
    assert type(found.proof) is type(leave.proof)


@given(values.detachments)
def test_that_a_stream_has_ended_arrives(detached):
    assert detached_from_wire(sent(detached_to_wire(detached))) == detached


@given(values.commits)
def test_what_a_member_commits_arrives(commit):
    assert commit_from_wire(values.GROUP, sent(commit_to_wire(commit))) == commit


@given(values.refusals)
def test_which_offsets_did_not_count_arrives(refused):
    arrived = stored_from_wire(answered(stored_to_wire(7, refused), "stored"))
    assert {each: (found.reason, found.message) for each, found in arrived.items()} == {
        each: (refusal.reason, refusal.message) for each, refusal in refused.items()
    }


def test_that_something_is_done_arrives():
    answered(done_to_wire(7), "done")


@pytest.mark.parametrize("attachment", [None, 0, 1])
def test_a_commit_on_a_member_s_stream_is_told_from_one_that_came_elsewhere(attachment):
    commit = MemberCommit("m", attachment, 0, [])
    assert commit_from_wire(values.GROUP, sent(commit_to_wire(commit))) == commit


# What comes from other versions.


@pytest.mark.parametrize(
    ("from_wire", "message"),
    [
        (attach_from_wire, wire.AttachMember()),
        (
            attach_from_wire,
            wire.AttachMember(join={"member_id": "m", "said": wire.JoinGroup(assignor=3)}),
        ),
        (leave_from_wire, wire.LeaveGroup(member_id="m")),
    ],
)
def test_what_only_a_newer_gateway_asks_is_refused_and_its_stream_goes_on(from_wire, message):
    with pytest.raises(Refusal, match="older version") as caught:
        from_wire(sent(message))
    assert caught.value.reason is Reason.INVALID_REQUEST


# What a coordinator from before members looks for: a commit of anybody, and all that was committed.
OLD_KINDS = {"store": 8, "tell": 9}


KINDS = [kind.name for kind in wire.CoordinatorCall.DESCRIPTOR.oneofs_by_name["kind"].fields]


@pytest.mark.parametrize("kind", KINDS)
def test_a_coordinator_from_before_members_finds_nothing_that_it_could_carry_out_by_half(kind):
    """Above all no commit that it would take without asking whether the member has the partition."""
    call = wire.CoordinatorCall(group_id="g")
    getattr(call, kind).SetInParent()
    found = {field.number for field, _ in sent(call).ListFields()} & set(OLD_KINDS.values())
    assert found == ({OLD_KINDS[kind]} if kind in OLD_KINDS else set())
    assert [field.name for field in wire.StoreOffsets.DESCRIPTOR.fields] == ["offsets"]


def test_what_a_newer_coordinator_says_of_beats_and_assignors_is_taken_as_well_as_can_be():
    taken = wire.BeatsTaken()
    taken.refused.add(group_id="g").members.add(member_id="m", attachment=1, reason=999)
    assert beaten_from_wire(taken) == [BeatRefused(MemberBeat("g", "m", 1), Reason.INTERNAL)]
    assert join_from_wire(wire.JoinGroup(assignor=99)).assignor is None


HELD = wire.HeldPartitions(topic_id=T, partitions=[0])


@pytest.mark.parametrize(
    ("from_wire", "message"),
    [
        (attach_from_wire, wire.AttachMember(join=wire.NewMember(token=b"t"))),
        (attach_from_wire, wire.AttachMember(reattach=wire.ReattachMember(token=b"t"))),
        (attached_from_wire, wire.Attached()),
        (attached_from_wire, wire.Attached(member_id="m", attachment=-1)),
        (attached_from_wire, wire.Attached(member_id="m", session_timeout_ms=-1)),
        (attached_from_wire, wire.Attached(member_id="m", revocation_timeout_ms=-1)),
        (view_from_wire, wire.MemberView(epoch=-1)),
        (view_from_wire, wire.MemberView(owned=[HELD, HELD])),
        (view_from_wire, wire.MemberView(owned=[HELD], revoking=[HELD])),
        (view_from_wire, wire.MemberView(owned=[{"topic_id": b"short", "partitions": [0]}])),
        (view_from_wire, wire.MemberView(owned=[{"topic_id": T, "partitions": [-1]}])),
        (view_from_wire, wire.MemberView(revoking=[{"topic_id": T, "assignment_epoch": -1}])),
        (beats_from_wire, wire.BeatMembers(groups=[{"members": [{"attachment": 1}]}])),
        (
            beats_from_wire,
            wire.BeatMembers(groups=[{"members": [{"member_id": "m", "attachment": -1}]}]),
        ),
        (beaten_from_wire, wire.BeatsTaken(refused=[{"members": [{"reason": 73}]}])),
        (revoked_from_wire, wire.MemberRevoked()),
        (revoked_from_wire, wire.MemberRevoked(member_id="m", attachment=-1)),
        (leave_from_wire, wire.LeaveGroup(attachment=1)),
        (leave_from_wire, wire.LeaveGroup(member_id="m", attachment=-1)),
        (detached_from_wire, wire.MemberDetached()),
        (detached_from_wire, wire.MemberDetached(member_id="m", attachment=-1)),
        (stored_from_wire, wire.OffsetsStored(refused=[{"topic_id": b"short"}])),
    ],
)
def test_what_no_version_says_ends_the_stream(from_wire, message):
    with pytest.raises(InvalidMessage):
        from_wire(sent(message))


@pytest.mark.parametrize(
    "message",
    [
        wire.StoreMemberOffsets(),
        wire.StoreMemberOffsets(member_id="m", attachment=-1),
        wire.StoreMemberOffsets(member_id="m", member_epoch=-1),
        wire.StoreMemberOffsets(member_id="m", offsets=[{"topic_id": T, "offset": -1}]),
    ],
)
def test_a_commit_that_no_version_makes_ends_the_stream(message):
    with pytest.raises(InvalidMessage):
        commit_from_wire("g", sent(message))
