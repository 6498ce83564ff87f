"""Turns refusals into the public Error: inside replies, and as the status of a call that fails.

A status carries our Error, for clients that know it, beside the standard ErrorInfo and RetryInfo,
which generic tools read. `Edge` stands around a handler and is the last place where an exception
can still become an answer.
"""

from __future__ import annotations

import secrets
from types import TracebackType
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
import structlog
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc_status import rpc_status  # type: ignore[import-untyped]

from riverrun.v1 import errors_pb2
from riverrun_server.core.errors import LeaderHint, Reason, Refusal
from riverrun_server.rpc import call_notes
from riverrun_server.rpc.caller import CALLER

DOMAIN: Final = "riverrun.dev"

# The text travels three times in a status: percent-encoded, in Status and in Error. 1 KiB of it
# keeps all trailing metadata under the 8 KiB that an untuned client accepts.
_TEXT_BYTES_MAX: Final = 1024

_log = structlog.stdlib.get_logger(__name__)


def to_proto(refusal: Refusal) -> errors_pb2.Error:
    """Return a refusal as the Error of a reply or a stream message; the call's notes have it then."""
    # The frames that it has passed hold the request, and what was made of it. They would be kept as long
    # as what notes it, and where that is one of them, until the collector looks.
    refusal.__traceback__ = refusal.__cause__ = refusal.__context__ = None
    call_notes.current().told(refusal)
    meaning = refusal.meaning
    error = errors_pb2.Error(
        reason=errors_pb2.ErrorReason.ValueType(refusal.reason.value),
        message=_printable(refusal.message),
        outcome=(
            errors_pb2.OUTCOME_NOTHING_HAPPENED if meaning.definite else errors_pb2.OUTCOME_UNKNOWN
        ),
        retry_safe=meaning.retry_safe,
        expected_sequence=refusal.expected_sequence,
        diverging_offset=refusal.diverging_offset,
    )
    if meaning.retry_after_s is not None:
        error.retry_after.CopyFrom(_duration(meaning.retry_after_s))
    if refusal.available is not None:
        earliest, latest = refusal.available
        error.available.earliest = earliest
        error.available.latest = latest
    if refusal.leader is not None:
        tell_leader(error.leader, refusal.leader)
    return error


def tell_leader(told: errors_pb2.LeaderHint, leader: LeaderHint) -> None:
    """Write who leads a partition into an empty hint, with its address on the caller's listener."""
    told.broker_id = leader.broker_id
    told.leader_epoch = leader.leader_epoch
    caller = CALLER.get(None)
    if caller is not None:
        told.endpoint = leader.endpoints.get(caller.listener, "")


def to_status(refusal: Refusal) -> Status:
    """Return a refusal as the google.rpc.Status of a failed call."""
    error = to_proto(refusal)
    code = grpc.StatusCode[refusal.meaning.code]
    status = Status(code=code.value[0], message=error.message)
    status.details.add().Pack(error)
    status.details.add().Pack(ErrorInfo(reason=refusal.reason.name, domain=DOMAIN))
    if error.HasField("retry_after"):
        status.details.add().Pack(RetryInfo(retry_delay=error.retry_after))
    return status


async def abort(context: grpc.aio.ServicerContext[Any, Any], refusal: Refusal) -> NoReturn:
    """Fail the whole call with a refusal.

    Raises:
        grpc.aio.AbortError: always; gRPC itself catches it behind the handler.
    """
    call_notes.current().failure = refusal
    await context.abort_with_status(rpc_status.to_status(to_status(refusal)))
    raise AssertionError("unreachable: abort returned")


class Edge:
    """Stands around the body of one call and answers for what it raises.

    A Refusal fails the call with its status. Anything unexpected is a bug: it is logged with the
    method's name and answered INTERNAL, outcome unknown, under an incident number that finds the
    log line; its own text stays in the log, for it may tell a stranger too much. Cancellation and
    aborts pass through.
    """

    __slots__ = ("_context", "_method")

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], method: str) -> None:
        self._context = context
        self._method = method

    async def __aenter__(self) -> None:
        """Enter the call's body."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Answer for `error`."""
        if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            await answer_for(self._context, self._method, error)


async def answer_for(
    context: grpc.aio.ServicerContext[Any, Any], method: str, error: Exception
) -> NoReturn:
    """Fail the call with what its body raised; what is no Refusal is a bug of ours.

    Raises:
        grpc.aio.AbortError: always.
    """
    await abort(context, error if isinstance(error, Refusal) else internal(method, error))


def internal(method: str, error: Exception) -> Refusal:
    """Log a bug of ours; return what to tell a client of it: that nobody knows, and a number."""
    incident = secrets.token_hex(4)
    _log.error("call failed unexpectedly", method=method, incident=incident, exc_info=error)
    return Refusal(
        Reason.INTERNAL,
        f"the broker failed inside {method} and cannot tell whether the request took effect; "
        f"its log has the details under incident {incident}: report them",
    )


def _printable(text: str) -> str:
    """Return text that is safe for a terminal, a log and protobuf, and not too long for a header.

    Names from requests stand in error texts: control characters and lone surrogates are escaped.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    data = text.encode()
    if len(data) <= _TEXT_BYTES_MAX:
        return text
    return data[: _TEXT_BYTES_MAX - 3].decode(errors="ignore") + "..."


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))
