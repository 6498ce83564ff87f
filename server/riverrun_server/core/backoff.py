"""How long to wait before trying again: exponential, half of each delay chosen by dice.

Half of each delay is certain, so that what failed is left alone for a while; half is chosen, so that
many that failed together do not come back together.
"""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Successive delays of one thing that is tried again.

    Args:
        uniform: returns a random number between two.
        first_s: the bound of the first delay.
        max_s: where doubling ends.
    """

    def __init__(
        self, uniform: Callable[[float, float], float], first_s: float, max_s: float
    ) -> None:
        assert 0 < first_s <= max_s, (first_s, max_s)
        self._uniform = uniform
        self._first_s, self._max_s = first_s, max_s
        self._bound_s = first_s

    def next_s(self) -> float:
        """Return the next delay, between half its bound and its bound."""
        bound_s = self._bound_s
        self._bound_s = min(self._max_s, bound_s * 2)
        return self._uniform(bound_s / 2, bound_s)

    def reset(self) -> None:
        """Begin anew: it has worked."""
        self._bound_s = self._first_s
