"""What is let in: how many calls and streams there may be at once, and none while the broker drains."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from riverrun_server.core.delivery_budget import DeliveryBudget
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.observe.metrics import Metrics
from riverrun_server.rpc.call_log import CallLog
from riverrun_server.rpc.caller import Caller
from riverrun_server.rpc.receiving import Receiving
from riverrun_server.runtime.delivery_room import Deliveries


@dataclass(frozen=True, slots=True)
class Caps:
    """How many calls there may be at once.

    Attributes:
        streams_per_connection: open streams of one connection.
        streams_per_principal: open streams of one principal on this broker.
        calls: unary calls under way on this broker, from their first byte to the last of their
            answer.
        slow_requests: calls whose request takes its time to arrive.
        delivery_bytes: on their way to readers, of all connections together.
    """

    streams_per_connection: int
    streams_per_principal: int
    calls: int
    slow_requests: int = 64
    delivery_bytes: int = 256 << 20


class Admission:
    """What all listeners of a broker share: the counts behind the caps, and whether it drains."""

    def __init__(self, caps: Caps, metrics: Metrics, calls: CallLog | None = None) -> None:
        self.metrics = metrics
        self.calls = calls
        self.deliveries = Deliveries(
            DeliveryBudget(caps.delivery_bytes),
            metrics.limit_reached.labels("max_delivery_bytes").inc,
        )
        self._caps = caps
        self.receiving = Receiving(caps.slow_requests, self._reached)
        self._calls: dict[bool, int] = {False: 0, True: 0}
        self._by_connection: Counter[str] = Counter()
        self._by_principal: Counter[str] = Counter()
        self._draining = False

    def drain(self) -> None:
        """Refuse every new call from now on; those under way go on."""
        self._draining = True

    def check_serving(self) -> None:
        """Refuse while the broker drains.

        Raises:
            Refusal: SHUTTING_DOWN.
        """
        if self._draining:
            raise Refusal(
                Reason.SHUTTING_DOWN,
                "the broker is shutting down and took nothing; ask another one, or this one a "
                "little later",
            )

    @property
    def connections_with_streams(self) -> int:
        """How many connections hold streams open."""
        return len(self._by_connection)

    def begin_call(self, *, always: bool) -> None:
        """Take one place among the unary calls; `end_call` gives it back.

        Two functions and no context manager: that would cost a tenth of a small call.

        Probes have places of their own, as many: they must tell of a broker that is busy.

        Raises:
            Refusal: OVERLOADED; no place was taken.
        """
        calls = self._calls[always]
        if calls >= self._caps.calls:
            raise self._reached(
                "max_calls",
                Reason.OVERLOADED,
                f"{calls} calls are under way and limits.max_calls is {self._caps.calls}; "
                "send again after a moment",
            )
        self._calls[always] = calls + 1

    def end_call(self, *, always: bool) -> None:
        """Give a place among the unary calls back."""
        self._calls[always] -= 1

    @contextlib.contextmanager
    def stream(self, caller: Caller) -> Iterator[None]:
        """Hold one place among the caller's streams.

        Raises:
            Refusal: LIMIT_EXCEEDED.
        """
        self._check_streams(
            "max_streams_per_connection",
            "this connection",
            self._by_connection[caller.peer],
            self._caps.streams_per_connection,
        )
        self._check_streams(
            "max_streams_per_principal",
            f"principal {caller.principal!r}",
            self._by_principal[caller.principal],
            self._caps.streams_per_principal,
        )
        with _held(self._by_connection, caller.peer), _held(self._by_principal, caller.principal):
            yield

    def _check_streams(self, limit: str, whose: str, held: int, allowed: int) -> None:
        if held >= allowed:
            raise self._reached(
                limit,
                Reason.LIMIT_EXCEEDED,
                f"{whose} holds {held} streams open and limits.{limit} is {allowed}; close some, "
                "or share one stream among several topics",
            )

    def _reached(self, limit: str, reason: Reason, message: str) -> Refusal:
        self.metrics.limit_reached.labels(limit).inc()
        return Refusal(reason, message)


@contextlib.contextmanager
def _held(counts: Counter[str], key: str) -> Iterator[None]:
    counts[key] += 1
    try:
        yield
    finally:
        counts[key] -= 1
        if not counts[key]:
            del counts[key]  # connections come and go for ever
