"""Room for what is on its way to readers: what one stream or call holds, and who waits for some."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import Final

from riverrun_server.core.delivery_budget import DeliveryBudget

Wake = Callable[[], None]


class Deliveries:
    """The broker's budget for deliveries, and the streams that wait for room in it.

    Args:
        budget: decides who may hold how much.
        reached: called when somebody has to wait, or is refused.
    """

    def __init__(self, budget: DeliveryBudget, reached: Wake = lambda: None) -> None:
        self.budget = budget
        self._reached = reached
        # By connection, in the order in which they came: (how much, whom to wake).
        self._waiting: dict[Hashable, deque[tuple[int, Wake]]] = {}

    def crowded(self) -> None:
        """Note that somebody found no room."""
        self._reached()

    def wait(self, connection: Hashable, size_bytes: int, wake: Wake) -> None:
        """Call `wake` once there may be so much room."""
        self._waiting.setdefault(connection, deque()).append((size_bytes, wake))

    def freed(self) -> None:
        """Wake the first of each connection that would find room now."""
        for connection, queue in list(self._waiting.items()):
            if self.budget.fits(connection, queue[0][0]):
                _, wake = queue.popleft()
                if not queue:
                    del self._waiting[connection]
                wake()


class Room:
    """What one stream or call holds; `close` gives it back.

    Args:
        deliveries: where it comes from.
        connection: whose it is.
    """

    __slots__ = ("_connection", "_deliveries", "held_bytes")

    def __init__(self, deliveries: Deliveries, connection: Hashable) -> None:
        self._deliveries = deliveries
        self._connection = connection
        self.held_bytes = 0

    def hold(self, size_bytes: int) -> bool:
        """Hold so much altogether; where there is no room for it, hold what was held."""
        more, budget = size_bytes - self.held_bytes, self._deliveries.budget
        if more > 0:
            if not budget.fits(self._connection, more):
                self._deliveries.crowded()
                return False
            budget.take(self._connection, more)
        elif more < 0:
            budget.release(self._connection, -more)
            self._deliveries.freed()
        self.held_bytes = size_bytes
        return True

    def wait(self, size_bytes: int, wake: Wake) -> None:
        """Call `wake` once it is worth trying to hold so much."""
        self._deliveries.wait(self._connection, size_bytes - self.held_bytes, wake)

    def close(self) -> None:
        """Give everything back."""
        self.hold(0)
        self._deliveries.freed()


def unlimited() -> Room:
    """Return room for whoever is not counted."""
    return Room(Deliveries(DeliveryBudget(1 << 62)), None)


# Set for each call by the door that lets it in.
CURRENT: Final[ContextVar[Room]] = ContextVar("riverrun_room")
