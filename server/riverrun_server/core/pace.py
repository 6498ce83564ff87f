"""How long records of small calls wait for company: not at all, unless the broker is the bottleneck.

Intuition: while the loop has time to spare each call is written at once, for waiting would only make
it slower. Where the loop is busy, calls queue up before they are even read, and a wait of a few
milliseconds in which a dozen gather makes all of them faster.
"""

from __future__ import annotations

AIM_CALLS = 12
"""As many calls for each write save most of what there is to save (measured)."""

WAIT_S_MAX = 0.004
"""The longest wait; a queue of calls that pays for it takes several times as long."""

WORTH_CALLS = 2
"""Nobody waits unless at least so many are expected to gather in the longest wait."""

BUSY = 0.5
"""From this share of the loop's time on calls wait for company: a loop with neighbours on its core never
gets all of it."""

IDLE = 0.3
"""Below this share they do so no longer; joined calls take less of it, which must not end the joining."""

WINDOW_S = 0.05
"""Calls are counted for so long to know how fast they come; a mean of their gaps would be ruled by the
shortest ones."""


class Pace:
    """How fast calls come for one partition under one ack condition, and how busy the loop is.

    Transitions: `closed` counts a group of calls; once a window has passed, what it showed holds for
    the next one, and no longer. alone -> together when a window was busy; together -> alone when one
    was idle, or nothing came for two windows.
    """

    __slots__ = ("_began_s", "_calls", "_calls_per_s", "_together", "_worked_s")

    def __init__(self, now_s: float, worked_s: float) -> None:
        self._began_s = now_s
        self._worked_s = worked_s
        self._calls = 0
        self._calls_per_s = 0.0
        self._together = False

    def closed(self, calls: int, now_s: float, worked_s: float) -> None:
        """Take in that a group of so many calls was closed.

        Args:
            calls: how many it had.
            now_s: the monotonic clock.
            worked_s: how much processor time the loop has taken so far.
        """
        self._calls += calls
        passed_s = now_s - self._began_s
        if passed_s < WINDOW_S:
            return
        busy = (worked_s - self._worked_s) / passed_s
        self._together = busy >= (IDLE if self._together else BUSY)
        self._calls_per_s = self._calls / passed_s
        self._began_s, self._worked_s, self._calls = now_s, worked_s, 0

    def wait_s(self, now_s: float) -> float:
        """How long a group that opens now stays open, in seconds; 0 is until the end of the turn."""
        if not self._together or now_s - self._began_s > 2 * WINDOW_S:
            return 0.0
        if self._calls_per_s * WAIT_S_MAX < WORTH_CALLS:
            return 0.0
        return min(WAIT_S_MAX, AIM_CALLS / self._calls_per_s)
