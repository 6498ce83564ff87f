"""The coordinators of groups on other brokers: what they are asked, and what they say."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.group_views import GroupState, MemberView
from riverrun_server.core.groups.joining import Join
from riverrun_server.core.groups.members import Assignor
from riverrun_server.core.groups.offsets import OffsetRecord
from riverrun_server.core.log.batch import PartitionId


class Home(NamedTuple):
    """Where a group's offsets are kept, and with whom.

    Attributes:
        partition: of the offsets topic.
        leader: the broker that leads it.
        leader_epoch: in which it does; a broker that leads in another one refuses.
    """

    partition: PartitionId
    leader: int
    leader_epoch: int


# Members.


class NewMember(NamedTuple):
    """A process that wants to be a member; the same id and token again are the same join.

    Attributes:
        member_id: drawn by its gateway, for the case that the instance id is not that of another member.
        token: drawn by its gateway, the member's from now on; must not be guessed.
        said: what it says of itself.
    """

    member_id: str
    token: bytes
    said: Join


class Attached(NamedTuple):
    """What is told of a stream that speaks for a member.

    Attributes:
        member_id: the member.
        attachment: the stream's number, which everything that is said for the member names.
        token: proves that another stream may take its place.
        session_timeout_ms: how long the member may be silent.
        revocation_timeout_ms: how long it may take to give a partition up.
        view: what it has.
    """

    member_id: str
    attachment: int
    token: bytes
    session_timeout_ms: int
    revocation_timeout_ms: int
    view: MemberView


class MemberBeat(NamedTuple):
    """A member is alive, says the stream of this number."""

    group_id: str
    member_id: str
    attachment: int


class BeatRefused(NamedTuple):
    """A beat that did not count, and why: the gateway does not speak for the member any more."""

    beat: MemberBeat
    reason: Reason


class Revoked(NamedTuple):
    """Partitions that a member has given up, each with the epoch in which it was given."""

    member_id: str
    attachment: int
    partitions: Mapping[PartitionId, int]


class Leave(NamedTuple):
    """A member leaves.

    Attributes:
        member_id: the member.
        proof: why the gateway may say so: the number of the stream that it has of the member, or the
            member's token.
        temporary: whether it will be back.
    """

    member_id: str
    proof: int | bytes
    temporary: bool


class Detached(NamedTuple):
    """The stream of this number has ended without a leave."""

    member_id: str
    attachment: int


class MemberCommit(NamedTuple):
    """Offsets that a member commits.

    Attributes:
        member_id: the member.
        attachment: the stream's number; None where it did not come on the member's stream.
        epoch: that the member had been told when it read.
        records: of its group.
    """

    member_id: str
    attachment: int | None
    epoch: int
    records: Sequence[OffsetRecord]


OffsetRefusals = Mapping[PartitionId, Refusal]
"""Why offsets of a commit did not count; all others did."""


class MemberEvents(Protocol):
    """Whoever speaks for a member, as its coordinator tells it what is new; on the event loop, in order."""

    def changed(self, view: MemberView) -> None:
        """Learn what the member has now; of views that follow one another quickly some may be left out."""
        ...

    def ended(self, why: Refusal) -> None:
        """Learn that the stream does not speak for the member any more; nothing follows.

        With MEMBER_TAKEN_OVER and UNKNOWN_MEMBER that is final. Everything else says that the coordinator
        is another one now or cannot be reached: the member may be reattached.
        """
        ...


# Groups, for those who operate them.

LISTED_MAX: Final = 1000
"""Groups that one call lists."""


class MemberState(enum.Enum):
    """Whether somebody speaks for a member."""

    ATTACHED = "a stream does"
    DETACHED = "its stream has ended, or has not been heard of since the coordinator began"
    AWAY = "it has left for a moment"


class MemberDescription(NamedTuple):
    """Everything about a member but its token.

    Attributes:
        member_id: the member.
        said: what it has said of itself, timeouts filled in.
        state: whether somebody speaks for it; None where a newer broker says something else.
        gateway: the broker that has its stream, or had the last one; None where that is not known.
        session_left_ms: what is left until it is given up, if nothing more is heard of it.
        view: what it has.
        target: what it should have.
    """

    member_id: str
    said: Join
    state: MemberState | None
    gateway: int | None
    session_left_ms: int
    view: MemberView
    target: frozenset[PartitionId]


class GroupDescription(NamedTuple):
    """Everything about a group but its offsets.

    Attributes:
        state: whether it is at rest; None where a newer broker says something else.
        assignor: how its partitions are shared out; None where it has never had a member.
        epoch: counts changes of what its members should have.
        members: by id.
    """

    state: GroupState | None
    assignor: Assignor | None
    epoch: int
    members: Sequence[MemberDescription]


class GroupQuery(NamedTuple):
    """Which groups to list.

    Attributes:
        after: those whose names are behind this one; empty is all.
        limit: so many at most, 1 to `LISTED_MAX`.
        states: those in one of these; none is all.
    """

    after: str
    limit: int
    states: frozenset[GroupState] = frozenset()


class GroupListing(NamedTuple):
    """A group in short, as `GroupDescription`; with how many members."""

    group_id: str
    state: GroupState | None
    members: int
    assignor: Assignor | None


class GroupPage(NamedTuple):
    """Groups by name, and whether there are further ones behind the last."""

    groups: Sequence[GroupListing]
    more: bool


class MemberName(NamedTuple):
    """Names a member by its id, or by its instance id; the other one is empty."""

    member_id: str = ""
    instance_id: str = ""
