"""Read records, without async: one at a time, some at a time, or batches as they were produced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

import riverrun.consumer
from riverrun._core.records import (
    CommittedOffset,
    From,
    OffsetAndTimestamp,
    Record,
    TopicPartition,
)
from riverrun.blocking.direct import Direct
from riverrun.blocking.session import Session
from riverrun.consumer import RecordBatchView
from riverrun.errors import RiverrunError


class Consumer:
    """Reads records, from `Client.consumer()`; a context manager and iterator.

    Everything that `riverrun.Consumer` promises holds here. Threads may share a consumer: each record
    goes to one of them.

    Example:
        with client.consumer("orders", stop_at_end=True) as consumer:
            for record in consumer:
                print(record.offset, record.value)
    """

    def __init__(
        self, session: Session, consumer: riverrun.consumer.Consumer, owner: object
    ) -> None:
        self._session = session
        self._consumer = consumer
        # Whoever has a consumer has its client, which is not closed as forgotten.
        self._owner = owner
        self._direct = Direct(session.thread)
        session.directs.add(self._direct)
        self._call = self._direct.call
        self._going_back: set[asyncio.Future[None]] = set()
        self._handing_out = consumer._handing_out  # noqa: SLF001 - two faces of one consumer

    def __iter__(self) -> Iterator[Record]:
        """Iterate over records; it ends at the end only with `stop_at_end`."""
        return self

    def __next__(self) -> Record:
        """Return the next record.

        Raises:
            StopIteration: the end was reached (`stop_at_end`).
            RiverrunError: a partition, or the consumer, cannot go on.
        """
        direct = self._direct
        if direct.thread.is_forked:
            direct.thread.check()
        record: Record | None = None
        try:
            with direct.lock:
                # A record of a batch that is open comes without a wait, so the loop is not needed.
                if direct.on and not self._handing_out.empty:
                    try:
                        self._consumer.__anext__().send(None)
                    except StopIteration as done:
                        record = done.value
        except BaseException:
            if record is not None:
                direct.thread.post(partial(self._put_records_back, [record]))
            raise
        return record or self._next_on_loop()

    def batches(self) -> Iterator[RecordBatchView]:
        """Iterate over batches as they were produced: the fast path.

        Example:
            for batch in consumer.batches():
                print(batch.partition, len(batch), batch.values()[0])
        """
        batches = self._consumer.batches()

        async def next_batch() -> RecordBatchView:
            await self._gone_back()
            return await anext(batches)

        def put_back(batch: RecordBatchView) -> None:
            self._put_back({TopicPartition(batch.topic, batch.partition): batch.offsets[0]})

        while True:
            try:
                yield self._direct.take(next_batch, put_back)
            except StopAsyncIteration:
                return

    def getmany(self, max_records: int = 500, timeout_s: float | None = None) -> list[Record]:
        """Return up to `max_records` records; at least one, unless the time is up or the end came.

        Args:
            max_records: the most to return.
            timeout_s: how long to wait for the first; None is for ever, 0 is not at all.

        Raises:
            UsageError: `max_records` is below 1.
            RiverrunError: a partition, or the consumer, cannot go on.

        Example:
            records = consumer.getmany(100, timeout_s=1)
        """
        began_s = time.monotonic()

        async def getmany() -> list[Record]:
            await self._gone_back()
            waited_s = time.monotonic() - began_s
            left_s = timeout_s and max(0.0, timeout_s - waited_s)
            return await self._consumer.getmany(max_records, left_s)

        try:
            return self._direct.take(getmany, self._put_records_back, turn_s=timeout_s)
        except TimeoutError:
            return []

    def seek(self, partition: TopicPartition, to: int | From) -> None:
        """Go elsewhere in one partition. What was read ahead from the old place is dropped.

        Raises:
            UsageError: the partition is not being read.
            RiverrunError: the broker refuses the place.

        Example:
            consumer.seek(riverrun.TopicPartition("orders", 0), riverrun.Last(1))
        """
        self._call(lambda: self._consumer.seek(partition, to))

    def assignment(self) -> tuple[TopicPartition, ...]:
        """Return the partitions being read; waits until the broker has told them.

        Example:
            for topic, partition in consumer.assignment():
                print(topic, partition)
        """
        return self._call(self._consumer.assignment)

    def position(self, partition: TopicPartition) -> int:
        """Return the offset of the next record that will be returned.

        Raises:
            UsageError: the partition is not being read.
            OffsetOutOfRangeError: reading was to begin where the partition has nothing.

        Example:
            consumer.position(riverrun.TopicPartition("orders", 0))
        """
        return self._call(lambda: self._consumer.position(partition))

    def commit(self, offsets: Mapping[TopicPartition, int | CommittedOffset] | None = None) -> None:
        """Store how far the group has come: the given offsets, else all positions.

        Raises:
            UsageError: the consumer has no group.
            RiverrunError: of the first partition that refused; the others may have been stored.

        Example:
            with client.consumer("orders", group="billing") as consumer:
                for record in consumer.getmany(100, timeout_s=5):
                    print(record.value)
                consumer.commit()
        """
        self._call(lambda: self._consumer.commit(offsets))

    def committed(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, CommittedOffset | None]:
        """Tell how far the group has come, by default in the partitions being read.

        Example:
            with client.consumer("orders", group="billing") as consumer:
                print(consumer.committed())
        """
        return self._call(lambda: self._consumer.committed(partitions))

    def end_offsets(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Tell the high watermarks, by default of the partitions being read.

        Example:
            consumer.end_offsets()
        """
        return self._call(lambda: self._consumer.end_offsets(partitions))

    def offsets_for_times(
        self, times_ms: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """Find the first record whose timestamp is that or later; None where there is none.

        Example:
            an_hour_ago_ms = int((time.time() - 3600) * 1000)
            place = riverrun.TopicPartition("orders", 0)
            found = consumer.offsets_for_times({place: an_hour_ago_ms})
        """
        return self._call(lambda: self._consumer.offsets_for_times(times_ms))

    def pause(self, partitions: Iterable[TopicPartition] = ()) -> None:
        """Stop returning records of these partitions; none named is all that are being read.

        Example:
            consumer.pause([riverrun.TopicPartition("orders", 0)])
        """

        async def pause() -> None:
            self._consumer.pause(partitions)

        self._call(pause)

    def resume(self, partitions: Iterable[TopicPartition] = ()) -> None:
        """Go on with paused partitions; none named is all.

        Example:
            consumer.resume()
        """

        async def resume() -> None:
            self._consumer.resume(partitions)

        self._call(resume)

    def paused(self) -> frozenset[TopicPartition]:
        """Return the partitions that are paused.

        Example:
            consumer.paused()
        """

        async def paused() -> frozenset[TopicPartition]:
            return self._consumer.paused()

        return self._call(paused)

    def close(self) -> None:
        """Let go of everything; nothing is committed. Safe to call twice.

        Example:
            consumer = client.consumer("orders")
            consumer.close()
        """
        if not self._session.lifetime.ended:
            self._call(self._consumer.close)

    def __enter__(self) -> Self:
        """Return the consumer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _next_on_loop(self) -> Record:
        async def next_record() -> Record:
            await self._gone_back()
            return await self._consumer.__anext__()

        def put_back(record: Record) -> None:
            self._put_records_back([record])

        try:
            return self._direct.take(next_record, put_back, then_on=True)
        except StopAsyncIteration:
            raise StopIteration from None

    # What was handed out and not taken, because whoever waited for it was interrupted.

    def _put_records_back(self, records: Sequence[Record]) -> None:
        places: dict[TopicPartition, int] = {}
        for record in records:
            places.setdefault(TopicPartition(record.topic, record.partition), record.offset)
        self._put_back(places)

    def _put_back(self, places: Mapping[TopicPartition, int]) -> None:
        """Go back there; until the broker has answered, these positions are not committed."""
        for partition, offset in places.items():
            self._direct.begin()
            going = asyncio.ensure_future(self._go_back(partition, offset))
            self._going_back.add(going)
            going.add_done_callback(self._going_back.discard)

    async def _gone_back(self) -> None:
        """Wait before records are taken: a later place would be where the next way back leads."""
        while self._going_back:
            await asyncio.wait(self._going_back)

    async def _go_back(self, partition: TopicPartition, offset: int) -> None:
        try:
            await self._consumer.seek(partition, offset)
        except RiverrunError:
            # The next call tells what is wrong with this partition.
            return
        finally:
            self._direct.end()
