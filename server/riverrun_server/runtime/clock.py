"""The machine's clocks and its randomness behind the ports that a simulation replaces."""

from __future__ import annotations

import secrets
import time


class SystemClock:
    """Implements ports.clock.Clock."""

    def wall_ms(self) -> int:
        """Return ms since 1970; steps when somebody sets the machine's clock."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds since some beginning; never goes back, and counts a suspend."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemDice:
    """Implements ports.clock.Dice from the system's entropy: ids must not repeat after a fork."""

    def __init__(self) -> None:
        self._random = secrets.SystemRandom()

    def token(self, size: int) -> bytes:
        """Return `size` random bytes."""
        return secrets.token_bytes(size)

    def uniform(self, low: float, high: float) -> float:
        """Return a number between the two."""
        return self._random.uniform(low, high)
