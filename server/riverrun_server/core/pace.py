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

_WEIGHT = 0.25  # of the newest group in the running rate
_FORGET_S = 0.1  # a pause that long says that the rate of before is over


class Pace:
    """Watches how fast calls come.

    Transitions: each `closed` takes a group of calls into the rate; `wait_s` says how long the next
    one stays open.
    """

    __slots__ = ("_calls_per_s", "_closed_at_s")

    def __init__(self) -> None:
        self._calls_per_s = 0.0
        self._closed_at_s = 0.0

    def closed(self, calls: int, now_s: float) -> None:
        """Take in that a group of so many calls was closed."""
        passed_s = now_s - self._closed_at_s
        self._closed_at_s = now_s
        if passed_s >= _FORGET_S:
            self._calls_per_s = 0.0
        elif passed_s > 0:
            self._calls_per_s += _WEIGHT * (calls / passed_s - self._calls_per_s)

    @property
    def wait_s(self) -> float:
        """How long a group that opens now stays open, in seconds; 0 is until the end of the turn."""
        if self._calls_per_s * WAIT_S_MAX < WORTH_CALLS:
            return 0.0
        return min(WAIT_S_MAX, AIM_CALLS / self._calls_per_s)
