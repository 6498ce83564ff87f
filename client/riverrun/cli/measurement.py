"""What every measurement tells: records, seconds, rates and latencies, as one JSON object."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from riverrun._core.histogram import Histogram

if TYPE_CHECKING:
    import asyncio


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured.

    Attributes:
        test: which measurement.
        topic: of which topic.
        records: how many.
        bytes: of keys and values.
        seconds: from the first to the last.
        latency: see the help of each command for what it means there.
        more: what only this measurement tells.
        stopped_by: the signal that cut it short; None where nothing did.
    """

    test: str
    topic: str
    records: int
    bytes: int
    seconds: float
    latency: Histogram
    more: dict[str, object] = field(default_factory=dict)
    stopped_by: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """What shells say of a process that a signal ended; 0 where none came."""
        return 128 + self.stopped_by if self.stopped_by else 0

    def fields(self) -> dict[str, object]:
        """Tell it for programs."""
        seconds = max(self.seconds, 1e-9)
        partial: dict[str, object] = {}
        if self.stopped_by is not None:
            partial = {"partial": True, "stopped_by": self.stopped_by.name}
        return {
            "test": self.test,
            **partial,
            "topic": self.topic,
            "records": self.records,
            "seconds": round(self.seconds, 6),
            "records_per_s": round(self.records / seconds, 1),
            "bytes_per_s": round(self.bytes / seconds, 1),
            "latency_ms": self.latency.summary_ms(),
            **self.more,
        }


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes uvloop's event loop, or None where it is not installed."""
    try:
        import uvloop  # noqa: PLC0415 - of the server extra, not the client's
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
