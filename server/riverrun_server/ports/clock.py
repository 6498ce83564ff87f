"""Time and dice as arguments, so that a simulation owns both."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Two clocks that must not be confused."""

    def wall_ms(self) -> int:
        """Return ms since 1970; may step."""
        ...

    def monotonic(self) -> float:
        """Return seconds from some beginning; never goes back."""
        ...


class Dice(Protocol):
    """All randomness that the broker uses."""

    def token(self, size: int) -> bytes:
        """Return `size` random bytes."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """Return a number between the two."""
        ...
