"""Every reason for which the broker refuses, with its gRPC code and whether its outcome is definite.

The numbers are those of riverrun.v1.ErrorReason, where each reason is explained; a test keeps the
two and the words about code and outcome there equal to this table.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Reason(enum.IntEnum):
    """Why a request was refused, numbered as on the wire."""

    INVALID_REQUEST = 1
    INVALID_RECORD = 2
    INVALID_TIMESTAMP = 3
    BATCH_TOO_LARGE = 4
    UNSUPPORTED_CODEC = 5
    INVALID_NAME = 6
    INVALID_CONFIG = 7
    TOPIC_NOT_FOUND = 10
    PARTITION_NOT_FOUND = 11
    TOPIC_EXISTS = 12
    TOPIC_ID_MISMATCH = 13
    TOPIC_RESERVED = 14
    NOT_ENOUGH_BROKERS = 15
    CONFLICT = 16
    BROKER_NOT_FOUND = 17
    BROKER_FENCED = 18
    BROKER_NEEDED = 19
    OFFSET_OUT_OF_RANGE = 20
    LOG_TRUNCATED = 21
    OFFSET_NOT_AVAILABLE = 22
    CORRUPT_DATA = 23
    UNKNOWN_PRODUCER = 30
    OUT_OF_ORDER_SEQUENCE = 31
    PRODUCER_FENCED = 32
    PRECEDING_FAILED = 33
    EXPECTED_OFFSET_MISMATCH = 34
    NOT_LEADER = 40
    FENCED_LEADER_EPOCH = 41
    UNKNOWN_LEADER_EPOCH = 42
    NOT_ENOUGH_REPLICAS = 43
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 44
    PARTITION_OFFLINE = 45
    LEADER_NOT_AVAILABLE = 46
    PREFERRED_LEADER_NOT_AVAILABLE = 47
    STORAGE_FULL = 50
    STORAGE_STALLED = 51
    STORAGE_FAILED = 52
    OVERLOADED = 60
    LIMIT_EXCEEDED = 61
    SHUTTING_DOWN = 62
    NOT_READY = 63
    REQUEST_TIMED_OUT = 64
    COORDINATOR_LOADING = 70
    GROUP_NOT_FOUND = 71
    GROUP_HAS_MEMBERS = 72
    UNKNOWN_MEMBER = 73
    MEMBER_TAKEN_OVER = 74
    INSTANCE_IN_USE = 75
    FENCED_MEMBER_EPOCH = 76
    PARTITION_NOT_ASSIGNED = 77
    INTERNAL = 90


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reason means to a client.

    Attributes:
        code: the name of the gRPC code that carries it when it fails a whole call.
        definite: nothing happened and nothing will; else nobody knows.
        retry_safe: the same request may be sent again without doing it twice.
        retry_after_s: how long to wait before that; None where waiting does not help.
    """

    code: str
    definite: bool = True
    retry_safe: bool = False
    retry_after_s: float | None = None


def _later(code: str, seconds: float) -> Meaning:
    return Meaning(code, retry_safe=True, retry_after_s=seconds)


_INVALID = Meaning("INVALID_ARGUMENT")
_PRECONDITION = Meaning("FAILED_PRECONDITION")

