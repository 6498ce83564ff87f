"""How long to wait before trying again: exponential, with full jitter.

Full jitter, a uniform choice between nothing and the bound, spreads clients that failed together
better than a jittered remainder does (Brooker, "Exponential Backoff And Jitter", 2015).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackoffConfig:
    """The bounds: the first one, and where doubling ends."""

    first_s: float = 0.05
    max_s: float = 2.0


class Backoff:
    """Successive delays of one thing that is tried again.

    Args:
        uniform: returns a random number in [0, 1).
        config: the bounds.
    """

    def __init__(self, uniform: Callable[[], float], config: BackoffConfig | None = None) -> None:
        self._uniform = uniform
        self._config = config or BackoffConfig()
        self._bound_s = self._config.first_s

    def next_s(self, at_least_s: float | None = None) -> float:
        """Return the next delay; `at_least_s` is what the broker asked for, if it did."""
        bound_s = self._bound_s
        self._bound_s = min(self._config.max_s, bound_s * 2)
        return (at_least_s or 0.0) + self._uniform() * bound_s

    def reset(self) -> None:
        """Begin anew: it has worked."""
        self._bound_s = self._config.first_s
