"""When `consume` has enough: so many records, an offset or a time in each partition, or the end."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

Partition = TypeVar("Partition", bound=Hashable)


class Ending(Generic[Partition]):
    """Decides how many records of each run are wanted, and when nothing more is.

    A partition is open until a record at its end or of its last time comes, or its position
    passes its end. All is done when every partition is closed or enough records were taken.
    """

    def __init__(
        self,
        partitions: Iterable[Partition] = (),
        *,
        max_records: int | None = None,
        until_ms: int | None = None,
    ) -> None:
        """Make a decision for some partitions; without any, only `max_records` ends it.

        Args:
            partitions: those that are read, where each has its own end.
            max_records: so many in all.
            until_ms: a partition closes at its first record of this timestamp or later.
        """
        self._open = set(partitions)
        self._by_partition = bool(self._open)
        self._left = max_records
        self._until_ms = until_ms
        self._ends: dict[Partition, int] = {}
        self._seen: dict[Partition, int] = {}

    @property
    def done(self) -> bool:
        """Whether nothing more is wanted."""
        return self._left == 0 or (self._by_partition and not self._open)

    def close_at(self, ends: Mapping[Partition, int], positions: Mapping[Partition, int]) -> None:
        """Set where partitions end: the first offset that is not wanted.

        Args:
            ends: by partition; a lower one that is known already holds.
            positions: the next offset of each, for those that are there already.
        """
        for partition, end in ends.items():
            self._ends[partition] = min(end, self._ends.get(partition, end))
            self.pass_to(partition, positions.get(partition, 0))

    def closed(self, partition: Partition) -> bool:
        """Whether nothing more is wanted of a partition."""
        return self.done or (self._by_partition and partition not in self._open)

    def pass_to(self, partition: Partition, next_offset: int) -> None:
        """Note that everything below an offset has been seen."""
        self._seen[partition] = max(next_offset, self._seen.get(partition, 0))
        end = self._ends.get(partition)
        if end is not None and self._seen[partition] >= end:
            self._open.discard(partition)

    def take(
        self,
        partition: Partition,
        offsets: Sequence[int],
        timestamps_ms: Callable[[], Sequence[int]],
    ) -> int:
        """Say how many of the next records of a partition are wanted, from the first on.

        Args:
            partition: where they stand.
            offsets: of each record, rising.
            timestamps_ms: gives the timestamp of each; asked only where a time is the end.
        """
        if self.closed(partition):
            return 0
        count = len(offsets)
        end = self._ends.get(partition)
        if end is not None:
            count = bisect_left(offsets, end)
        if self._until_ms is not None:
            late = (at for at, time in enumerate(timestamps_ms()) if time >= self._until_ms)
            count = min(count, next(late, count))
        if count < len(offsets):
            self._open.discard(partition)
        if self._left is not None:
            count = min(count, self._left)
            self._left -= count
        return count
