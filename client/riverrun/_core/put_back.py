"""What was handed out and has reached nobody: it comes again before all else, and is not committed until then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from riverrun._core.batch_view import WireBatch
from riverrun._core.partition_reader import PartitionReader, Taken
from riverrun._core.records import TopicPartition

B = TypeVar("B", bound=WireBatch)


class Given(NamedTuple, Generic[B]):
    """Records of one batch that were handed out together: those at offsets in [first, end).

    Attributes:
        taken: their batch.
        first: where the application stood before.
        end: where it stood behind them.
        records: how many there are.
        seeks: how often the application had gone elsewhere by then.
    """

    taken: Taken[B]
    first: int
    end: int
    records: int
    seeks: int


class _Part(NamedTuple, Generic[B]):
    """A part of a batch that waits; with `is_hole` the application has been given what lies behind it."""

    taken: Taken[B]
    is_hole: bool


class PutBack(Generic[B]):
    """Parts of batches, of each partition in the order of their offsets.

    Threads share a consumer: while one of them is interrupted with records that it never returns,
    others may have been given later ones. Those are not to come twice, so that what is put back is
    a *hole* behind which the position stays.

    Attributes:
        seeks: how often the application has gone elsewhere, in any partition.
    """

    def __init__(self) -> None:
        self._parts: list[_Part[B]] = []
        self.seeks = 0
        self._sought: dict[TopicPartition, int] = {}

    def __bool__(self) -> bool:
        """Whether something waits, paused partitions included."""
        return bool(self._parts)

    def add(self, given: Given[B]) -> bool:
        """Take records back; return whether they count, for the application has gone nowhere since.

        Where nothing behind them was given, their reader's position goes back with them.
        """
        taken, reader = given.taken, given.taken.reader
        if self._sought.get(reader.partition, 0) > given.seeks:
            return False
        is_last = reader.position == given.end
        if is_last:
            reader.position = given.first
        part = taken._replace(first=given.first, end=given.end, next_offset=given.end)
        self.add_part(part, is_hole=not is_last)
        return True

    def add_part(self, taken: Taken[B], *, is_hole: bool) -> None:
        """Take back what is left of a batch, for something else comes before it."""
        self._parts.append(_Part(taken, is_hole))
        self._parts.sort(key=lambda part: part.taken.first)

    def take(self) -> _Part[B] | None:
        """Return what comes next, of the partitions that are not paused."""
        for index, part in enumerate(self._parts):
            if not part.taken.reader.paused:
                return self._parts.pop(index)
        return None

    def holes(self) -> Sequence[tuple[PartitionReader, int]]:
        """Return the readers and first offsets of holes."""
        return [(part.taken.reader, part.taken.first) for part in self._parts if part.is_hole]

    def pause(self, partition: TopicPartition) -> bool:
        """Drop what is read again from the position; return whether there was something."""
        return self._drop(partition, holes=False)

    def seek(self, partition: TopicPartition) -> bool:
        """Drop everything of a partition, also what is still to be put back."""
        self.seeks += 1
        self._sought[partition] = self.seeks
        return self._drop(partition, holes=True)

    def clear(self) -> None:
        """Let go of everything."""
        self._parts.clear()

    def _drop(self, partition: TopicPartition, *, holes: bool) -> bool:
        before = len(self._parts)
        self._parts = [
            part
            for part in self._parts
            if part.taken.reader.partition != partition or (part.is_hole and not holes)
        ]
        return len(self._parts) < before
