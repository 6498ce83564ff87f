"""What a stream tells its reader, as values; wire/deliveries puts them on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from riverrun_server.core.errors import Refusal
from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.core.reading.places import Position

_HEARTBEAT_MAX_S: Final = 10.0


class Run(NamedTuple):
    """What was read in one step and is ready to be sent.

    Attributes:
        pieces: what is sent whole or not at all: stored batches, or single records in a batch's
            shape, whose `data` is what goes on the wire.
        next_offset: the position behind it; pieces begin below it.
        high_watermark: at the time of reading.
        log_start_offset: at the time of reading.
        more: what was read goes on behind this run, and is offered next.
    """

    pieces: Sequence[StoredBatch]
    next_offset: int
    high_watermark: int
    log_start_offset: int
    more: bool = False


class Delivery(NamedTuple):
    """Pieces of one partition that travel in one message.

    Attributes:
        topic: the topic's name.
        id: the partition.
        first_offset: the position that this was read from.
        next_offset: the position to go on from.
        high_watermark: what lies below it is committed.
        log_start_offset: the first offset that can be read.
        pieces: the first may begin before `first_offset`, the last reach beyond `next_offset`.
        records: how many offsets it spans, which is what it costs of that kind.
        charged_bytes: what it costs in bytes.
        leader_epoch: of the last record; 0 where there is none.
    """

    topic: str
    id: PartitionId
    first_offset: int
    next_offset: int
    high_watermark: int
    log_start_offset: int
    pieces: Sequence[StoredBatch]
    records: int
    charged_bytes: int
    leader_epoch: int


class Joined(NamedTuple):
    """A membership of a group, as its member is told of it.

    Attributes:
        group_id: the group.
        member_id: the member.
        token: lets another stream go on for the member.
        session_timeout_ms: how long it may be silent.
        revocation_timeout_ms: how long it may take to give a partition up.
    """

    group_id: str
    member_id: str
    token: bytes
    session_timeout_ms: int
    revocation_timeout_ms: int

    @property
    def heartbeat_interval_s(self) -> float:
        """How often the member hears of its stream: so that it notices in time when it does not any more.

        What is not heard of for three intervals is broken, and then another gateway is still to be found in
        the other half of the session timeout.
        """
        return min(_HEARTBEAT_MAX_S, self.session_timeout_ms / 1000 / 2 / 3)


@dataclass(frozen=True, slots=True)
class Started:
    """Where each partition begins, and whom a member's stream speaks for."""

    positions: Sequence[Position]
    heartbeat_interval_s: float
    joined: Joined | None = None


class AssignedPartition(NamedTuple):
    """A partition that its group has given to a member.

    Attributes:
        topic: the topic's name.
        id: the partition.
        assignment_epoch: the member's epoch in which it was given; no older one may commit.
        position: where it begins; None where nobody can say, as its PartitionFailed explains.
    """

    topic: str
    id: PartitionId
    assignment_epoch: int
    position: Position | None


class MemberPartition(NamedTuple):
    """A partition that a member has, or had."""

    topic: str
    id: PartitionId


@dataclass(frozen=True, slots=True)
class Assigned:
    """A group has given partitions to its member, whose epoch is at least this.

    Attributes:
        epoch: the member's.
        partitions: are read from now on.
        coming: are the member's, and will be read once their places are found.
    """

    epoch: int
    partitions: Sequence[AssignedPartition]
    coming: Sequence[MemberPartition] = ()


@dataclass(frozen=True, slots=True)
class Revoking:
    """A group wants partitions back: the member finishes with them, commits, and acknowledges."""

    epoch: int
    partitions: Sequence[MemberPartition]


@dataclass(frozen=True, slots=True)
class Lost:
    """A member has lost partitions without being asked: others may have them already."""

    epoch: int
    partitions: Sequence[MemberPartition]


@dataclass(frozen=True, slots=True)
class SeekDone:
    """A seek has taken effect."""

    seek_id: int
    position: Position


@dataclass(frozen=True, slots=True)
class PositionReset:
    """A position was out of range and has been set anew."""

    position: Position
    old_offset: int
    cause: Refusal


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything committed has been delivered."""

    position: Position


@dataclass(frozen=True, slots=True)
class PartitionFailed:
    """A partition cannot be read; the others go on. `seek_id` is that of a seek that failed."""

    topic: str
    topic_id: bytes
    partition: int
    refusal: Refusal
    seek_id: int = 0


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    """What became of one offset of a commit; `refusal` is None where it is stored."""

    topic: str
    topic_id: bytes
    partition: int
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class CommitDone:
    """What became of a commit, offset by offset."""

    commit_id: int
    outcomes: Sequence[CommitOutcome]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life: where each partition stands and what is left of the credit.

    Attributes:
        heartbeat_id: the member's last one of which its group's coordinator knows; 0 is none.
    """

    positions: Sequence[Position]
    credit_records: int | None
    credit_bytes: int | None
    heartbeat_id: int = 0


@dataclass(frozen=True, slots=True)
class GoingAway:
    """The broker will end the stream."""

    reconnect_after_s: float
    reason: str


Event = (
    Started
    | Assigned
    | Revoking
    | Lost
    | SeekDone
    | PositionReset
    | CaughtUp
    | PartitionFailed
    | CommitDone
    | Heartbeat
    | GoingAway
)
