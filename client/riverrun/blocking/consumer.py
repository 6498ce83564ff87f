"""Read records, without async: one at a time, some at a time, or batches as they were produced."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeAlias, TypeVar

import riverrun.consumer
from riverrun._core.argument_checks import check_timeout, whole_number
from riverrun._core.partition_reader import Taken
from riverrun._core.put_back import Given
from riverrun._core.reader_statistics import ConsumerStatistics
from riverrun._core.records import CommittedOffset, Record, TopicPartition
from riverrun._core.type_parameters import K, V
from riverrun.blocking.consumer_positions import ConsumerPositions
from riverrun.blocking.direct import Direct
from riverrun.blocking.hands import Hands, Places, first_places
from riverrun.blocking.session import Session
from riverrun.consumer import RecordBatchView
from riverrun.v1 import records_pb2

R = TypeVar("R")
WireGiven: TypeAlias = Given[records_pb2.RecordBatch]


class _Handed(NamedTuple, Generic[R]):
    """What goes to a thread, what it has in hand then, and what to put back should it never get there."""

    result: R
    thread: threading.Thread
    held: Record[Any, Any] | Places
    given: Sequence[WireGiven]


class Consumer(ConsumerPositions, Generic[K, V]):
    """Reads records, from `Client.consumer()`; a context manager and iterator.

    Everything that `riverrun.Consumer` promises holds here. Threads may share a consumer: each record
    goes to one of them. With `commit="auto"` a record is finished with when the thread that got it
    asks for more; of a thread that has ended without doing so, when the `with` block is left without
    an exception.

    Example:
        with client.consumer("orders", stop_at_end=True) as consumer:
            for record in consumer:
                print(record.offset, record.value)
    """

    def __init__(
        self,
        session: Session,
        consumer: riverrun.consumer.Consumer[K, V],
        owner: object,
        *,
        keeps_hands: bool,
    ) -> None:
        self._session = session
        self._consumer = consumer
        # Whoever has a consumer has its client, which is not closed as forgotten.
        self._owner = owner
        self._direct = Direct(session.thread)
        super().__init__(consumer, self._direct)
        session.directs.add(self._direct)
        self._handing_out = consumer._handing_out  # noqa: SLF001 - two faces of one consumer
        self._hands: Hands | None = None
        if keeps_hands:
            self._hands = Hands(self._direct.lock)
            self._handing_out.held = self._hands.places

    def __iter__(self) -> Iterator[Record[K, V]]:
        """Iterate over records; it ends at the end only with `stop_at_end`."""
        return self

    def __next__(self) -> Record[K, V]:
        """Return the next record.

        Raises:
            StopIteration: the end was reached (`stop_at_end`).
            DeserializationError: the next record's key or value is not what it should be.
            RiverrunError: a partition, or the consumer, cannot go on.
        """
        direct = self._direct
        if direct.thread.is_forked:
            direct.thread.check()
        record: Record[K, V] | None = None
        try:
            with direct.lock:
                # A record that is ready comes without a wait, so the loop is not needed.
                if direct.on:
                    handing_out = self._handing_out
                    index, batch, seeks = handing_out.index, handing_out.taken, handing_out.seeks
                    try:
                        record = handing_out.one()
                        if record is not None and self._hands is not None:
                            self._hands.hold(threading.current_thread(), record)
                    except BaseException:
                        # With the lock held nobody has taken anything since.
                        record = None
                        handing_out.undo(index)
                        raise
        except BaseException:
            if record is not None and batch is not None:
                thread = threading.current_thread()
                direct.put_back(partial(self._put_one_back, thread, batch, record, seeks))
            raise
        return record or self._next_on_loop()

    def batches(self) -> Iterator[RecordBatchView]:
        """Iterate over batches as they were produced: the fast path.

        Keys and values are bytes here, whatever the deserializers. A batch is finished with when
        the next one is asked for.

        Raises:
            RiverrunError: a partition, or the consumer, cannot go on.

        Example:
            for batch in consumer.batches():
                print(batch.partition, len(batch), batch.values()[0])
        """
        batches = self._consumer.batches()

        async def next_batch(thread: threading.Thread) -> _Handed[RecordBatchView]:
            batch = await anext(batches)
            place = TopicPartition(batch.topic, batch.partition)
            return self._handed(batch, thread, {place: batch.offsets[0]})

        while True:
            thread = self._asked()
            try:
                yield self._direct.take(partial(next_batch, thread), self._put_back).result
            except StopAsyncIteration:
                return

    def getmany(self, max_records: int = 500, timeout_s: float | None = None) -> list[Record[K, V]]:
        """Return from one to `max_records` records; none where the time is up or the end came.

        It waits for the first only, and returns what is there then: not exactly so many, and fewer where
        the others would have to be waited for. A loop gathers a number.

        Args:
            max_records: the most to return.
            timeout_s: how long to wait for the first; None is for ever, 0 is not at all.

        Raises:
            UsageError: `max_records` is no number from 1, or `timeout_s` none from 0.
            DeserializationError: the next record's key or value is not what it should be.
            RiverrunError: a partition, or the consumer, cannot go on.

        Example:
            records = consumer.getmany(100, timeout_s=1)
        """
        whole_number("max_records", max_records, 1)
        check_timeout(timeout_s)
        began_s = time.monotonic()
        thread = self._asked()

        async def getmany() -> _Handed[list[Record[K, V]]]:
            waited_s = time.monotonic() - began_s
            left_s = timeout_s and max(0.0, timeout_s - waited_s)
            records = await self._consumer.getmany(max_records, left_s)
            return self._handed(records, thread, first_places(records))

        try:
            return self._direct.take(getmany, self._put_back, turn_s=timeout_s).result
        except TimeoutError:
            return []

    def commit(self, offsets: Mapping[TopicPartition, int | CommittedOffset] | None = None) -> None:
        """Store how far the group has come: the given offsets, else all positions.

        With `commit="auto"` a call without offsets says that the calling thread is through with what it
        has; `riverrun.Consumer.commit` has more about each mode.

        Raises:
            UsageError: the consumer has no group.
            RiverrunError: of the first partition that refused; the others may have been stored.

        Example:
            with client.consumer("orders", group="billing") as consumer:
                for record in consumer.getmany(100, timeout_s=5):
                    print(record.value)
                consumer.commit()
        """
        thread = threading.current_thread()

        async def commit() -> None:
            if offsets is None or (hands := self._hands) is None:
                await self._consumer.commit(offsets)
            else:
                await self._consumer._commit_named(  # noqa: SLF001 - two faces of one consumer
                    offsets, lambda stored: hands.committed(thread, stored)
                )

        if offsets is None:
            self._asked()
        self._call(commit)

    def committed(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, CommittedOffset | None]:
        """Tell how far the group has come, by default in the partitions being read.

        Example:
            with client.consumer("orders", group="billing") as consumer:
                print(consumer.committed())
        """
        return self._call(lambda: self._consumer.committed(partitions))

    def process(self, handler: Callable[[Record[K, V]], object], *, concurrency: int = 16) -> None:
        """Work on records side by side; each on a thread, all else is as `riverrun.Consumer.process` has it.

        Args:
            handler: works on one record, on a thread of its own.
            concurrency: how many at a time.

        Raises:
            UsageError: `concurrency` is no number from 1, or `commit` is "at_most_once".
            RiverrunError: a partition, or the consumer, cannot go on.
            Exception: what the first handler that failed has raised.

        Example:
            def charge(record):
                print(record.key, record.value)

            with client.consumer("orders", group="billing", commit="auto", stop_at_end=True) as consumer:
                consumer.process(charge, concurrency=8)
        """
        whole_number("concurrency", concurrency, 1)
        with ThreadPoolExecutor(concurrency, thread_name_prefix="riverrun-process") as threads:

            async def work(record: Record[K, V]) -> None:
                await asyncio.get_running_loop().run_in_executor(threads, handler, record)

            self._call(lambda: self._consumer.process(work, concurrency=concurrency))

    def statistics(self) -> ConsumerStatistics:
        """Return what has been done since the consumer was made; it asks nobody and costs little.

        All numbers are those of this consumer alone. It can be asked after `close` too.

        Example:
            records = consumer.getmany(100, timeout_s=5)
            print(consumer.statistics().records, consumer.statistics().lag_records)
        """
        return self._session.ask(self._consumer.statistics)

    def close(self, *, timeout_s: float | None = None) -> None:
        """Let go of everything; with `commit="auto"` first commit what is finished. Safe to call twice.

        What was returned last counts as finished only where the application has asked for more. Leaving
        the consumer's `with` block without an exception says so too; `close` alone does not, for it
        may be called because something went wrong. `contextlib.closing` works as well.

        Args:
            timeout_s: give up committing after that; None waits as long as the client's
                `connect_timeout_s` and `request_timeout_s` let it take.

        Raises:
            TimedOutError: the last commit had no answer in time, and may have been stored.
            RiverrunError: what was left to commit could not be committed; all else is closed.

        Example:
            consumer = client.consumer("orders")
            records = consumer.getmany(timeout_s=1)
            consumer.close(timeout_s=5)
        """
        if not self._session.lifetime.ended:
            check_timeout(timeout_s)
            self._call(lambda: self._consumer.close(timeout_s=timeout_s))

    def __enter__(self) -> Self:
        """Return the consumer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; without an exception what was returned last is finished with."""
        if error is None and self._hands is not None:
            self._hands.finish()
        if not self._session.lifetime.ended:
            self._call(lambda: self._consumer.__aexit__(kind, error, trace))

    def _next_on_loop(self) -> Record[K, V]:
        thread = self._asked()

        async def next_record() -> _Handed[Record[K, V]]:
            record = await self._consumer.__anext__()
            batch = self._handing_out.taken
            assert batch is not None, "it was taken from somewhere"
            given = [self._handing_out.given_one(batch, record, self._handing_out.seeks)]
            return self._handed(record, thread, first_places([record]), given)

        try:
            return self._direct.take(next_record, self._put_back, then_on=True).result
        except StopAsyncIteration:
            raise StopIteration from None

    # What is in which thread's hand.

    def _asked(self) -> threading.Thread:
        thread = threading.current_thread()
        if self._hands is not None:
            self._hands.asked(thread)
        return thread

    def _handed(
        self,
        result: R,
        thread: threading.Thread,
        places: Places,
        given: Sequence[WireGiven] | None = None,
    ) -> _Handed[R]:
        """Note what a thread is going to have in hand."""
        if self._hands is not None:
            with self._direct.lock:
                self._hands.hold(thread, places)
        given = self._handing_out.given_by_call() if given is None else given
        return _Handed(result, thread, places, given)

    # What was handed out and not taken, because whoever waited for it was interrupted.

    def _put_back(self, handed: _Handed[Any]) -> None:
        self._consumer._put_back(handed.given)  # noqa: SLF001 - two faces of one consumer
        if self._hands is not None:
            self._hands.put_back(handed.thread, handed.held)

    def _put_one_back(
        self,
        thread: threading.Thread,
        batch: Taken[records_pb2.RecordBatch],
        record: Record[K, V],
        seeks: int,
    ) -> None:
        given = self._handing_out.given_one(batch, record, seeks)
        self._put_back(_Handed(record, thread, record, [given]))
