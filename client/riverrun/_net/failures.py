"""Turn what gRPC and brokers say into the exceptions of this library."""

from __future__ import annotations

from riverrun.errors import (
    CorruptDataError,
    FatalError,
    OffsetOutOfRangeError,
    OffsetRange,
    ProducerFencedError,
    Reason,
    RetriableError,
    RiverrunError,
    TimedOutError,
    TopicExistsError,
    TopicNotFoundError,
    UsageError,
)
from riverrun.v1 import errors_pb2 as pb

_CLASSES: dict[Reason, type[RiverrunError]] = {
    Reason.TOPIC_NOT_FOUND: TopicNotFoundError,
    Reason.PARTITION_NOT_FOUND: TopicNotFoundError,
    Reason.TOPIC_ID_MISMATCH: TopicNotFoundError,
    Reason.TOPIC_EXISTS: TopicExistsError,
    Reason.OFFSET_OUT_OF_RANGE: OffsetOutOfRangeError,
    Reason.LOG_TRUNCATED: OffsetOutOfRangeError,
    Reason.CORRUPT_DATA: CorruptDataError,
    Reason.PRODUCER_FENCED: ProducerFencedError,
    Reason.UNKNOWN_PRODUCER: FatalError,
    Reason.OUT_OF_ORDER_SEQUENCE: FatalError,
    Reason.INTERNAL: FatalError,
    Reason.REQUEST_TIMED_OUT: TimedOutError,
    Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND: TimedOutError,
    Reason.STORAGE_FAILED: RetriableError,
}
_PREFIX = "ERROR_REASON_"


def reason_of(number: int) -> Reason:
    """Name a reason from its number on the wire; `UNKNOWN` for one of a newer broker."""
    try:
        return Reason(pb.ErrorReason.Name(number).removeprefix(_PREFIX))  # type: ignore[arg-type]
    except ValueError:
        return Reason.UNKNOWN


def from_proto(error: pb.Error, *, context: str = "") -> RiverrunError:
    """Build the exception for an error from the wire, from a status or from inside a reply.

    Args:
        error: what the broker said.
        context: what was being done, put before the broker's text, such as "topic orders".
    """
    reason = reason_of(error.reason)
    retry_after_s: float | None = None
    if error.HasField("retry_after"):
        retry_after_s = error.retry_after.seconds + error.retry_after.nanos / 1e9
    known = error.outcome == pb.OUTCOME_NOTHING_HAPPENED
    kind = _CLASSES.get(reason)
    if kind is None:
        kind = RetriableError if error.retry_safe or retry_after_s is not None else UsageError
        if reason is Reason.UNKNOWN and kind is UsageError:
            kind = FatalError
    text = error.message or f"the broker gave no text for reason {error.reason}"
    return kind(
        f"{context}: {text}" if context else text,
        reason=reason,
        outcome_known=known,
        retry_after_s=retry_after_s,
        available=OffsetRange(error.available.earliest, error.available.latest)
        if error.HasField("available")
        else None,
        expected_sequence=error.expected_sequence if error.HasField("expected_sequence") else None,
        diverging_offset=error.diverging_offset if error.HasField("diverging_offset") else None,
    )
