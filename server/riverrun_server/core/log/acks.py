"""Appends that wait until what they were promised holds: on the leader's disk, or committed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class WaitingAcks(Generic[T]):
    """Two queues in the order of offsets, each released up to a bound.

    An append that needs offset N waits until the bound is at least N, N being where the batch
    behind it begins.
    """

    def __init__(self) -> None:
        self._durable: deque[tuple[int, T]] = deque()
        self._committed: deque[tuple[int, T]] = deque()

    def __len__(self) -> int:
        return len(self._durable) + len(self._committed)

    def wait_durable(self, needed: int, item: T) -> None:
        """Wait for the leader's disk."""
        self._put(self._durable, needed, item)

    def wait_committed(self, needed: int, item: T) -> None:
        """Wait for the high watermark."""
        self._put(self._committed, needed, item)

    def release(self, durable_end: int, high_watermark: int) -> Iterator[T]:
        """Yield, and forget, everything that these bounds satisfy, in order."""
        yield from self._take(self._durable, durable_end)
        yield from self._take(self._committed, high_watermark)

    def fail_committed(self) -> Iterator[T]:
        """Yield, and forget, everything that waits for the high watermark."""
        while self._committed:
            yield self._committed.popleft()[1]

    def fail(self) -> Iterator[T]:
        """Yield, and forget, everything."""
        for queue in (self._durable, self._committed):
            while queue:
                yield queue.popleft()[1]

    @staticmethod
    def _put(queue: deque[tuple[int, T]], needed: int, item: T) -> None:
        # A duplicate of an old batch needs less than what waits already; raised to the last one's
        # need, it keeps the queue in order and is answered a moment later.
        if queue and queue[-1][0] > needed:
            needed = queue[-1][0]
        queue.append((needed, item))

    @staticmethod
    def _take(queue: deque[tuple[int, T]], bound: int) -> Iterator[T]:
        while queue and queue[0][0] <= bound:
            yield queue.popleft()[1]
