"""A broker's clocks: one that only goes forward, a little too fast or slow, and one that jumps."""

from __future__ import annotations

from tests.sim.cluster.world import World

# A quartz clock that is this far off is broken; leases have a margin for it.
RATE_ERROR_MAX = 0.002
WALL_START_MS = 1_700_000_000_000


class BrokerClock:
    """Implements ports.clock.Clock for one broker.

    The two clocks begin at unlike numbers, so that one taken for the other is noticed.

    Args:
        world: has the true time.
        rate: seconds that pass here in a true second.
        began_s: what the monotonic clock says at the beginning of the world.
    """

    def __init__(self, world: World, rate: float = 1.0, began_s: float = 0.0) -> None:
        assert abs(rate - 1) <= RATE_ERROR_MAX, rate
        self._world = world
        self._rate = rate
        self._began_s = began_s
        self._wall_offset_ms = 0

    def monotonic(self) -> float:
        """Return seconds since some moment; never goes back and knows nothing of jumps."""
        return self._began_s + self._world.now_s * self._rate

    def wall_ms(self) -> int:
        """Return what the broker believes the time of day to be."""
        return WALL_START_MS + self._wall_offset_ms + int(self._world.now_s * self._rate * 1000)

    def jump(self, by_ms: int) -> None:
        """Set the time of day forward or back, as an operator or a bad time server does."""
        self._wall_offset_ms += by_ms

    def true_s(self, local_s: float) -> float:
        """Return how long a timer of this broker takes in true time."""
        return local_s / self._rate
