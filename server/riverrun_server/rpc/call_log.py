"""One line in the log for each call when it ends: who called what, how it went, how long it took.

Calls of the hot path that went well are sampled, and a line says how many were left out before it.
What failed, was slow, administers something or was a stream has its line up to a bound for each
method, so that an overloaded broker is not finished off by its log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
import structlog

from riverrun_server.core.errors import Reason
from riverrun_server.core.line_budget import LineBudget
from riverrun_server.observe.cutting import cut, cut_list
from riverrun_server.observe.metrics import Metrics
from riverrun_server.rpc.call_notes import CallNotes, begin
from riverrun_server.rpc.call_summary import allowed_wait_s, named_in, records_in, size_of

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handle: TypeAlias = Callable[[Any, Context], Awaitable[Any]]

LINES_PER_S: Final = 100
# What clients chose takes at most this of a line, which has to stay under 4 KiB altogether: longer
# ones can block the event loop where the log's reader is stuck (see observe.patient_stream).
_NAME_BYTES: Final = 256
_WHY_BYTES: Final = 512
_TOPICS_BYTES: Final = 1024
_REASONS_NAMED: Final = 6
# What clients call all the time; everything else is rare enough for a line each.
_HOT: Final = (
    "riverrun.v1.ProducerService/Produce",
    "riverrun.v1.TextService/Produce",
    "riverrun.v1.ConsumerService/Fetch",
    "riverrun.v1.ConsumerService/CommitOffset",
    "riverrun.v1.ConsumerService/FetchOffsets",
    "riverrun.v1.ConsumerService/ListOffsets",
    "riverrun.v1.MetadataService/GetMetadata",
    "grpc.health.v1.Health/Check",
)

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CallLogRules:
    """Which calls get a line.

    Attributes:
        enabled: any at all.
        hot_per_s: of each method of the hot path, lines a second for calls that went well.
        slow_s: from this duration on a call has its line, hot path or not; None for never.
    """

    enabled: bool = True
    hot_per_s: int = 1
    slow_s: float | None = 1.0


class CallLog:
    """Stands around handlers and tells of each call when it has ended.

    Args:
        rules: which calls get a line.
        metrics: where errors are counted by reason.
        now: seconds since some beginning.
    """

    def __init__(self, rules: CallLogRules, metrics: Metrics, now: Callable[[], float]) -> None:
        self._rules = rules
        self._metrics = metrics
        self._now = now

    def around(self, listener: str, method: str, handle: Handle, *, streams: bool) -> Handle:
        """Return a handler that does the same and leaves a line."""
        now, slow_s = self._now, self._rules.slow_s
        slow_from_s = float("inf") if slow_s is None or streams else slow_s
        hot = method in _HOT and not streams
        line = _Line(listener, method, streams, self._rules)

        @cache  # as many as there are reasons
        def counter(reason: Reason) -> Any:
            return self._metrics.refusals.labels(method, reason.name)

        def count(reason: Reason) -> None:
            counter(reason).inc()

        async def logged(messages: Any, context: Context) -> Any:
            notes = CallNotes(count)
            begin(notes)
            began_s = now()
            reply = None
            cancelled = False
            try:
                reply = await handle(messages, context)
            except asyncio.CancelledError:
                cancelled = True
                raise
            finally:
                ended_s = now()
                took_s = ended_s - began_s
                request = notes.request
                code = "CANCELLED" if cancelled else code_of(context)
                slow = took_s >= slow_from_s and took_s - allowed_wait_s(request) >= slow_from_s
                plain = hot and code == "OK" and not notes.errors and not slow
                left_out = line.admit(ended_s, plain=plain)
                if left_out is not None:
                    line.write(request, context, notes, reply, code, took_s, left_out, slow=slow)
                # This frame may outlive the call, as one of an abort's: it is not to keep megabytes.
                request = notes.request = None
            return reply

        return logged


class _Line:
    """Writes the lines of one method on one listener."""

    __slots__ = ("_enabled", "_listener", "_method", "_others", "_plain", "_streams")

    def __init__(self, listener: str, method: str, streams: bool, rules: CallLogRules) -> None:
        self._method = method
        self._listener = listener
        self._streams = streams
        self._enabled = rules.enabled
        self._plain = LineBudget(rules.hot_per_s)
        self._others = LineBudget(LINES_PER_S)

    def admit(self, now_s: float, *, plain: bool) -> int | None:
        """Return how many lines were left out, or None where there is to be none."""
        if not self._enabled:
            return None
        return (self._plain if plain else self._others).admit(now_s)

    def write(
        self,
        request: Any,
        context: Context,
        notes: CallNotes,
        reply: Any,
        code: str,
        took_s: float,
        left_out: int,
        *,
        slow: bool,
    ) -> None:
        """Write a line; what is not there has no key."""
        named = named_in(request)
        # A stream that ends well, and a reply in parts, may have told of errors all the same.
        failure = notes.failure or notes.first_error
        optional: dict[str, object] = {
            "topics": cut_list([*notes.topics] or named.topics, _NAME_BYTES, _TOPICS_BYTES),
            "group": cut(notes.group_id or named.group_id, _NAME_BYTES),
            "reason": failure.reason.name if failure else "",
            "why": cut(failure.message, _WHY_BYTES) if failure else "",
            "errors": notes.errors,
            "errors_by_reason": _by_reason(notes),
            "records": notes.records or records_in(request),
            "request_bytes": notes.received_bytes or size_of(request),
            "reply_bytes": notes.sent_bytes or size_of(reply),
            "slow": slow,
            "sampled_out": left_out,
            "client": cut(_user_agent(context), _NAME_BYTES),
        }
        _log.info(
            "stream ended" if self._streams else "call ended",
            method=self._method,
            code=code,
            duration_ms=round(took_s * 1000, 1),
            **{key: value for key, value in optional.items() if value},
            peer=cut(context.peer(), _NAME_BYTES),
            listener=self._listener,
        )


def code_of(context: Context) -> str:
    """Return the name of the code that a call has ended with."""
    return name_of(context.code())


def name_of(code: object) -> str:
    """Return the name of what a context says of its code; it says nothing of a call that went well."""
    return code.name if isinstance(code, grpc.StatusCode) else "OK"


def _by_reason(notes: CallNotes) -> dict[str, int]:
    """Return how many errors there were of each reason, the most frequent; nothing for one reason."""
    if len(notes.reasons) == 1:
        return {}  # `reason` and `errors` say it
    most = sorted(notes.reasons.items(), key=lambda each: -each[1])
    return {reason.name: count for reason, count in most[:_REASONS_NAMED]}


def _user_agent(context: Context) -> str:
    """Return what a client calls itself, without what grpc adds about its own parts."""
    for key, value in context.invocation_metadata() or ():
        if key == "user-agent":
            text = value if isinstance(value, str) else value.decode(errors="replace")
            return text.partition(" grpc-")[0]
    return ""
