"""Room for what is on its way to readers: what one stream or call holds, and who waits for some."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import Final

from riverrun_server.core.delivery_budget import DeliveryBudget
from riverrun_server.core.delivery_queue import DeliveryQueue
from riverrun_server.core.log.batch import PartitionId

Wake = Callable[[], None]


class Deliveries:
    """The broker's budget for deliveries, and the streams that wait for room in it.

    Args:
        budget: decides who may hold how much.
        reached: called when somebody has to wait, or is refused.
    """

    def __init__(self, budget: DeliveryBudget, reached: Wake = lambda: None) -> None:
        self.budget = budget
        self.queue: DeliveryQueue[Room] = DeliveryQueue(budget)
        self._reached = reached

    def crowded(self) -> None:
        """Note that somebody found no room."""
        self._reached()

    def freed(self) -> None:
        """Give room to those that wait, as long as there is enough for the next."""
        while (room := self.queue.grant()) is not None:
            room.granted()


class Room:
    """What one stream or call holds; `close` gives it back.

    What a partition waits for is taken for it before it is woken, so it is either used or given to
    the next, and nobody sleeps beside room that is free. One partition at a time has such a grant:
    a stream that is stuck keeps no more than that from others.

    Transitions of one partition: out -> waiting (wait) -> granted -> held (claim); waiting or granted ->
    out (forget, withdraw, close).

    Args:
        deliveries: where it comes from.
        connection: whose it is.
    """

    __slots__ = ("_connection", "_deliveries", "_grant", "_waiting", "held_bytes")

    def __init__(self, deliveries: Deliveries, connection: Hashable) -> None:
        self._deliveries = deliveries
        self._connection = connection
        # Beside what was granted and is not claimed yet.
        self.held_bytes = 0
        self._waiting: dict[PartitionId, tuple[int, Wake]] = {}
        self._grant: tuple[PartitionId, int] | None = None

    @property
    def others_first(self) -> bool:
        """Whether whoever holds some should give it back after a turn rather than go on with it."""
        return bool(self._waiting) or self._deliveries.queue.others_first(self._connection)

    @property
    def partitions(self) -> list[PartitionId]:
        """Those that wait, or were granted room that they did not claim."""
        return [*self._waiting, *([self._grant[0]] if self._grant else ())]

    def hold(self, size_bytes: int, *, one_batch: bool = False) -> bool:
        """Hold so much altogether; where there is no room for it, hold what was held.

        With `one_batch` no less would do, and whoever holds nothing gets it out of the reserve.
        """
        more, budget = size_bytes - self.held_bytes, self._deliveries.budget
        if more > 0:
            if not budget.fits(self._connection, more, one_batch=one_batch):
                self._deliveries.crowded()
                return False
            budget.take(self._connection, more)
            self._deliveries.queue.changed(self._connection)
        self.held_bytes = size_bytes
        if more < 0:
            self._give_back(-more)
        return True

    def wait(self, partition: PartitionId, size_bytes: int, wake: Wake) -> None:
        """Call `wake` once room for one batch was taken for a partition, perhaps at once; `claim` it then."""
        self._waiting[partition] = (size_bytes, wake)
        self._line_up()

    def granted(self) -> None:
        """Wake whoever is next: what it waits for has been taken."""
        partition = next(iter(self._waiting))
        size_bytes, wake = self._waiting.pop(partition)
        self._grant = (partition, size_bytes)
        wake()

    def claim(self, partition: PartitionId) -> None:
        """Hold what was granted to a partition, if anything was."""
        if self._grant is not None and self._grant[0] == partition:
            self.held_bytes += self._grant[1]
            self._grant = None
            self._line_up()

    def forget(self, partition: PartitionId) -> None:
        """Let a partition wait no longer, and give back what it was granted."""
        if self._waiting.pop(partition, None) is not None:
            self._line_up()
        elif self._grant is not None and self._grant[0] == partition:
            size_bytes, self._grant = self._grant[1], None
            self._line_up()
            self._give_back(size_bytes)

    def withdraw(self) -> list[PartitionId]:
        """Where something was granted and nobody can use it, let all wait no longer; return them."""
        if self._grant is None:
            return []
        partitions, size_bytes = self.partitions, self._grant[1]
        self._waiting.clear()
        self._grant = None
        self._give_back(size_bytes)
        return partitions

    def close(self) -> None:
        """Give everything back."""
        if not self._waiting and self._grant is None and not self.held_bytes:
            return  # most calls hold nothing
        self._waiting.clear()
        self._line_up()
        self.withdraw()
        self.hold(0)

    def _line_up(self) -> None:
        """Stand in the queue while somebody waits and nobody has a grant."""
        queue = self._deliveries.queue
        if self._waiting and self._grant is None:
            queue.add(self._connection, self, next(iter(self._waiting.values()))[0])
        else:
            queue.discard(self._connection, self)
        # Behind it, or before it, there may be one for whom there is room.
        self._deliveries.freed()

    def _give_back(self, size_bytes: int) -> None:
        self._deliveries.budget.release(self._connection, size_bytes)
        self._deliveries.queue.changed(self._connection)
        self._deliveries.freed()


def unlimited() -> Room:
    """Return room for whoever is not counted."""
    return Room(Deliveries(DeliveryBudget(1 << 62)), None)


# Set for each call by the door that lets it in.
CURRENT: Final[ContextVar[Room]] = ContextVar("riverrun_room")