MEANINGS: dict[Reason, Meaning] = {
    Reason.INVALID_REQUEST: _INVALID,
    Reason.INVALID_RECORD: _INVALID,
    Reason.INVALID_TIMESTAMP: _INVALID,
    Reason.BATCH_TOO_LARGE: _INVALID,
    Reason.UNSUPPORTED_CODEC: _INVALID,
    Reason.INVALID_NAME: _INVALID,
    Reason.INVALID_CONFIG: _INVALID,
    Reason.TOPIC_NOT_FOUND: Meaning("NOT_FOUND"),
    Reason.PARTITION_NOT_FOUND: Meaning("NOT_FOUND"),
    Reason.TOPIC_EXISTS: Meaning("ALREADY_EXISTS"),
    Reason.TOPIC_ID_MISMATCH: _PRECONDITION,
    Reason.TOPIC_RESERVED: Meaning("PERMISSION_DENIED"),
    Reason.NOT_ENOUGH_BROKERS: _PRECONDITION,
    Reason.CONFLICT: Meaning("ABORTED"),
    Reason.BROKER_NOT_FOUND: Meaning("NOT_FOUND"),
    Reason.BROKER_FENCED: _PRECONDITION,
    Reason.BROKER_NEEDED: _PRECONDITION,
    Reason.OFFSET_OUT_OF_RANGE: Meaning("OUT_OF_RANGE"),
    Reason.LOG_TRUNCATED: Meaning("OUT_OF_RANGE"),
    Reason.OFFSET_NOT_AVAILABLE: _later("UNAVAILABLE", 0.1),
    Reason.CORRUPT_DATA: Meaning("DATA_LOSS"),
    Reason.UNKNOWN_PRODUCER: _PRECONDITION,
    Reason.OUT_OF_ORDER_SEQUENCE: _PRECONDITION,
    Reason.PRODUCER_FENCED: _PRECONDITION,
    Reason.PRECEDING_FAILED: Meaning("ABORTED", retry_safe=True),
    Reason.EXPECTED_OFFSET_MISMATCH: _PRECONDITION,
    Reason.NOT_LEADER: Meaning("FAILED_PRECONDITION", retry_safe=True),
    Reason.FENCED_LEADER_EPOCH: Meaning("FAILED_PRECONDITION", retry_safe=True),
    Reason.UNKNOWN_LEADER_EPOCH: _later("UNAVAILABLE", 0.1),
    Reason.NOT_ENOUGH_REPLICAS: _later("UNAVAILABLE", 0.5),
    Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND: Meaning("DEADLINE_EXCEEDED", definite=False),
    Reason.PARTITION_OFFLINE: _later("UNAVAILABLE", 1.0),
    Reason.LEADER_NOT_AVAILABLE: _later("UNAVAILABLE", 0.2),
    Reason.PREFERRED_LEADER_NOT_AVAILABLE: _PRECONDITION,
    Reason.STORAGE_FULL: _later("RESOURCE_EXHAUSTED", 5.0),
    Reason.STORAGE_STALLED: _later("UNAVAILABLE", 0.1),
    Reason.STORAGE_FAILED: Meaning("UNAVAILABLE", definite=False),
    Reason.OVERLOADED: _later("RESOURCE_EXHAUSTED", 0.1),
    Reason.LIMIT_EXCEEDED: Meaning("RESOURCE_EXHAUSTED"),
    Reason.SHUTTING_DOWN: _later("UNAVAILABLE", 1.0),
    Reason.NOT_READY: _later("UNAVAILABLE", 0.2),
    Reason.REQUEST_TIMED_OUT: Meaning("DEADLINE_EXCEEDED", definite=False),
    Reason.COORDINATOR_LOADING: _later("UNAVAILABLE", 0.1),
    Reason.GROUP_NOT_FOUND: Meaning("NOT_FOUND"),
    Reason.GROUP_HAS_MEMBERS: _PRECONDITION,
    Reason.UNKNOWN_MEMBER: _PRECONDITION,
    Reason.MEMBER_TAKEN_OVER: Meaning("ABORTED"),
    Reason.INSTANCE_IN_USE: Meaning("ALREADY_EXISTS"),
    Reason.FENCED_MEMBER_EPOCH: _PRECONDITION,
    Reason.PARTITION_NOT_ASSIGNED: _PRECONDITION,
    Reason.INTERNAL: Meaning("INTERNAL", definite=False),
}


@dataclass(frozen=True, slots=True)
class LeaderHint:
    """Who leads a partition, for a client that asks the wrong broker.

    Attributes:
        broker_id: the leader.
        leader_epoch: of its leadership; a lower one than one known already is old news.
        endpoints: where clients reach it, as host:port, by listener; empty where that is not known.
    """

    broker_id: int
    leader_epoch: int
    endpoints: Mapping[str, str] = field(default_factory=dict, hash=False)


class Refusal(Exception):
    """A request that was not carried out, or of which nobody knows, as a client will be told.

    Args:
        reason: what to program against.
        message: what was wrong, the actual and the expected value, and what to do.
        available: (earliest, latest) offsets, where the request named one that cannot be read.
        expected_sequence: what the partition expects next from the producer.
        diverging_offset: where the log departs from what the reader saw.
        leader: who leads the partition, where that is known and it is another broker.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        available: tuple[int, int] | None = None,
        expected_sequence: int | None = None,
        diverging_offset: int | None = None,
        leader: LeaderHint | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.available = available
        self.expected_sequence = expected_sequence
        self.diverging_offset = diverging_offset
        self.leader = leader

    @property
    def meaning(self) -> Meaning:
        """What the reason means to a client."""
        return MEANINGS[self.reason]

    def __repr__(self) -> str:
        """Name the reason and the text."""
        return f"Refusal({self.reason.name}, {self.message!r})"
