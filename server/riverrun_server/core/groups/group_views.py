"""What members and operators are told of groups."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups.group import Group, MemberKey, StreamState
from riverrun_server.core.groups.members import Assignor, MemberValue
from riverrun_server.core.log.batch import PartitionId


class MemberView(NamedTuple):
    """What a member has, as it is told.

    Attributes:
        epoch: the number of this view, higher than that of each one before; 0 before the first.
        owned: the partitions that it reads, each with the epoch in which it was given.
        revoking: the partitions that it is to give up and then to say so, with the same.
    """

    epoch: int
    owned: Mapping[PartitionId, int]
    revoking: Mapping[PartitionId, int]


class Ended(NamedTuple):
    """A stream that does not speak for its member any more.

    Attributes:
        member: for which it spoke.
        attachment: its number.
        why: what it is told.
    """

    member: MemberKey
    attachment: int
    why: Refusal


class News(NamedTuple):
    """What is to be told when the records of the same batch are committed.

    Attributes:
        changed: members whose view is another one, or that a stream has just attached to.
        ended: streams that are over.
    """

    changed: tuple[MemberKey, ...]
    ended: tuple[Ended, ...]


class GroupState(enum.Enum):
    """How a group stands."""

    EMPTY = "it has no members"
    RECONCILING = "members are to get or to give up partitions"
    STABLE = "every member has what it should"


class GroupListing(NamedTuple):
    """A group in a list."""

    group_id: str
    state: GroupState
    epoch: int
    members: int


class MemberDescription(NamedTuple):
    """A member as operators see it.

    Attributes:
        member_id: the member.
        value: what it has said of itself.
        view: what it has.
        target: what it should have.
        stream: what is known of the stream that speaks for it.
        silent_in_ms: when it will have been silent for too long.
    """

    member_id: str
    value: MemberValue
    view: MemberView
    target: frozenset[PartitionId]
    stream: StreamState
    silent_in_ms: int


class GroupDescription(NamedTuple):
    """A group as operators see it.

    Attributes:
        listing: as in a list.
        assignor: how its partitions are shared out.
        emptied_at_ms: since when it has no members; None while it has some.
        members: by member id.
        held: partitions that a reset holds.
    """

    listing: GroupListing
    assignor: Assignor
    emptied_at_ms: int | None
    members: tuple[MemberDescription, ...]
    held: frozenset[PartitionId]


def view_of(group: Group, member_id: str) -> MemberView:
    """Return what a member has."""
    has = group.assignments.get(member_id)
    if has is None:
        return MemberView(0, {}, {})
    return MemberView(has.epoch, has.owned, has.revoking)


def listing_of(group: Group) -> GroupListing:
    """Return a group as in a list."""
    if not group.members:
        state = GroupState.EMPTY
    elif group.is_settled:
        state = GroupState.STABLE
    else:
        state = GroupState.RECONCILING
    return GroupListing(group.group_id, state, group.epoch, len(group.members))


def description_of(group: Group, now_ms: int) -> GroupDescription:
    """Return a group as operators see it."""
    return GroupDescription(
        listing_of(group),
        group.value.assignor if group.value else Assignor.UNIFORM,
        group.value.emptied_at_ms if group.value else None,
        tuple(_member(group, member_id, now_ms) for member_id in sorted(group.members)),
        frozenset().union(*group.holds.values()),
    )


def _member(group: Group, member_id: str, now_ms: int) -> MemberDescription:
    silent_at_ms = group.timers.sessions.get(MemberKey(group.group_id, member_id))
    has = group.assignments.get(member_id)
    return MemberDescription(
        member_id,
        group.members[member_id],
        view_of(group, member_id),
        has.target if has else frozenset(),
        group.presence[member_id].stream,
        max((silent_at_ms or now_ms) - now_ms, 0),
    )
