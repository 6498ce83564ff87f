"""The time that a broker goes by: the guarded clock on the machine's two, and its leaps in the log."""

from __future__ import annotations

import structlog

from riverrun_server.core.guarded_clock import GuardedClock
from riverrun_server.ports.clock import Clock

_log = structlog.stdlib.get_logger(__name__)


class BrokerClock:
    """Calls return ms since 1970; they never go back and never leap.

    Each small append asks more than once; within a fraction of a millisecond it gets the same answer.
    """

    FRESH_S = 0.0002

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._monotonic = clock.monotonic
        self._read_at = clock.monotonic()
        self._guarded = GuardedClock(clock.wall_ms(), self._read_at)
        self._now_ms = self._guarded.now_ms(clock.wall_ms(), self._read_at)

    def __call__(self) -> int:
        """Return the time in ms since 1970."""
        monotonic = self._monotonic()
        if monotonic - self._read_at > self.FRESH_S:
            self._read_at = monotonic
            self._now_ms = self._guarded.now_ms(self._clock.wall_ms(), monotonic)
        return self._now_ms

    @property
    def behind_wall_ms(self) -> int:
        """How far it is behind the wall clock because that was set; negative is ahead."""
        return self._guarded.not_followed_ms

    def report(self) -> None:
        """Log a leap of the wall clock since the last call."""
        self()
        leap = self._guarded.take_leap()
        if leap is not None:
            _log.warning(
                "the wall clock was set and is not followed until a restart",
                leap_ms=leap.leap_ms,
                behind_wall_ms=leap.behind_wall_ms,
            )
