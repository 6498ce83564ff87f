"""Who waits for room for deliveries, and who gets it next.

Everybody waits for one batch, and how much must be left over for that depends on what its connection
holds (see core/delivery_budget). So the one that needs the least goes first, whoever holds nothing
before all others: where there is not enough for it, there is not enough for anybody, and nobody else
need be looked at. Of those that need the same, whoever has waited longest goes first. Those that wait
for one connection take turns.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

from riverrun_server.core.delivery_budget import DeliveryBudget

Waiter = TypeVar("Waiter", bound=Hashable)


class DeliveryQueue(Generic[Waiter]):
    """Waiters by connection, each once, with what it waits for.

    Invariant: after `grant` has returned None, nothing fits that is next for its connection.

    Args:
        budget: decides what fits; `changed` is called whenever a connection took or gave back.
    """

    __slots__ = ("_budget", "_entries", "_needs", "_number", "_waiting")

    def __init__(self, budget: DeliveryBudget) -> None:
        self._budget = budget
        # Of each connection in their order; a connection for which nobody waits is not kept.
        self._waiting: dict[Hashable, dict[Waiter, int]] = {}
        # A heap of what each needs. An entry counts if it is its connection's last one.
        self._needs: list[tuple[int, int, Hashable]] = []
        self._entries: dict[Hashable, tuple[int, int]] = {}
        self._number = 0

    def __len__(self) -> int:
        """Count those that wait."""
        return sum(map(len, self._waiting.values()))

    def add(self, connection: Hashable, waiter: Waiter, size_bytes: int) -> None:
        """Let one wait for a batch behind the others of its connection; who waits keeps its place."""
        self._waiting.setdefault(connection, {})[waiter] = size_bytes
        self.changed(connection)

    def discard(self, connection: Hashable, waiter: Waiter) -> None:
        """Let one wait no longer, if it does."""
        queue = self._waiting.get(connection)
        if queue is None or queue.pop(waiter, None) is None:
            return
        if not queue:
            del self._waiting[connection], self._entries[connection]
        self.changed(connection)

    def changed(self, connection: Hashable) -> None:
        """Take into account that a connection holds more, or less."""
        queue = self._waiting.get(connection)
        if queue is None:
            return
        needs = self._budget.needs(connection, next(iter(queue.values())), one_batch=True)
        entry = self._entries.get(connection)
        if entry is not None and entry[0] == needs:
            return  # it keeps its place
        self._number += 1
        self._entries[connection] = (needs, self._number)
        heapq.heappush(self._needs, (needs, self._number, connection))
        if len(self._needs) > 2 * len(self._waiting) + 16:
            self._needs = [each for each in self._needs if self._counts(each)]
            heapq.heapify(self._needs)

    def grant(self) -> Waiter | None:
        """Take room for whoever is next and return it, or None where there is none for it."""
        connection = self._first()
        if connection is None:
            return None
        waiter, size_bytes = next(iter(self._waiting[connection].items()))
        if not self._budget.fits(connection, size_bytes, one_batch=True):
            return None
        self._budget.take(connection, size_bytes)
        self.discard(connection, waiter)
        return waiter

    def others_first(self, connection: Hashable) -> bool:
        """Whether somebody waits for this connection, or for one that holds less."""
        if connection in self._waiting:
            return True
        first, held_by = self._first(), self._budget.held_by
        return first is not None and held_by(first) < held_by(connection)

    def _first(self) -> Hashable | None:
        while self._needs:
            if self._counts(self._needs[0]):
                return self._needs[0][2]
            heapq.heappop(self._needs)
        return None

    def _counts(self, entry: tuple[int, int, Hashable]) -> bool:
        return self._entries.get(entry[2]) == entry[:2]
