"""Write records, without async: one at a time with its acknowledgement, or many at full speed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Generic, Self, cast

import riverrun.producer
from riverrun._core.argument_checks import check_records, check_timeout
from riverrun._core.encoding import Row, size_bound
from riverrun._core.headers import own_headers
from riverrun._core.producer_statistics import ProducerStatistics
from riverrun._core.records import Headers, RecordMetadata, SendSummary
from riverrun._core.row_checks import check_row, check_size
from riverrun._core.serializing import Item, RecordSerializer
from riverrun._core.type_parameters import K, V
from riverrun._net.delivery_reports import OnDelivery
from riverrun.blocking.calls import Call
from riverrun.blocking.handover import Handover
from riverrun.blocking.send_queue import Acknowledgement, SendQueue, Take
from riverrun.blocking.session import Session
from riverrun.errors import ClosedError, UsageError
from riverrun.producer import Sendable

# After an exception in the block, the records before it still have this long to be acknowledged.
_HURRIED_FLUSH_S = 5.0


class Producer(Generic[K, V]):
    """Writes records, from `Client.producer()`; a context manager.

    Everything that `riverrun.Producer` promises holds here. Threads may share a producer, and share
    batches by that; the records of each thread keep their order. Serializers are called in the thread
    that sends, a partitioner and `on_delivery` on the client's.

    Example:
        with client.producer() as producer:
            producer.send("orders", b"2 apples", key=b"anna")
    """

    def __init__(
        self,
        session: Session,
        producer: riverrun.producer.Producer[bytes, bytes],
        buffer_bytes: int,
        owner: object,
        *,
        on_delivery: OnDelivery | None,
        serializer: RecordSerializer[K, V],
    ) -> None:
        self._session = session
        self._thread = session.thread
        self._producer = producer
        # Whoever has a producer has its client, which is not closed as forgotten.
        self._owner = owner
        self._on_delivery = on_delivery
        self._serializer = serializer
        engine = producer._engine  # noqa: SLF001 - two faces of one producer
        self._queue = SendQueue(session.thread, engine, buffer_bytes)
        session.queues.add(self._queue)

    def send(
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

        Waits for room in the buffer first. Calls of several threads share batches.

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
            place = producer.send("orders", b"2 apples", key=b"anna")
            print(place.partition, place.offset)
        """
        self._thread.check()
        row = self._row(topic, value, key, headers, timestamp_ms)
        take = self._take(topic, row, partition, timestamp_ms, None)
        try:
            return self._queue.put(take, _checked_size(row) or 0, awaited=True).result()
        except ClosedError as error:
            self._thread.park_at_exit(error)
            raise

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
    ) -> Future[RecordMetadata]:
        """Take one record to be written, and return a future of its acknowledgement.

        Does not wait for the broker. The future cannot be cancelled; one that fails and is never asked
        is logged when it is let go, unless its record has an `on_delivery`, which was told then. Its
        callbacks run on the client's thread and must not block. A callback may call this method.

        Args:
            topic: where to.
            value: the payload; None is a tombstone, which is not the same as empty.
            key: as for `send`.
            partition: where to in the topic, whatever the partitioner says.
            headers: anything else that travels with the record, as pairs or a mapping; they are copied.
            timestamp_ms: when it happened, in ms since 1970, not below 0; None is now.
            on_delivery: called once of every record that was taken, on the client's thread, where it
                must not block, with (None, metadata) or (error, None): in the order of the
                acknowledgements, so in that of the records of a partition, and before a `flush`
                returns that waits for them. What it raises is logged and goes no further. None is
                the producer's own, if it has one.

        Raises:
            BufferFullError: the buffer has no room; `producer.drain()` and call again.
            ClosedError: the producer was closed.
            UsageError: the record is nothing that can be sent.

        Example:
            def told(error, metadata):
                print(error or f"written at offset {metadata.offset}")

            for number in range(10):
                producer.send_nowait("orders", b"%d melons" % number, on_delivery=told)
                producer.drain()
        """
        told = self._on_delivery if on_delivery is None else on_delivery
        row = self._row(topic, value, key, headers, timestamp_ms)
        take = self._take(topic, row, partition, timestamp_ms, told)
        size_bytes = _checked_size(row)
        if self._thread.is_current:
            return self._queue.put_now(take, size_bytes or 0, told)
        self._thread.check()
        is_place = bool(topic) and (partition is None or partition >= 0)
        if is_place and size_bytes is not None and self._queue.has_room(size_bytes):
            return self._queue.put(take, size_bytes, on_delivery=told)

        # Whatever is not certain, or certainly wrong, the loop decides before this returns.
        async def put_now() -> Acknowledgement:
            return self._queue.put_now(take, size_bytes or 0, told)

        return self._thread.call(put_now)

    def drain(self) -> None:
        """Wait until the buffer has room for another batch, and for the record that it refused last.

        Example:
            for number in range(1000):
                producer.send_nowait("orders", b"%d" % number)
                producer.drain()
        """

        async def drain() -> None:
            await self._queue.taken()
            await self._producer.drain()

        self._thread.call(drain)

    def send_many(
        self,
        topic: str,
        records: Iterable[Item[K, V]],
        *,
        partition: int | None = None,
    ) -> SendSummary:
        """Write all records and wait until they are acknowledged: the fast path.

        `records` is read in the calling thread, so it may block; what it has yielded goes out when it
        pauses. Whole batches are encoded at once and sent while the next are made. Records without a
        timestamp carry that of their batch's making. Records without a key fill one partition's batch,
        then another's.

        Args:
            topic: where to.
            records: values, (key, value) pairs, or `NewRecord`s and `Record`s. A pair is a tuple of
                two, so a value that is itself a tuple stands in a `NewRecord`.
            partition: where to in the topic, whatever the keys say.

        Raises:
            UsageError: an item is nothing that can be sent; what came before it in its partition
                is written, what came behind it there is not.
            RiverrunError: of the first batch that failed; `acknowledged_records` says how many
                were written all the same.

        Example:
            summary = producer.send_many("orders", (b"%d pears" % n for n in range(1000)))
            print(summary.records, "records in", summary.batches, "batches")
        """
        check_records(records, or_async=False)
        refused: list[UsageError] = []
        handover = Handover(self._serializer.each(topic, records, refused), self._thread)

        async def send() -> SendSummary:
            await self._queue.taken()
            # The async producer takes any source of runs; its signature need not say so.
            source = cast("Iterable[Sendable]", handover)
            return await self._producer.send_many(topic, source, partition=partition)

        summary = self._thread.answer(Call(send, ended=handover.stop), handover.read)
        if refused:
            refused[0].acknowledged_records = summary.records
            raise refused[0]
        return summary

    def statistics(self) -> ProducerStatistics:
        """Tell what the producer has done since it was made; cheap enough to ask for every second.

        It can be asked after `close` too, and in callbacks.

        Example:
            producer.send_many("orders", [b"1", b"2", b"3"])
            told = producer.statistics()
            print(told.records_acknowledged, told.retries)
            print(f"{told.acknowledgement_time.p99_s * 1000:.1f} ms")
        """
        return self._session.ask(self._producer.statistics)

    def flush(self) -> None:
        """Wait until every record taken so far is acknowledged or has failed.

        Failures are told by the calls and futures of the records themselves.

        Example:
            futures = [producer.send_nowait("orders", b"%d" % n) for n in range(10)]
            producer.flush()
            print([future.result().offset for future in futures])
        """

        async def flush() -> None:
            await self._queue.taken()
            await self._producer.flush()

        self._thread.call(flush)

    def close(self, *, timeout_s: float | None = None) -> None:
        """Flush, then let go of everything. Safe to call twice.

        Args:
            timeout_s: give up flushing after that; what is left fails with `ClosedError`. None
                waits as long as the delivery timeout lets it take.

        Example:
            producer = client.producer()
            producer.close(timeout_s=5)
        """
        check_timeout(timeout_s)
        if not self._session.lifetime.ended:
            self._thread.call(
                lambda: self._session.close_producer(self._producer, self._queue, timeout_s)
            )

    def __enter__(self) -> Self:
        """Return the producer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; after an exception flush for at most five seconds."""
        self.close(timeout_s=None if error is None else _HURRIED_FLUSH_S)

    def _row(
        self,
        topic: str,
        value: V | None,
        key: K | None,
        headers: Headers | Mapping[str, bytes],
        timestamp_ms: int | None,
    ) -> Row:
        """Serialize in the calling thread, which may change everything once it has returned."""
        data = self._serializer.value(topic, value)
        key_data = self._serializer.key(topic, key)
        return (key_data, data, timestamp_ms or 0, own_headers(headers))

    def _take(
        self,
        topic: str,
        row: Row,
        partition: int | None,
        timestamp_ms: int | None,
        on_delivery: OnDelivery | None,
    ) -> Take:
        send_nowait = self._producer.send_nowait
        key, value, _, headers = row
        return lambda: send_nowait(
            topic,
            value,
            key=key,
            partition=partition,
            headers=headers,
            timestamp_ms=timestamp_ms,
            on_delivery=on_delivery,
        )


def _checked_size(row: Row) -> int | None:
    """Return at least what a record of bytes takes in the buffer; None is for other records.

    Raises:
        UsageError: a part cannot be sent, or it is too large.
    """
    key, value, _, headers = row
    if any(part is not None and type(part) is not bytes for part in (key, value)):
        return None
    check_row(row)
    size_bytes = size_bound(key, value, headers)
    check_size(size_bytes)
    return size_bytes
