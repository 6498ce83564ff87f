"""Read records: one at a time, some at a time, or batches as they were produced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self

from riverrun._core.records import (
    CommittedOffset,
    From,
    OffsetAndTimestamp,
    Record,
    TopicPartition,
)
from riverrun.v1 import records_pb2


class RecordBatchView:
    """Records of one partition as they were produced together, checked and expanded.

    Attributes:
        topic: where they stand.
        partition: where they stand.
        offsets: the offset of each record.
        next_offset: where to go on from, and what to commit. It may lie beyond the last record.
        high_watermark: the partition's, when these were sent.
    """

    topic: str
    partition: int
    offsets: range | list[int]
    next_offset: int
    high_watermark: int

    @property
    def records(self) -> list[records_pb2.Record]:
        """The records as protobuf messages, those that were asked for only."""
        raise NotImplementedError

    def values(self) -> list[bytes | None]:
        """Return the value of each record, None for a tombstone: the fastest way to touch them."""
        raise NotImplementedError

    def keys(self) -> list[bytes | None]:
        """Return the key of each record, None where it has none."""
        raise NotImplementedError

    def timestamps_ms(self) -> list[int]:
        """Return the timestamp of each record, in ms since 1970."""
        raise NotImplementedError

    def __len__(self) -> int:
        """How many records there are."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the records with all their parts."""
        raise NotImplementedError


class Consumer:
    """Reads records, from `Client.consumer()`; an async context manager and iterator.

    Within one partition records come in order, each once, also through broken connections. Between
    partitions there is no order. What has been returned, and no more, counts for `position` and for
    `commit`.
    """

    def __aiter__(self) -> AsyncIterator[Record]:
        """Iterate over records; it ends at the end only with `stop_at_end`."""
        raise NotImplementedError

    def batches(self) -> AsyncIterator[RecordBatchView]:
        """Iterate over batches as they were produced: the fast path."""
        raise NotImplementedError

    async def getmany(self, max_records: int = 500, timeout_s: float | None = None) -> list[Record]:
        """Return up to `max_records` records; at least one, unless the time is up or the end came.

        Args:
            max_records: the most to return.
            timeout_s: how long to wait for the first; None is for ever, 0 is not at all.
        """
        raise NotImplementedError

    async def seek(self, partition: TopicPartition, to: int | From) -> None:
        """Go elsewhere in one partition. What was read ahead from the old place is dropped."""
        raise NotImplementedError

    async def assignment(self) -> tuple[TopicPartition, ...]:
        """Return the partitions being read; waits until the broker has told them."""
        raise NotImplementedError

    async def position(self, partition: TopicPartition) -> int:
        """Return the offset of the next record that will be returned."""
        raise NotImplementedError

    async def commit(
        self, offsets: Mapping[TopicPartition, int | CommittedOffset] | None = None
    ) -> None:
        """Store how far the group has come: the given offsets, else all positions.

        Raises:
            UsageError: the consumer has no group.
            RiverrunError: of the first partition that refused; the others may have been stored.
        """
        raise NotImplementedError

    async def committed(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, CommittedOffset | None]:
        """Tell how far the group has come, by default in the partitions being read."""
        raise NotImplementedError

    async def end_offsets(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Tell the high watermarks, by default of the partitions being read."""
        raise NotImplementedError

    async def offsets_for_times(
        self, times_ms: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """Find the first record whose timestamp is that or later; None where there is none."""
        raise NotImplementedError

    def pause(self, partitions: Iterable[TopicPartition] = ()) -> None:
        """Stop returning records of these partitions; none named is all."""
        raise NotImplementedError

    def resume(self, partitions: Iterable[TopicPartition] = ()) -> None:
        """Go on with paused partitions; none named is all."""
        raise NotImplementedError

    def paused(self) -> frozenset[TopicPartition]:
        """Return the partitions that are paused."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of everything; nothing is committed. Safe to call twice."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        """Return the consumer itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        raise NotImplementedError
