"""Write records: one at a time with its acknowledgement, or many at full speed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeAlias, TypedDict, cast

from riverrun._core.argument_checks import (
    INT32_MAX,
    check_callable,
    check_records,
    check_timeout,
    check_topic,
    whole_number,
)
from riverrun._core.chunks import Chunk, Chunker, Sendable
from riverrun._core.codecs import Compression
from riverrun._core.encoding import size_bound
from riverrun._core.headers import own_headers
from riverrun._core.outgoing import OutgoingBatch
from riverrun._core.partitioner import Partitioner, PartitionerName
from riverrun._core.producer_statistics import ProducerStatistics
from riverrun._core.records import Headers, RecordMetadata, SendSummary, TopicPartition
from riverrun._core.row_checks import check_row, check_size
from riverrun._core.serializing import Item, RecordSerializer
from riverrun._core.type_parameters import K, V
from riverrun._net.delivery_reports import OnDelivery
from riverrun._net.feeding import RunSource, feed
from riverrun._net.produce_engine import ProduceEngine, Submission, now_ms
from riverrun._net.produce_settings import ProducerConfig
from riverrun._net.receipts import Tally, TallyReceipt
from riverrun.errors import RiverrunError, TimedOutError, UsageError

Acks: TypeAlias = Literal["all", "leader", "none"]

__all__ = ["Acks", "Compression", "Item", "OnDelivery", "Producer", "ProducerOptions", "Sendable"]

# An async iterable's records go out when the next one is longer away than this, linger or not.
_PAUSE_S = 0.005
# After an exception in the block, the records before it still have this long to be acknowledged.
_HURRIED_FLUSH_S = 5.0


class ProducerOptions(TypedDict, total=False):
    """What `Client.producer` takes beside serializers; it explains them."""

    acks: Acks
    idempotent: bool
    compression: Compression
    linger_s: float
    batch_bytes: int
    buffer_bytes: int
    delivery_timeout_s: float
    partitioner: PartitionerName | Partitioner
    on_delivery: OnDelivery | None


class Producer(Generic[K, V]):
    """Writes records, from `Client.producer()`; an async context manager.

    Records of one partition keep the order in which they were given, also through broken
    connections, and with `idempotent` (the default) each stands in its partition once. A batch that
    the broker refuses fails alone. Where nobody knows whether a batch was written, it fails so, and
    with it all that was given behind it for the same partition: nothing overtakes.

    What the methods raise says whether the outcome is known (`RiverrunError.outcome_known`).

    Example:
        async with client.producer() as producer:
            await producer.send("orders", b"2 apples", key=b"anna")
    """

    def __init__(
        self,
        engine: ProduceEngine,
        config: ProducerConfig,
        released: Callable[[Producer[Any, Any]], None],
        *,
        on_delivery: OnDelivery | None = None,
        serializer: RecordSerializer[K, V],
    ) -> None:
        check_callable("on_delivery", on_delivery)
        self._engine = engine
        self._on_delivery = on_delivery
        self._serializer = serializer
        self._released = released
        self._config = config

    async def send(
        self,
        topic: str,
        value: V | None,
        *,
        key: K | None = None,
        partition: int | None = None,
        headers: Headers | Mapping[str, bytes] = (),
        timestamp_ms: int | None = None,
    ) -> RecordMetadata:
        """Write one record and wait until it is acknowledged.

        Waits for room in the buffer first. Many concurrent calls share batches.

        Args:
            topic: where to.
            value: the payload; None is a tombstone, which is not the same as empty.
            key: equal keys go to one partition, unless the partitioner says otherwise.
            partition: where to in the topic, whatever the partitioner says.
            headers: anything else that travels with the record, as pairs or a mapping; they are copied.
            timestamp_ms: when it happened, in ms since 1970, not below 0; None is now.

        Raises:
            TopicNotFoundError: no such topic or partition.
            TimedOutError: no room within the delivery timeout, or then no acknowledgement.
            UsageError: it cannot be serialized, or the broker refuses it; nothing was written.

        Example:
            place = await producer.send("orders", b"2 apples", key=b"anna")
            print(place.partition, place.offset)
        """
        submission = self._checked(topic, value, key, partition, headers, timestamp_ms, None)
        future = await self._engine.take_in_turn(submission)
        return await future

    def send_nowait(
        self,
        topic: str,
        value: V | None,
        *,
        key: K | None = None,
        partition: int | None = None,
        headers: Headers | Mapping[str, bytes] = (),
        timestamp_ms: int | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        """Take one record to be written, and return a future of its acknowledgement.

        Never waits. Pair it with `drain()`, as with asyncio's streams. A future that fails and is never
        asked is logged by asyncio when it is let go, unless its record has an `on_delivery`, which
        was told then.

        Args:
            topic: where to.
            value: the payload; None is a tombstone, which is not the same as empty.
            key: as for `send`.
            partition: where to in the topic, whatever the partitioner says.
            headers: anything else that travels with the record, as pairs or a mapping; they are copied.
            timestamp_ms: when it happened, in ms since 1970, not below 0; None is now.
            on_delivery: called once of every record that was taken, on the event loop, with (None,
                metadata) or (error, None): in the order of the acknowledgements, so in that of the
                records of a partition, and before a `flush` returns that waits for them. What it
                raises is logged and goes no further. None is the producer's own, if it has one.

        Raises:
            BufferFullError: the buffer has no room; `await producer.drain()` and call again.
            ClosedError: the producer was closed.
            UsageError: the record is nothing that can be sent.

        Example:
            def told(error, metadata):
                print(error or f"written at offset {metadata.offset}")

            for number in range(10):
                producer.send_nowait("orders", b"%d melons" % number, on_delivery=told)
                await producer.drain()
        """
        check_callable("on_delivery", on_delivery)
        told = self._on_delivery if on_delivery is None else on_delivery
        return self._engine.take(
            self._checked(topic, value, key, partition, headers, timestamp_ms, told)
        )

    async def drain(self) -> None:
        """Wait until the buffer has room for another batch, and for the record that it refused last.

        Example:
            for number in range(1000):
                producer.send_nowait("orders", b"%d" % number)
                await producer.drain()
        """
        await self._engine.room(self._config.batch_bytes)

    async def send_many(
        self,
        topic: str,
        records: Iterable[Item[K, V]] | AsyncIterable[Item[K, V]],
        *,
        partition: int | None = None,
    ) -> SendSummary:
        """Write all records and wait until they are acknowledged: the fast path.

        Whole batches are taken from `records`, encoded at once and sent while the next are made; no
        more is read ahead than the buffer holds. Records without a timestamp carry that of their
        batch's making. Records without a key fill one partition's batch, then another's.

        Args:
            topic: where to.
            records: values, (key, value) pairs, or `NewRecord`s and `Record`s. A pair is a tuple of
                two, so a value that is itself a tuple stands in a `NewRecord`. A plain iterable is
                read on the event loop, so it must not block. What an async iterable has yielded goes
                out when it pauses.
            partition: where to in the topic, whatever the keys say.

        Raises:
            UsageError: an item is nothing that can be sent; what came before it in its partition
                is written, what came behind it there is not.
            RiverrunError: of the first batch that failed; `acknowledged_records` says how many
                were written all the same, and `acknowledged_first` how many of them from the first
                on, where one partition took them all.

        Example:
            summary = await producer.send_many("orders", (b"%d pears" % n for n in range(1000)))
            print(summary.records, "records in", summary.batches, "batches")
        """
        _check_place(topic, partition)
        if not isinstance(records, RunSource):
            check_records(records, or_async=True)
        self._engine.check_open()
        await self._engine.known_topic(topic, partition)
        tally = Tally(topic)
        route = self._engine.machine.route(topic)
        in_order = partition is not None or (route is not None and route.partitions == 1)
        chunker = self._chunker(topic, partition)
        unsendable: list[UsageError] = []
        source = self._serialized(topic, records, unsendable)
        pause_s = max(self._config.linger_s, _PAUSE_S)
        try:
            async with aclosing(feed(source, chunker.wanted, pause_s)) as runs:
                async for items, pause in runs:
                    await self._submit(tally, chunker.feed(items))
                    # Many partitions gather for long; what is ready is sent meanwhile.
                    await asyncio.sleep(0)
                    if pause:
                        await self._submit(tally, chunker.drain())
                    if tally.error is not None:
                        break
            if unsendable:
                raise unsendable[0]
            if tally.error is None:
                await self._submit(tally, chunker.drain())
        except RiverrunError as error:
            if not isinstance(error, TimedOutError):
                # What was given before it is sent, and counts; for a timeout there is no room for it.
                with suppress(RiverrunError):
                    await self._submit(tally, chunker.drain())
            await tally.settled()
            raise tally.told(error, in_order=in_order) from error.__cause__
        await tally.settled()
        if tally.error is not None:
            raise tally.told(tally.error, in_order=in_order)
        return tally.summary()

    def statistics(self) -> ProducerStatistics:
        """Tell what the producer has done since it was made; cheap enough to ask for every second.

        It can be asked after `close` too.

        Example:
            await producer.send_many("orders", [b"1", b"2", b"3"])
            told = producer.statistics()
            print(told.records_acknowledged, told.retries)
            print(f"{told.acknowledgement_time.p99_s * 1000:.1f} ms")
        """
        return self._engine.statistics()

    async def flush(self) -> None:
        """Wait until every record taken so far is acknowledged or has failed.

        Failures are told by the calls and futures of the records themselves.

        Example:
            futures = [producer.send_nowait("orders", b"%d" % n) for n in range(10)]
            await producer.flush()
            print([future.result().offset for future in futures])
        """
        await self._engine.flush()

    async def close(self, *, timeout_s: float | None = None) -> None:
        """Flush, then let go of everything. Safe to call twice.

        Args:
            timeout_s: give up flushing after that; what is left fails with `ClosedError`. None
                waits as long as the delivery timeout lets it take.

        Example:
            producer = client.producer()
            await producer.close(timeout_s=5)
        """
        check_timeout(timeout_s)
        try:
            await self._engine.close(timeout_s)
        finally:
            self._released(self)

    async def __aenter__(self) -> Self:
        """Return the producer itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; after an exception flush for at most five seconds."""
        await self.close(timeout_s=None if error is None else _HURRIED_FLUSH_S)

    def _checked(
        self,
        topic: str,
        value: V | None,
        key: K | None,
        partition: int | None,
        headers: Headers | Mapping[str, bytes],
        timestamp_ms: int | None,
        on_delivery: OnDelivery | None,
    ) -> Submission:
        """Serialize and check a record's parts, while its sender can still be told."""
        _check_place(topic, partition)
        data = self._serializer.value(topic, value)
        key_data = self._serializer.key(topic, key)
        own = own_headers(headers)
        row = (key_data, data, now_ms() if timestamp_ms is None else timestamp_ms, own)
        check_row(row)
        size_bytes = size_bound(key_data, data, own)
        check_size(size_bytes)
        return Submission(topic, partition, row, size_bytes, on_delivery)

    def _serialized(
        self,
        topic: str,
        records: Iterable[Item[K, V]] | AsyncIterable[Item[K, V]],
        refused: list[UsageError],
    ) -> Iterable[Sendable] | AsyncIterable[Sendable]:
        serializer = self._serializer
        if serializer.is_plain:
            return cast("Iterable[Sendable] | AsyncIterable[Sendable]", records)
        if isinstance(records, AsyncIterable):
            return serializer.each_of_async(topic, records, refused)
        return serializer.each(topic, records, refused)

    def _chunker(self, topic: str, partition: int | None) -> Chunker:
        machine = self._engine.machine
        route = machine.route(topic)
        assert route is not None, "the topic is known"
        return Chunker(
            route,
            partition=partition,
            batch_bytes=self._config.batch_bytes,
            limit_bytes=lambda number: machine.limit_bytes(TopicPartition(topic, number)),
            hold_bytes=self._config.buffer_bytes // 2,
            now_ms=now_ms,
        )

    async def _submit(self, tally: Tally, chunks: Iterable[Chunk]) -> None:
        """Send encoded batches, each once the buffer has room for it."""
        loop = asyncio.get_running_loop()
        for chunk in chunks:
            size_bytes = len(chunk.records)
            await self._engine.reserve(size_bytes)
            now_s = loop.time()
            self._engine.submit(
                OutgoingBatch(
                    partition=TopicPartition(tally.topic, chunk.partition),
                    records=chunk.records,
                    record_count=chunk.record_count,
                    first_timestamp_ms=chunk.first_timestamp_ms,
                    max_timestamp_ms=chunk.max_timestamp_ms,
                    deadline_s=now_s + self._config.delivery_timeout_s,
                    reserved_bytes=size_bytes,
                    receipt=TallyReceipt(tally, chunk.partition, chunk.record_count, size_bytes),
                    accepted_s=now_s,
                )
            )


def _check_place(topic: str, partition: int | None) -> None:
    check_topic(topic)
    # Nearly all are plain ints, and this is done for every record.
    if partition is not None and not (type(partition) is int and 0 <= partition <= INT32_MAX):
        whole_number(
            "partition", partition, 0, INT32_MAX, expected="a whole number from 0, or None"
        )
