"""Turn what gRPC and brokers say into the exceptions of this library."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from riverrun.errors import (
    CorruptDataError,
    FatalError,
    LeaderHint,
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
    Reason.NOT_LEADER: RetriableError,
    Reason.FENCED_LEADER_EPOCH: RetriableError,
    Reason.UNKNOWN: FatalError,
}
_PREFIX = "ERROR_REASON_"

NO_ANSWER = "no answer in time"
"""What is said of a call, or an address, that nothing has come back from."""

# google.rpc.Status has its details, messages of type google.protobuf.Any, in field 3.
_STATUS_KEY, _STATUS_DETAILS = "grpc-status-details-bin", 3

_LOST = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
_REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
# gRPC says RESOURCE_EXHAUSTED of a message that is too large for it, in the same words whether that
# is the request, which nobody has seen then, or the answer to one that has been carried out.
_WRONG_CALL = _REFUSED | {grpc.StatusCode.RESOURCE_EXHAUSTED}
# What no other stream would change, whoever says so.
_FINAL = frozenset(
    {
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


def reason_of(number: int) -> Reason:
    """Name a reason from its number on the wire; `UNKNOWN` for one of a newer broker."""
    try:
        name = pb.ErrorReason.Name(pb.ErrorReason.ValueType(number))
        return Reason(name.removeprefix(_PREFIX))
    except ValueError:
        return Reason.UNKNOWN


def from_proto(error: pb.Error, context: str = "") -> RiverrunError:
    """Build the exception for an error from the wire, from a status or from inside a reply.

    Args:
        error: what the broker said.
        context: what it is about, put before the broker's text, such as "orders[3]".
    """
    reason = reason_of(error.reason)
    retry_after_s: float | None = None
    if error.HasField("retry_after"):
        retry_after_s = error.retry_after.seconds + error.retry_after.nanos / 1e9
    kind = RetriableError if error.retry_safe else _CLASSES.get(reason, UsageError)
    text = error.message or f"the broker gave no text for reason {error.reason}"
    available: OffsetRange | None = None
    if error.HasField("available"):
        available = OffsetRange(error.available.earliest, error.available.latest)
    return kind(
        f"{context}: {text}" if context else text,
        reason=reason,
        outcome_known=error.outcome == pb.OUTCOME_NOTHING_HAPPENED,
        retry_after_s=retry_after_s,
        available=available,
        expected_sequence=error.expected_sequence if error.HasField("expected_sequence") else None,
        diverging_offset=error.diverging_offset if error.HasField("diverging_offset") else None,
        leader=leader_hint(error.leader) if error.HasField("leader") else None,
    )


def leader_hint(hint: pb.LeaderHint) -> LeaderHint:
    """Take a hint from the wire."""
    return LeaderHint(hint.broker_id, hint.endpoint, hint.leader_epoch)


def from_rpc(error: grpc.aio.AioRpcError, what: str, endpoint: str) -> RiverrunError:
    """Build the exception for a failed call.

    Args:
        error: what gRPC raised.
        what: the call in words, such as "create topic orders".
        endpoint: whom it was sent to, as host:port.
    """
    detail = error_detail(error)
    if detail is not None:
        return from_proto(detail, what)
    code, text = error.code(), error.details() or "no details"
    where = f"{what} at {endpoint}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOutError(f"{where}: {NO_ANSWER}", reason=Reason.TIMED_OUT, outcome_known=False)
    if code in _LOST:
        return RetriableError(
            f"{where}: the connection failed: {text}",
            reason=Reason.CONNECTION_LOST,
            outcome_known="failed to connect" in text.lower(),
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return FatalError(
            f"{where}: the broker does not know this call ({text}); upgrade it, or look whether the "
            "address is that of a broker's client port",
            reason=Reason.UNKNOWN,
        )
    kind = UsageError if code in _WRONG_CALL else FatalError
    return kind(
        f"{where}: {code.name}: {text}", reason=Reason.UNKNOWN, outcome_known=code in _REFUSED
    )


def from_stream(error: grpc.aio.AioRpcError, what: str, endpoint: str) -> RiverrunError:
    """Build the exception for a broken stream; what opening another one may mend is retriable."""
    built = from_rpc(error, what, endpoint)
    # Where there is no Error of ours, gRPC or a proxy has spoken, perhaps of one message: that must
    # not end what else the stream was for.
    ours = error_detail(error) is not None
    mendable = isinstance(built, FatalError) or not ours
    if mendable and error.code() not in _FINAL and not isinstance(built, RetriableError):
        reason = built.reason if ours else Reason.CONNECTION_LOST
        return RetriableError(built.message, reason=reason, outcome_known=built.outcome_known)
    return built


def as_error(error: BaseException | None) -> RiverrunError | None:
    """Return what a task of ours ended of; what is none of our errors is a bug of ours."""
    if error is None or isinstance(error, RiverrunError):
        return error
    text = f"a bug in the client: {type(error).__name__}: {error}"
    return FatalError(text, reason=Reason.INTERNAL, outcome_known=False)


def being_cancelled() -> bool:
    """Whether somebody cancels the current task; gRPC raises CancelledError for calls too."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def is_connection_trouble(error: RiverrunError) -> bool:
    """Whether another connection, perhaps to another broker, is the thing to try."""
    return error.reason in {
        Reason.CONNECTION_LOST,
        Reason.TIMED_OUT,
        Reason.SHUTTING_DOWN,
        Reason.NOT_READY,
    }


def error_detail(error: grpc.aio.AioRpcError) -> pb.Error | None:
    """Return our Error from among a status's details, if the broker sent one."""
    for key, value in error.trailing_metadata() or ():
        if key != _STATUS_KEY or not isinstance(value, bytes):
            continue
        try:
            fields = UnknownFieldSet(Empty.FromString(value))
            for field in map(fields.__getitem__, range(len(fields))):
                if field.field_number == _STATUS_DETAILS:
                    packed = Any.FromString(field.data)
                    if packed.Is(pb.Error.DESCRIPTOR):
                        return pb.Error.FromString(packed.value)
        except DecodeError:
            return None
    return None


async def failure_of(call: grpc.aio.Call) -> grpc.aio.AioRpcError | None:
    """Return how a call failed that has ended; None where it ended well."""
    code = await call.code()
    if code is grpc.StatusCode.OK:
        return None
    return grpc.aio.AioRpcError(
        code,
        await call.initial_metadata(),
        await call.trailing_metadata(),
        await call.details(),
    )
