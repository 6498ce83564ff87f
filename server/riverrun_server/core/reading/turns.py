"""Whose turn it is: round robin by bytes among those that have something to send.

Deficit round robin (Shreedhar and Varghese, SIGCOMM 1995): each gets the same bytes a round and
pays back in later rounds what it took too much, so large batches do not crowd out small ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from riverrun_server.core.log.batch import PartitionId


class Turns:
    """A queue of partitions in which each may send `quantum_bytes` a round.

    Transitions of one partition: out -> in (add), in -> out (discard), any -> out (forget). Unspent
    bytes are lost on leaving and debts are kept, so that nobody gains by coming and going; only who
    is forgotten begins anew.
    """

    __slots__ = ("_debts", "_left", "_quantum", "_queue")

    def __init__(self, quantum_bytes: int) -> None:
        assert quantum_bytes > 0, quantum_bytes
        self._quantum = quantum_bytes
        self._queue: deque[PartitionId] = deque()
        self._left: dict[PartitionId, int] = {}
        self._debts: dict[PartitionId, int] = {}

    def __len__(self) -> int:
        """Count those that wait for a turn."""
        return len(self._queue)

    def add(self, partition: PartitionId) -> None:
        """Let a partition wait for its turn, behind all others, if it does not yet."""
        if partition not in self._left:
            self._left[partition] = self._quantum - self._debts.pop(partition, 0)
            self._queue.append(partition)

    def discard(self, partition: PartitionId) -> None:
        """Take a partition out, if it is in."""
        left = self._left.pop(partition, None)
        if left is None:
            return
        if left < 0:
            self._debts[partition] = -left
        if self._queue[0] == partition:
            self._queue.popleft()
        else:
            self._queue.remove(partition)

    def forget(self, partitions: Collection[PartitionId]) -> None:
        """Keep nothing of partitions, neither turns nor debts; the others keep their order."""
        waiting = 0
        for partition in partitions:
            waiting += self._left.pop(partition, None) is not None
            self._debts.pop(partition, None)
        if waiting:
            # All in one pass: a thousand may go at once.
            self._queue = deque(each for each in self._queue if each in self._left)

    def current(self) -> PartitionId | None:
        """Return whose turn it is, or None where nobody waits."""
        queue, left = self._queue, self._left
        while queue:
            first = queue[0]
            if left[first] > 0:
                return first
            left[first] += self._quantum
            queue.rotate(-1)
        return None

    def spend(self, partition: PartitionId, size_bytes: int) -> None:
        """Charge a partition for what it sent."""
        if partition in self._left:
            self._left[partition] -= size_bytes
