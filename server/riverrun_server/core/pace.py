"""How long records of small calls wait for company: not at all, unless so many come that it pays.

Intuition: where calls are rare each is written at once, for waiting would only make it slower. Where
they come faster than they could be written and synced one by one, the broker is the bottleneck, and
a wait of a few milliseconds in which a dozen gather makes all of them faster.
"""

from __future__ import annotations

AIM_CALLS = 12
"""As many calls for each write save most of what there is to save (measured)."""

WAIT_S_MAX = 0.004
"""The longest wait; a queue of calls that pays for it takes several times as long."""

WORTH_CALLS = 6
"""Nobody waits unless at least so many are expected to gather in the longest wait."""

WINDOW_S = 0.05
"""Calls are counted for so long to know how fast they come; a mean of their gaps would be ruled by the
shortest ones."""


class Pace:
    """How fast calls come for one partition under one ack condition.

    Transitions: `closed` counts a group of calls; once a window has passed, its rate holds for the
    next one, and no longer.
    """

    __slots__ = ("_began_s", "_calls", "_calls_per_s")

    def __init__(self, now_s: float) -> None:
        self._began_s = now_s
        self._calls = 0
        self._calls_per_s = 0.0

    def closed(self, calls: int, now_s: float) -> None:
        """Take in that a group of so many calls was closed."""
        self._calls += calls
        passed_s = now_s - self._began_s
        if passed_s >= WINDOW_S:
            self._calls_per_s = self._calls / passed_s
            self._began_s, self._calls = now_s, 0

    def wait_s(self, now_s: float) -> float:
        """How long a group that opens now stays open, in seconds; 0 is until the end of the turn."""
        stale = now_s - self._began_s > 2 * WINDOW_S
        if stale or self._calls_per_s * WAIT_S_MAX < WORTH_CALLS:
            return 0.0
        return min(WAIT_S_MAX, AIM_CALLS / self._calls_per_s)
