"""The newest batches of every partition in memory, so that a reader who keeps up never meets the disk.

All partitions of a broker share one budget, and what is evicted is the batch that was appended
longest ago, of whichever partition. So every tail reaches back equally far in time: a busy partition
cannot push out the last batch of a quiet one before that one's readers had a chance to see it. (The
least recently used tail would be the wrong victim: a quiet partition is always that.)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict

from riverrun_server.core.log.batch import StoredBatch

BATCH_OVERHEAD_BYTES = 512
"""What a batch costs in memory beside its bytes; without it a million tiny batches were free."""

_CUT_AFTER = 64
"""How many evicted batches keep their list entries at least, before they are cut off in one go."""

_EVICTED = StoredBatch(0, 0, 0, b"")


class TailBudget:
    """How many bytes the tails of one broker may hold together.

    Args:
        max_bytes: of the batches, with `BATCH_OVERHEAD_BYTES` for each.
    """

    __slots__ = ("_holders", "_next_ticket", "max_bytes", "used_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        # Ticket -> tail in the order of appends: its first entry has the oldest batch of all.
        self._holders: OrderedDict[int, HotTail] = OrderedDict()
        self._next_ticket = 0

    def admit(self, tail: HotTail, size_bytes: int) -> int:
        """Count a batch of a tail and return the ticket that stands for it."""
        ticket = self._next_ticket
        self._next_ticket = ticket + 1
        self._holders[ticket] = tail
        self.used_bytes += size_bytes
        return ticket

    def evict(self) -> None:
        """Let the oldest batches go until the rest fits, in constant time for each."""
        while self.used_bytes > self.max_bytes:
            self._holders[next(iter(self._holders))].evict_oldest()

    def release(self, ticket: int, size_bytes: int) -> None:
        """Count a batch no longer."""
        del self._holders[ticket]
        self.used_bytes -= size_bytes
        assert self.used_bytes >= 0, self.used_bytes


class HotTail:
    """The newest batches of one partition, in the order of the log.

    Args:
        budget: shared with the other partitions.
    """

    __slots__ = ("_bases", "_batches", "_budget", "_head", "_sums", "_tickets")

    def __init__(self, budget: TailBudget) -> None:
        self._budget = budget
        # Parallel lists. Entries before `_head` are evicted; `_sums` has the bytes before each
        # batch and one entry more, the bytes before the next one.
        self._head = 0
        self._batches: list[StoredBatch] = []
        self._bases: list[int] = []
        self._tickets: list[int] = []
        self._sums: list[int] = [0]

    def __len__(self) -> int:
        """Return how many batches are held."""
        return len(self._batches) - self._head

    @property
    def start_offset(self) -> int | None:
        """The first offset that is held; None where nothing is."""
        return self._bases[self._head] if self._head < len(self._bases) else None

    def append(self, batch: StoredBatch) -> None:
        """Take in the batch that comes next in the log; older ones may be evicted, here or elsewhere."""
        batches = self._batches
        assert not batches or batch.base_offset >= batches[-1].next_offset, (batch[:3], len(self))
        size_bytes = len(batch.data)
        batches.append(batch)
        self._bases.append(batch.base_offset)
        self._sums.append(self._sums[-1] + size_bytes)
        budget = self._budget
        self._tickets.append(budget.admit(self, size_bytes + BATCH_OVERHEAD_BYTES))
        if budget.used_bytes > budget.max_bytes:
            budget.evict()

    def read(self, offset: int, end: int, max_bytes: int) -> list[StoredBatch] | None:
        """Return the batches from the one that holds `offset` up to `end`, as they are.

        None means that `offset` is not held and the log itself has to be read. A batch that reaches
        beyond `end` is left out. At least one batch is returned where there is one, then as many as
        fit into `max_bytes`.
        """
        bases, batches = self._bases, self._batches
        first = bisect_right(bases, offset, self._head) - 1
        if first < self._head:
            return None
        if batches[first].next_offset <= offset:
            first += 1  # the offset lies in a gap behind that batch, or at the log end
        stop = bisect_left(bases, end, first)
        if stop > first and batches[stop - 1].next_offset > end:
            stop -= 1
        if stop == first:
            return []
        sums = self._sums
        fitting = bisect_right(sums, sums[first] + max_bytes, first, stop + 1) - 1
        return batches[first : max(fitting, first + 1)]

    def truncate(self, offset: int) -> None:
        """Let go of the batches that reach beyond `offset`; the log ends there now."""
        kept = max(bisect_left(self._bases, offset, self._head), self._head)
        if kept > self._head and self._batches[kept - 1].next_offset > offset:
            kept -= 1
        for index in range(kept, len(self._batches)):
            self._release(index)
        del self._batches[kept:], self._bases[kept:], self._tickets[kept:], self._sums[kept + 1 :]

    def clear(self) -> None:
        """Let go of everything, also when the partition is closed."""
        for index in range(self._head, len(self._batches)):
            self._release(index)
        self._head = 0
        del self._batches[:], self._bases[:], self._tickets[:], self._sums[1:]

    def evict_oldest(self) -> None:
        """Let go of the oldest batch; the budget asks for it."""
        head = self._head
        self._release(head)
        self._batches[head] = _EVICTED
        self._head = head = head + 1
        if head > _CUT_AFTER and head * 2 > len(self._batches):
            del self._batches[:head], self._bases[:head], self._tickets[:head], self._sums[:head]
            self._head = 0

    def _release(self, index: int) -> None:
        size_bytes = self._sums[index + 1] - self._sums[index]
        self._budget.release(self._tickets[index], size_bytes + BATCH_OVERHEAD_BYTES)
