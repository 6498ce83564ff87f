"""What is said of groups comes out of the wire as it went in, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.group_views import GroupState, MemberView
from riverrun_server.core.groups.joining import Join
from riverrun_server.core.groups.members import Assignor
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.peer.group_messages import (
    described_from_wire,
    described_to_wire,
    listed_from_wire,
    listed_to_wire,
    query_from_wire,
    query_to_wire,
    remove_from_wire,
    remove_to_wire,
    removed_to_wire,
    reset_from_wire,
    reset_to_wire,
)
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.v1 import coordination_pb2 as wire
from riverrun_server.ports.coordination import (
    GroupDescription,
    GroupListing,
    GroupPage,
    MemberDescription,
    MemberState,
)
from tests.peer import group_values as values
from tests.peer.test_member_messages import MESSAGE_BYTES_MAX, answered, sent

T = b"t" * 16


def described(description):
    """Return the parts of the answer as they arrive."""
    return [answered(part, "described") for part in described_to_wire(7, description)]


@given(values.descriptions)
def test_everything_about_a_group_arrives(description):
    parts = described(description)
    assert len(parts) == 1
    assert described_from_wire(parts) == description


def test_a_group_of_ten_thousand_members_arrives_in_parts():
    target = frozenset(PartitionId(T, number) for number in range(5))
    members = tuple(
        MemberDescription(
            f"{number:036}",
            Join(topics=("orders" * 40,), client_id="c" * 249, session_timeout_ms=10_000),
            MemberState.ATTACHED,
            1,
            9_000,
            MemberView(5, dict.fromkeys(target, 5), {}),
            target,
        )
        for number in range(10_000)
    )
    description = GroupDescription(GroupState.STABLE, Assignor.UNIFORM, 9, members)
    parts = described(description)
    assert 2 < len(parts) < 20
    assert all(part.ByteSize() < MESSAGE_BYTES_MAX // 2 for part in parts)
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    assert described_from_wire(parts) == description


@given(values.queries)
def test_which_groups_to_list_arrives(query):
    assert query_from_wire(sent(query_to_wire(query))) == query


@given(values.pages)
def test_groups_arrive(page):
    assert listed_from_wire(answered(listed_to_wire(7, page), "listed")) == page


def test_the_largest_page_fits_a_message():
    groups = [
        GroupListing(f"{number:0249}", GroupState.STABLE, 10_000, Assignor.RANGE)
        for number in range(1000)
    ]
    answer = listed_to_wire(7, GroupPage(groups, more=True))
    assert answer.ByteSize() < MESSAGE_BYTES_MAX // 8


@given(values.member_names)
def test_whom_to_throw_out_arrives(name):
    assert remove_from_wire(sent(remove_to_wire(name))) == name


def test_who_was_thrown_out_arrives():
    assert answered(removed_to_wire(7, "m"), "removed").member_id == "m"


@given(values.records.filter(bool))
def test_where_a_group_is_to_go_on_arrives(records):
    assert reset_from_wire(values.GROUP, sent(reset_to_wire(records))) == records


# What comes from other versions.


@pytest.mark.parametrize(
    ("from_wire", "message"),
    [
        # Without the state that it does not know, it would list all groups.
        (query_from_wire, wire.ListGroups(limit=1, states=[4])),
        (query_from_wire, wire.ListGroups(limit=1, states=[1, 0])),
        (remove_from_wire, wire.RemoveMember()),
    ],
)
def test_what_only_a_newer_gateway_asks_is_refused_and_its_stream_goes_on(from_wire, message):
    with pytest.raises(Refusal, match="older version") as caught:
        from_wire(sent(message))
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_what_only_a_newer_coordinator_says_is_not_known_here():
    member = wire.MemberDescribed(member_id="m", state=99, said=wire.JoinGroup(assignor=99))
    group = described_from_wire([wire.GroupDescribed(state=99, assignor=99, members=[member])])
    assert (group.state, group.assignor) == (None, None)
    assert (group.members[0].state, group.members[0].said.assignor) == (None, None)
    listed = wire.GroupsListed(groups=[{"group_id": "g", "state": 99, "assignor": 99}])
    assert listed_from_wire(listed).groups == (GroupListing("g", None, 0, None),)


@pytest.mark.parametrize(
    ("from_wire", "message"),
    [
        (query_from_wire, wire.ListGroups()),
        (query_from_wire, wire.ListGroups(limit=-1)),
        (query_from_wire, wire.ListGroups(limit=1001)),
        (listed_from_wire, wire.GroupsListed(more=True)),
        (remove_from_wire, wire.RemoveMember(member_id="")),
        (remove_from_wire, wire.RemoveMember(instance_id="")),
    ],
)
def test_what_no_version_says_ends_the_stream(from_wire, message):
    with pytest.raises(InvalidMessage):
        from_wire(sent(message))


@pytest.mark.parametrize(
    "member",
    [
        wire.MemberDescribed(target=[{"topic_id": b"short", "partitions": [0]}]),
        wire.MemberDescribed(target=[{"topic_id": T, "partitions": [-1]}]),
        wire.MemberDescribed(view=wire.MemberView(epoch=-1)),
    ],
)
def test_a_member_that_no_version_describes_ends_the_stream(member):
    with pytest.raises(InvalidMessage):
        described_from_wire([sent(wire.GroupDescribed(members=[member]))])


@pytest.mark.parametrize(
    "offsets", [[], [wire.KeptOffset(topic_id=T, offset=1), wire.KeptOffset(topic_id=T, offset=2)]]
)
def test_a_reset_that_no_version_asks_for_ends_the_stream(offsets):
    with pytest.raises(InvalidMessage):
        reset_from_wire("g", sent(wire.ResetOffsets(offsets=offsets)))
