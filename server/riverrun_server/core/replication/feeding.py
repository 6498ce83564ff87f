"""What a leader has sent to each follower, and what it may send next.

Much is sent before anything is acknowledged, or a distant follower would be fed at the pace of its
round trips; but not more than a bound, or a slow one would fill the memory between them. One bound is
for each partition and one for all that a broker follows here: it may come back to a thousand of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from riverrun_server.core.log.batch import StoredBatch

BATCH_COST_BYTES = 64
"""What a batch counts beside its bytes, so that empty ones are not free."""


class Windows:
    """How much is under way to each broker, of all partitions together.

    Args:
        max_bytes: for each broker.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used: dict[int, int] = {}
        self._waiting: dict[int, dict[Feeds, None]] = {}

    def room(self, broker: int) -> int:
        """Return how much more may be sent to a broker; once too much was, it is below 0."""
        return self._max_bytes - self._used.get(broker, 0)

    def take(self, broker: int, size_bytes: int) -> None:
        """Count what was sent."""
        self._used[broker] = self._used.get(broker, 0) + size_bytes

    def give_back(self, broker: int, size_bytes: int) -> None:
        """Count no more what was acknowledged or given up; who waited for that is told."""
        if not size_bytes:
            return
        self._used[broker] -= size_bytes
        assert self._used[broker] >= 0, (broker, self._used)
        if self.room(broker) > 0:
            for feeds in self._waiting.pop(broker, {}):
                feeds.hungry()

    def wait(self, broker: int, feeds: Feeds) -> None:
        """Tell somebody when there is room again."""
        self._waiting.setdefault(broker, {})[feeds] = None

    def unwait(self, feeds: Feeds) -> None:
        """Tell somebody nothing more."""
        for waiting in self._waiting.values():
            waiting.pop(feeds, None)


class Portion(NamedTuple):
    """What a follower is to get next: batches from an offset on, perhaps none."""

    offset: int
    max_bytes: int


@dataclass(slots=True)
class _Feed:
    """One follower that is being fed.

    Attributes:
        next_offset: what is sent next.
        owed: it is to hear something even if there are no batches.
        under_way: (where they end, bytes) of pushes that were not acknowledged, in order.
        under_way_bytes: of all these.
    """

    next_offset: int
    owed: bool = True
    under_way: deque[tuple[int, int]] = field(default_factory=deque)
    under_way_bytes: int = 0


class Feeds:
    """The followers that the leader of one partition feeds.

    Transitions of one: absent -> fed (`begin`) -> fed (`sent`, `acked`) -> absent (`end`).

    Args:
        max_push_bytes: of the batches of one push, unless a single one is larger.
        max_under_way_bytes: that one follower may leave unacknowledged.
        windows: shared with the other partitions.
        hungry: told that there may be something to send.
    """

    def __init__(
        self,
        max_push_bytes: int,
        max_under_way_bytes: int,
        windows: Windows,
        hungry: Callable[[], None],
    ) -> None:
        assert 0 < max_push_bytes <= max_under_way_bytes, (max_push_bytes, max_under_way_bytes)
        self._max_push_bytes = max_push_bytes
        self._max_under_way_bytes = max_under_way_bytes
        self._windows = windows
        self.hungry = hungry
        self._feeds: dict[int, _Feed] = {}

    def __iter__(self) -> Iterator[int]:
        """Yield the brokers that are fed."""
        return iter(self._feeds)

    def begin(self, broker: int, offset: int) -> None:
        """Feed a follower from its log end on; it is owed an answer."""
        self.end(broker)
        self._feeds[broker] = _Feed(offset)

    def end(self, broker: int) -> None:
        """Feed a follower no more, until it asks again."""
        feed = self._feeds.pop(broker, None)
        if feed is not None:
            self._windows.give_back(broker, feed.under_way_bytes)

    def close(self) -> None:
        """Feed nobody any more."""
        for broker in list(self._feeds):
            self.end(broker)
        self._windows.unwait(self)

    def owe(self) -> None:
        """Have everybody hear something."""
        for each in self._feeds.values():
            each.owed = True

    def next_portion(self, broker: int, log_end: int) -> Portion | None:
        """Return what a follower is to get now; None where it must wait or has everything."""
        feed = self._feeds.get(broker)
        if feed is None:
            return None
        room = self._max_under_way_bytes - feed.under_way_bytes
        if feed.next_offset < log_end and room > 0:
            together = self._windows.room(broker)
            if together > 0:
                return Portion(feed.next_offset, min(room, together, self._max_push_bytes))
            self._windows.wait(broker, self)
        return Portion(feed.next_offset, 0) if feed.owed else None

    def sent(self, broker: int, batches: Sequence[StoredBatch]) -> None:
        """Take into account what was sent of the portion asked for."""
        feed = self._feeds[broker]
        feed.owed = False
        if batches:
            size = sum(len(each.data) + BATCH_COST_BYTES for each in batches)
            feed.next_offset = batches[-1].next_offset
            feed.under_way.append((feed.next_offset, size))
            feed.under_way_bytes += size
            self._windows.take(broker, size)

    def acked(self, broker: int, durable_end: int) -> None:
        """Take into account what a follower has on its disk."""
        feed = self._feeds.get(broker)
        if feed is None:
            return
        arrived = 0
        while feed.under_way and feed.under_way[0][0] <= durable_end:
            arrived += feed.under_way.popleft()[1]
        feed.under_way_bytes -= arrived
        self._windows.give_back(broker, arrived)
