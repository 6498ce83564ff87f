"""Who is in a group and what each member has: the values that the offsets topic keeps beside committed offsets.

A group's epoch counts changes of what its members should have. A member's epoch numbers what it has
been told, so that a commit can say which assignment it was made under (KIP-848, KIP-1251).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from riverrun_server.core.groups.offsets import OffsetRecord
from riverrun_server.core.log.batch import PartitionId


class Assignor(enum.Enum):
    """How partitions are shared out.

    UNIFORM balances the number of partitions and moves as few as it can; RANGE gives a member the same
    numbers of every topic, so that topics which are partitioned alike can be joined.
    """

    UNIFORM = "uniform"
    RANGE = "range"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupValue:
    """What is kept of a group as a whole.

    Attributes:
        epoch: counts changes of what the members should have; no member's epoch is higher.
        assignor: how its partitions are shared out.
        emptied_at_ms: since when it has no members; None while it has some. Its offsets expire by
            it, and a new coordinator has no other way to know.
    """

    epoch: int
    assignor: Assignor = Assignor.UNIFORM
    emptied_at_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberValue:
    """What a member has said of itself.

    Attributes:
        instance_id: names a place in the group that a restarted process takes again; empty is none.
        client_id: what its application calls itself, for people.
        address: from where it came last, for people.
        topics: the names of topics to read.
        pattern: a pattern of names of topics to read; empty is none.
        rack: where it runs, to be given partitions that are near; empty is nowhere.
        assignor: which one it asks for; None is whichever.
        session_timeout_ms: how long it may be silent.
        revocation_timeout_ms: how long it may take to give a partition up.
        attachment: counts the streams that have spoken for it; only the newest may.
        token: proves that a stream may take the place of the one before.
        is_away: it has left for a moment, as an instance that will be back.
    """

    instance_id: str = ""
    client_id: str = ""
    address: str = ""
    topics: tuple[str, ...] = ()
    pattern: str = ""
    rack: str = ""
    assignor: Assignor | None = None
    session_timeout_ms: int
    revocation_timeout_ms: int
    attachment: int
    token: bytes
    is_away: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentValue:
    """What a member should have, and what it has.

    Attributes:
        epoch: the member's; it rises whenever `owned` or `revoking` changes.
        target: the partitions that it should have.
        owned: the partitions that it has, each with the member's epoch in which it was given.
        revoking: the partitions that it is to give up and has not yet, with the same.
    """

    epoch: int
    target: frozenset[PartitionId] = frozenset()
    owned: Mapping[PartitionId, int] = field(default_factory=dict)
    revoking: Mapping[PartitionId, int] = field(default_factory=dict)


class GroupRecord(NamedTuple):
    """A record of the offsets topic about a group; no value deletes it."""

    group_id: str
    value: GroupValue | None


class MemberRecord(NamedTuple):
    """A record of the offsets topic about a member; no value deletes it."""

    group_id: str
    member_id: str
    value: MemberValue | None


class AssignmentRecord(NamedTuple):
    """A record of the offsets topic about a member's partitions; no value deletes it."""

    group_id: str
    member_id: str
    value: AssignmentValue | None


# Everything that the offsets topic keeps.
Record = OffsetRecord | GroupRecord | MemberRecord | AssignmentRecord
