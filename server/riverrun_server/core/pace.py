"""How long records of small calls wait for company: not at all, unless the broker is the bottleneck.

Intuition: while the loop has time to spare each call is written at once, for waiting would only make
it slower. Where the loop is busy, calls queue up before they are even read, and a wait of a few
milliseconds in which most of them gather makes all of them faster. How many there are to gather is
seen from how many are here at a time, until their answers have been sent: whoever is alone would wait
for nobody.
"""

from __future__ import annotations

AIM_SHARE = 0.9
"""A group is complete with this part of the calls that were here at a time (measured: less makes groups
small, and with all of them everybody waits for the slowest client)."""

AIM_CALLS_MAX = 64
"""More calls for each write save nothing more, and hold up the loop while they are answered."""

WAIT_S_MAX = 0.006
"""The longest wait; a queue of calls that pays for it takes several times as long."""

BUSY = 0.5
"""From this share of the loop's time on calls wait for company: a loop with neighbours on its core never
gets all of it."""

IDLE = 0.3
"""Below this share they do so no longer; joined calls take less of it, which must not end the joining."""

WINDOW_S = 0.05
"""Calls are counted for so long to know how fast they come; a mean of their gaps would be ruled by the
shortest ones."""


class Pace:
    """How many calls for one partition, under one ack condition, are here at a time; how busy the loop is.

    Transitions: `came` and `left` count who is here; once a window has passed, what it showed holds
    for the next one, and no longer. alone -> together when a window was busy; together -> alone when
    one was idle, or nothing came for two windows.

    Attributes:
        aim: with so many calls a group is complete; 1 is alone.
    """

    __slots__ = (
        "_began_s", "_calls", "_calls_per_s", "_here", "_most_here", "_together", "_worked_s", "aim",
    )  # fmt: skip

    def __init__(self, now_s: float, worked_s: float) -> None:
        self._began_s = now_s
        self._worked_s = worked_s
        self._calls = 0
        self._calls_per_s = 0.0
        self._here = 0
        self._most_here = 0
        self._together = False
        self.aim = 1

    def came(self) -> None:
        """Take in that a call is here."""
        self._calls += 1
        self._here += 1
        self._most_here = max(self._most_here, self._here)

    def left(self) -> None:
        """Take in that a call has ended: its answer has been sent, and its caller may make the next."""
        self._here -= 1
        assert self._here >= 0, self._here

    def closed(self, now_s: float, worked_s: float) -> None:
        """Take in that a group was closed; its calls are still here.

        Args:
            now_s: the monotonic clock.
            worked_s: how much processor time the loop has taken so far.
        """
        passed_s = now_s - self._began_s
        if passed_s < WINDOW_S:
            return
        busy = (worked_s - self._worked_s) / passed_s
        self._together = busy >= (IDLE if self._together else BUSY)
        self._calls_per_s = self._calls / passed_s
        self.aim = 1
        if self._together:
            self.aim = max(1, min(AIM_CALLS_MAX, int(self._most_here * AIM_SHARE)))
        self._began_s, self._worked_s = now_s, worked_s
        self._calls, self._most_here = 0, self._here

    def wait_s(self, now_s: float) -> float:
        """How long a group that opens now stays open, in seconds; 0 is until the end of the turn."""
        if self.aim == 1 or now_s - self._began_s > 2 * WINDOW_S:
            return 0.0
        return min(WAIT_S_MAX, self.aim / self._calls_per_s)
