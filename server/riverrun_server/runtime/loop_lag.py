"""Measures how late the event loop is, which is how long something blocked it.

A timer that is due every tenth of a second costs an idle broker nothing to speak of, and whatever
keeps the loop busy longer than that is seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from riverrun_server.ports.clock import Clock

TICK_S: Final = 0.1
LATE_S: Final = 0.1
# The gauge shows the worst of this window and of the one before it, so no scrape misses a peak.
WINDOW_S: Final = 10.0
# Under lasting overload a line each tick would make it worse.
LOG_EVERY_S: Final = 5.0

_log = structlog.stdlib.get_logger(__name__)


class LoopLag:
    """Watches the running loop from `start` to `stop`."""

    def __init__(
        self,
        clock: Clock,
        *,
        observe: Callable[[float], None] = lambda _seconds: None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """`observe` gets the worst lag in seconds, `beat` is called at each tick."""
        self._clock = clock
        self._observe = observe
        self._beat = beat
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._worst_before = 0.0
        self._worst = 0.0
        self._window_ends = clock.monotonic() + WINDOW_S
        self._unlogged = 0
        self._unlogged_worst = 0.0
        self._log_from = 0.0

    def start(self) -> None:
        """Begin to watch."""
        self._beat()
        self._schedule()

    def stop(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._due = self._clock.monotonic() + TICK_S
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        now = self._clock.monotonic()
        self._beat()
        self.measured(max(0.0, now - self._due), now)
        self._schedule()

    def measured(self, lag_s: float, now: float) -> None:
        """Take in one measurement."""
        if now >= self._window_ends:
            self._window_ends = now + WINDOW_S
            self._worst_before, self._worst = self._worst, 0.0
        self._worst = max(self._worst, lag_s)
        self._observe(max(self._worst, self._worst_before))
        if lag_s >= LATE_S:
            self._unlogged += 1
            self._unlogged_worst = max(self._unlogged_worst, lag_s)
        if self._unlogged and now >= self._log_from:
            _log.warning(
                "event loop was late",
                lag_ms=round(self._unlogged_worst * 1000),
                times=self._unlogged,
            )
            self._unlogged, self._unlogged_worst = 0, 0.0
            self._log_from = now + LOG_EVERY_S
