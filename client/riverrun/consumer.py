"""Read records: one at a time, some at a time, or batches as they were produced."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeAlias

from riverrun._core.backoff import Backoff
from riverrun._core.batch_view import BatchView
from riverrun._core.handing_out import HandingOut
from riverrun._core.partition_reader import PartitionReader
from riverrun._core.reading import ReaderMachine
from riverrun._core.records import (
    CommittedOffset,
    From,
    Offset,
    OffsetAndTimestamp,
    Record,
    TopicPartition,
)
from riverrun._net.channel import Connections
from riverrun._net.offsets import (
    commit_group_offsets,
    fetch_group_offsets,
    high_watermarks,
    offsets_at_times,
)
from riverrun._net.subscribe_loop import SubscribeLoop
from riverrun._net.subscribe_settings import SubscribeSettings, check_place
from riverrun.errors import ClosedError, Reason, RiverrunError, UsageError
from riverrun.v1 import records_pb2

RecordBatchView: TypeAlias = BatchView[records_pb2.Record]
"""What `Consumer.batches` yields: topic, partition, offsets, next_offset, high_watermark, `len`,
`values()`, `keys()`, `timestamps_ms()`, `records` (protobuf messages), `to_records()`."""

# After so many records that were there already, other tasks get their turn: a few milliseconds.
_TURN_RECORDS = 4096


class Consumer:
    """Reads records, from `Client.consumer()`; an async context manager and iterator.

    Within one partition records come in order, each once, also through broken connections. Between
    partitions there is no order. What has been returned, and no more, counts for `position` and for
    `commit`. An error of one partition is raised once; the others go on with the next call, and
    `seek` brings the failed one back. A partition that is offline is no error, for it may come back:
    it is asked for again, and one warning on the logger `riverrun` has what the broker says of it.

    One task at a time may iterate.
    """

    def __init__(
        self,
        connections: Connections,
        settings: SubscribeSettings,
        uniform: Callable[[], float],
        released: Callable[[Consumer], None],
    ) -> None:
        self._connections = connections
        self._released = released
        self._group = settings.group
        self._machine: ReaderMachine[records_pb2.RecordBatch] = ReaderMachine(
            settings.stop_at_end, settings.begin_at, settings.places
        )
        self._loop = SubscribeLoop(connections, self._machine, settings, Backoff(uniform))
        self._committing = asyncio.Lock()
        self._closed = False
        self._handing_out = HandingOut(self._machine, _parse)
        self._turn_left = _TURN_RECORDS

    def __aiter__(self) -> AsyncIterator[Record]:
        """Iterate over records; it ends at the end only with `stop_at_end`."""
        return self

    async def __anext__(self) -> Record:
        """Return the next record.

        Raises:
            StopAsyncIteration: the end was reached (`stop_at_end`).
            RiverrunError: a partition, or the consumer, cannot go on.
        """
        while (record := self._handing_out.one()) is None:
            view = await self._next_view()
            if view is None:
                raise StopAsyncIteration
            self._handing_out.take_apart(view)
        return record

    async def batches(self) -> AsyncIterator[RecordBatchView]:
        """Iterate over batches as they were produced: the fast path."""
        while True:
            view = self._handing_out.rest() or await self._next_view()
            if view is None:
                return
            self._handing_out.given(view)
            yield view

    async def getmany(self, max_records: int = 500, timeout_s: float | None = None) -> list[Record]:
        """Return up to `max_records` records; at least one, unless the time is up or the end came.

        Args:
            max_records: the most to return.
            timeout_s: how long to wait for the first; None is for ever, 0 is not at all.

        Raises:
            UsageError: `max_records` is below 1.
            RiverrunError: a partition, or the consumer, cannot go on.
        """
        if max_records < 1:
            raise UsageError(
                f"max_records is {max_records}; it must be at least 1",
                reason=Reason.INVALID_REQUEST,
            )
        if self._handing_out.empty:
            view = await self._view_within(timeout_s)
            if view is None:
                return []
            self._handing_out.take_apart(view)
        # From here on nothing waits: whoever cancels this call must not lose what was handed out.
        records: list[Record] = []
        while True:
            records += self._handing_out.some(max_records - len(records))
            if len(records) == max_records or not self._take_next_apart():
                return records

    async def seek(self, partition: TopicPartition, to: int | From) -> None:
        """Go elsewhere in one partition. What was read ahead from the old place is dropped.

        Raises:
            UsageError: the partition is not being read.
            RiverrunError: the broker refuses the place.
        """
        place = Offset(to) if isinstance(to, int) else to
        check_place(place, self._group)
        await self._reader(partition)
        self._handing_out.forget(partition)
        await self._loop.seek(partition, place)

    async def assignment(self) -> tuple[TopicPartition, ...]:
        """Return the partitions being read; waits until the broker has told them."""
        self._begin()
        while not self._machine.readers:
            self._check_end()
            await self._loop.change()
        return tuple(self._machine.readers)

    async def position(self, partition: TopicPartition) -> int:
        """Return the offset of the next record that will be returned.

        Raises:
            UsageError: the partition is not being read.
            OffsetOutOfRangeError: reading was to begin where the partition has nothing.
        """
        reader = await self._reader(partition)
        # Whether a place beyond the high watermark exists, the broker says when it looks there.
        while not reader.in_range and not reader.paused:
            if reader.error is not None:
                raise copy.copy(reader.error)
            self._check_end()
            await self._loop.change()
        return reader.position

    async def commit(
        self, offsets: Mapping[TopicPartition, int | CommittedOffset] | None = None
    ) -> None:
        """Store how far the group has come: the given offsets, else all positions.

        Raises:
            UsageError: the consumer has no group.
            RiverrunError: of the first partition that refused; the others may have been stored.
        """
        group = self._checked_group()
        if offsets is None:
            offsets = self._machine.positions()
        # Later ones must not be overtaken by earlier ones that are tried again.
        async with self._committing:
            await commit_group_offsets(self._connections, group, offsets, self._topic_ids())

    async def committed(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, CommittedOffset | None]:
        """Tell how far the group has come, by default in the partitions being read."""
        group = self._checked_group()
        asked = await self.assignment() if partitions is None else tuple(partitions)
        if not asked:
            return {}
        return await fetch_group_offsets(self._connections, group, asked, self._topic_ids())

    async def end_offsets(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Tell the high watermarks, by default of the partitions being read."""
        asked = await self.assignment() if partitions is None else partitions
        return await high_watermarks(self._connections, asked)

    async def offsets_for_times(
        self, times_ms: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """Find the first record whose timestamp is that or later; None where there is none."""
        return await offsets_at_times(self._connections, times_ms)

    def pause(self, partitions: Iterable[TopicPartition] = ()) -> None:
        """Stop returning records of these partitions; none named is all that are being read."""
        for reader in self._loop.pause(tuple(partitions) or tuple(self._machine.readers)):
            if self._handing_out.forget(reader.partition):
                reader.dropped = True

    def resume(self, partitions: Iterable[TopicPartition] = ()) -> None:
        """Go on with paused partitions; none named is all."""
        self._loop.resume(tuple(partitions) or tuple(self.paused()))

    def paused(self) -> frozenset[TopicPartition]:
        """Return the partitions that are paused."""
        return self._machine.paused

    async def close(self) -> None:
        """Let go of everything; nothing is committed. Safe to call twice."""
        self._closed = True
        self._released(self)
        await self._loop.close()
        # Whoever keeps the consumer need not keep what was read ahead.
        self._machine.ahead.clear()
        self._handing_out.clear()

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
        await self.close()

    # Taking batches.

    def _begin(self) -> None:
        if self._closed:
            raise ClosedError(
                "the consumer was closed; make a new one with Client.consumer()",
                reason=Reason.CLOSED,
            )
        self._loop.start()

    def _check_end(self) -> None:
        """Raise what nothing will come after."""
        if self._closed:
            raise ClosedError("the consumer was closed meanwhile", reason=Reason.CLOSED)
        error = self._machine.error or self._machine.all_failed
        if error is not None:
            # A copy: raised again and again, the same one would grow a traceback without end.
            raise copy.copy(error)

    async def _next_view(self) -> RecordBatchView | None:
        """Wait for the next batch that has records; None at the end."""
        self._begin()
        if self._turn_left < 0:
            self._turn_left = _TURN_RECORDS
            await asyncio.sleep(0)
        while True:
            view = self._view_at_hand()
            if view is not None:
                return view
            if self._machine.finished:
                return None
            self._check_end()
            await self._loop.change()

    async def _view_within(self, timeout_s: float | None) -> RecordBatchView | None:
        """Wait so long for the next batch."""
        if timeout_s == 0:
            self._begin()
            await asyncio.sleep(0)
            view = self._view_at_hand()
            if view is None and not self._machine.finished:
                self._check_end()
            return view
        try:
            async with asyncio.timeout(timeout_s):
                return await self._next_view()
        except TimeoutError:
            return None

    def _view_at_hand(self) -> RecordBatchView | None:
        """Take the next batch that has records, of those that are there."""
        view = self._handing_out.next_view()
        if view is not None:
            self._turn_left -= 1 + len(view)
        self._loop.credit_freed()
        return view

    def _take_next_apart(self) -> bool:
        """Begin with the next batch if one is there; an error waits for the next call."""
        try:
            view = self._view_at_hand()
            if view is not None:
                self._handing_out.take_apart(view)
        except RiverrunError as error:
            self._handing_out.postpone(error)
            return False
        return view is not None

    async def _reader(self, partition: TopicPartition) -> PartitionReader:
        read = await self.assignment()
        reader = self._machine.readers.get(partition)
        if reader is None:
            raise UsageError(
                f"{partition} is not being read; these are: {', '.join(map(str, read))}",
                reason=Reason.PARTITION_NOT_FOUND,
            )
        return reader

    def _topic_ids(self) -> dict[TopicPartition, bytes]:
        """Return the ids of the topics that are being read, whatever has their names by now."""
        return {place: reader.topic_id for place, reader in self._machine.readers.items()}

    def _checked_group(self) -> str:
        if not self._group:
            raise UsageError(
                "the consumer has no group; give it one: client.consumer(topic, group=...)",
                reason=Reason.INVALID_REQUEST,
            )
        return self._group


def _parse(data: bytes) -> Sequence[records_pb2.Record]:
    return records_pb2.RecordSet.FromString(data).records
