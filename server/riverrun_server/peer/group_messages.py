"""What gateways and coordinators say of whole groups, for their operators, as it stands on the wire, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from riverrun_server.core.groups.group_views import GroupState
from riverrun_server.core.groups.offsets import OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.peer.attach_messages import (
    ASSIGNORS,
    ASSIGNORS_BY_NUMBER,
    join_from_wire,
    join_to_wire,
    view_from_wire,
    view_to_wire,
)
from riverrun_server.peer.coordination_messages import (
    PART_BYTES,
    partition_from_wire,
    records_from_wire,
    records_to_wire,
    unknown_kind,
)
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.v1 import coordination_pb2 as wire
from riverrun_server.ports.coordination import (
    LISTED_MAX,
    GroupDescription,
    GroupListing,
    GroupPage,
    GroupQuery,
    MemberDescription,
    MemberName,
    MemberState,
)

_STATES: Final = {
    None: wire.COORDINATED_STATE_UNSPECIFIED,
    GroupState.EMPTY: wire.COORDINATED_STATE_EMPTY,
    GroupState.RECONCILING: wire.COORDINATED_STATE_RECONCILING,
    GroupState.STABLE: wire.COORDINATED_STATE_STABLE,
}
_STATES_BY_NUMBER: Final[dict[int, GroupState]] = {
    number: state for state, number in _STATES.items() if state is not None
}
_MEMBER_STATES: Final = {
    None: wire.ATTACHMENT_STATE_UNSPECIFIED,
    MemberState.ATTACHED: wire.ATTACHMENT_STATE_ATTACHED,
    MemberState.DETACHED: wire.ATTACHMENT_STATE_DETACHED,
    MemberState.AWAY: wire.ATTACHMENT_STATE_AWAY,
}
_MEMBER_STATES_BY_NUMBER: Final[dict[int, MemberState]] = {
    number: state for state, number in _MEMBER_STATES.items() if state is not None
}


def described_to_wire(
    call_id: int, description: GroupDescription
) -> Iterator[wire.CoordinatorAnswer]:
    """Yield the answer with everything about a group, in parts that are made as needed."""
    described = wire.GroupDescribed(
        state=_STATES[description.state],
        assignor=ASSIGNORS[description.assignor],
        epoch=description.epoch,
    )
    size = 0
    for member in description.members:
        said = _member_to_wire(member)
        size += said.ByteSize() + 8
        if size > PART_BYTES and described.members:
            described.more = True
            yield wire.CoordinatorAnswer(call_id=call_id, described=described)
            described, size = wire.GroupDescribed(), said.ByteSize() + 8
        described.members.append(said)
    yield wire.CoordinatorAnswer(call_id=call_id, described=described)


def described_from_wire(parts: Sequence[wire.GroupDescribed]) -> GroupDescription:
    """Return everything about a group, out of all parts of the answer, of which there is one at least.

    Raises:
        InvalidMessage
    """
    first = parts[0]
    return GroupDescription(
        state=_STATES_BY_NUMBER.get(first.state),
        assignor=ASSIGNORS_BY_NUMBER.get(first.assignor),
        epoch=first.epoch,
        members=tuple(_member_from_wire(each) for part in parts for each in part.members),
    )


def query_to_wire(query: GroupQuery) -> wire.ListGroups:
    """Return which groups to list."""
    return wire.ListGroups(
        after=query.after,
        limit=query.limit,
        states=sorted(_STATES[state] for state in query.states),
    )


def query_from_wire(query: wire.ListGroups) -> GroupQuery:
    """Return which groups to list.

    Raises:
        InvalidMessage
        Refusal: INVALID_REQUEST, for what only a newer version asks.
    """
    if not 0 < query.limit <= LISTED_MAX:
        raise InvalidMessage(f"{query.limit} groups are to be listed; 1 to {LISTED_MAX} can be")
    if any(state not in _STATES_BY_NUMBER for state in query.states):
        # To leave it out would list other groups than those that are meant.
        raise unknown_kind()
    states = frozenset(_STATES_BY_NUMBER[state] for state in query.states)
    return GroupQuery(after=query.after, limit=query.limit, states=states)


def listed_to_wire(call_id: int, page: GroupPage) -> wire.CoordinatorAnswer:
    """Return groups by name."""
    listed = wire.GroupsListed(more=page.more)
    for group in page.groups:
        listed.groups.add(
            group_id=group.group_id,
            state=_STATES[group.state],
            members=group.members,
            assignor=ASSIGNORS[group.assignor],
        )
    return wire.CoordinatorAnswer(call_id=call_id, listed=listed)


def listed_from_wire(listed: wire.GroupsListed) -> GroupPage:
    """Return groups by name.

    Raises:
        InvalidMessage
    """
    groups = tuple(
        GroupListing(
            group_id=each.group_id,
            state=_STATES_BY_NUMBER.get(each.state),
            members=each.members,
            assignor=ASSIGNORS_BY_NUMBER.get(each.assignor),
        )
        for each in listed.groups
    )
    if listed.more and not groups:
        raise InvalidMessage("further groups follow behind none, and could never be asked for")
    return GroupPage(groups=groups, more=listed.more)


def remove_to_wire(name: MemberName) -> wire.RemoveMember:
    """Return whom to throw out."""
    assert bool(name.member_id) is not bool(name.instance_id), name
    if name.instance_id:
        return wire.RemoveMember(instance_id=name.instance_id)
    return wire.RemoveMember(member_id=name.member_id)


def remove_from_wire(remove: wire.RemoveMember) -> MemberName:
    """Return whom to throw out.

    Raises:
        InvalidMessage
        Refusal: INVALID_REQUEST, for what only a newer version asks.
    """
    if remove.WhichOneof("member") is None:
        raise unknown_kind()
    name = MemberName(member_id=remove.member_id, instance_id=remove.instance_id)
    if name == MemberName():
        raise InvalidMessage("a member is to be removed and its name is empty")
    return name


def removed_to_wire(call_id: int, member_id: str) -> wire.CoordinatorAnswer:
    """Return who was thrown out."""
    return wire.CoordinatorAnswer(call_id=call_id, removed=wire.MemberRemoved(member_id=member_id))


def reset_to_wire(records: Iterable[OffsetRecord]) -> wire.ResetOffsets:
    """Return where a group is to go on."""
    return wire.ResetOffsets(offsets=records_to_wire(records))


def reset_from_wire(group_id: str, reset: wire.ResetOffsets) -> list[OffsetRecord]:
    """Return where a group is to go on.

    Raises:
        InvalidMessage
    """
    records = records_from_wire(group_id, reset.offsets)
    if not records:
        raise InvalidMessage("a group is to go on elsewhere and nowhere is said")
    if len({record.partition for record in records}) != len(records):
        raise InvalidMessage("a group is to go on at two places of one partition")
    return records


def _member_to_wire(member: MemberDescription) -> wire.MemberDescribed:
    said = wire.MemberDescribed(
        member_id=member.member_id,
        said=join_to_wire(member.said),
        state=_MEMBER_STATES[member.state],
        gateway=member.gateway,
        session_left_ms=member.session_left_ms,
        view=view_to_wire(member.view),
    )
    for topic_id, partition in sorted(member.target):
        if not said.target or said.target[-1].topic_id != topic_id:
            said.target.add(topic_id=topic_id)
        said.target[-1].partitions.append(partition)
    return said


def _member_from_wire(member: wire.MemberDescribed) -> MemberDescription:
    target: frozenset[PartitionId] = frozenset(
        partition_from_wire(each.topic_id, number)
        for each in member.target
        for number in each.partitions
    )
    return MemberDescription(
        member_id=member.member_id,
        said=join_from_wire(member.said),
        state=_MEMBER_STATES_BY_NUMBER.get(member.state),
        gateway=member.gateway if member.HasField("gateway") else None,
        session_left_ms=member.session_left_ms,
        view=view_from_wire(member.view),
        target=target,
    )
