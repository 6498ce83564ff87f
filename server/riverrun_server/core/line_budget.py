"""How many log lines about one thing are written each second, and how many were left out."""

from __future__ import annotations


class LineBudget:
    """Lets the first lines of each second pass and counts the others.

    A busy broker has thousands of calls a second; a line for each would cost more than the calls,
    and hide the few that matter.

    >>> budget = LineBudget(1)
    >>> [budget.admit(now_s) for now_s in (0.0, 0.1, 0.2, 1.0)]
    [0, None, None, 2]

    Args:
        lines_per_s: how many pass; 0 lets none pass.
    """

    __slots__ = ("_began_s", "_left_out", "_lines_per_s", "_written")

    def __init__(self, lines_per_s: int) -> None:
        assert lines_per_s >= 0, lines_per_s
        self._lines_per_s = lines_per_s
        self._began_s = float("-inf")
        self._written = 0
        self._left_out = 0

    def admit(self, now_s: float) -> int | None:
        """Return how many lines were left out before this one, or None to leave this one out too."""
        if now_s - self._began_s >= 1.0:
            self._began_s = now_s
            self._written = 0
        if self._written >= self._lines_per_s:
            self._left_out += 1
            return None
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        return left_out
