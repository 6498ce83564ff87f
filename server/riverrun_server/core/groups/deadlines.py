"""Many deadlines of which most are put off again and again, and the next one of them."""

from __future__ import annotations

import heapq
from typing import Final, Generic, TypeVar

Key = TypeVar("Key")

# A heap with fewer entries that count for nothing is not worth building anew.
_STALE_MIN: Final = 1_000


class Deadlines(Generic[Key]):
    """Deadlines by key.

    A deadline that is put off costs one dict entry: its place in the heap stays, and is moved when
    its turn comes. So beats of thousands of members are cheap.
    """

    def __init__(self) -> None:
        self._at: dict[Key, int] = {}
        self._queued: dict[Key, int] = {}  # the place in the heap that counts
        self._heap: list[tuple[int, int, Key]] = []
        self._number = 0  # keys need not be comparable

    def __len__(self) -> int:
        """Return how many deadlines are set."""
        return len(self._at)

    def get(self, key: Key) -> int | None:
        """Return when a key is due; None where it is not."""
        return self._at.get(key)

    def set(self, key: Key, at_ms: int) -> None:
        """Set when a key is due, in place of what was set before."""
        self._at[key] = at_ms
        queued = self._queued.get(key)
        if queued is None or at_ms < queued:
            self._push(key, at_ms)

    def drop(self, key: Key) -> None:
        """Forget a key's deadline, where it has one."""
        self._at.pop(key, None)
        if len(self._heap) > _STALE_MIN + 2 * len(self._at):
            self._rebuild()

    def next_ms(self) -> int | None:
        """Return the earliest deadline; None where there is none."""
        self._peel()
        return self._heap[0][0] if self._heap else None

    def take_due(self, now_ms: int) -> list[Key]:
        """Return the keys that are due, earliest first, and forget their deadlines."""
        due: list[Key] = []
        while (at_ms := self.next_ms()) is not None and at_ms <= now_ms:
            _, _, key = heapq.heappop(self._heap)
            del self._at[key], self._queued[key]
            due.append(key)
        return due

    def _peel(self) -> None:
        """Make the first place of the heap one that counts."""
        heap = self._heap
        while heap:
            place_ms, _, key = heap[0]
            at_ms = self._at.get(key)
            if place_ms == at_ms and place_ms == self._queued.get(key):
                return
            heapq.heappop(heap)
            if place_ms != self._queued.get(key):
                continue  # another place counts for it
            del self._queued[key]
            if at_ms is not None:
                self._push(key, at_ms)

    def _push(self, key: Key, at_ms: int) -> None:
        self._number += 1
        self._queued[key] = at_ms
        heapq.heappush(self._heap, (at_ms, self._number, key))

    def _rebuild(self) -> None:
        self._queued.clear()
        self._heap.clear()
        for key, at_ms in self._at.items():
            self._push(key, at_ms)
