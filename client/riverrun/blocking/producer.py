"""Write records, without async: one at a time with its acknowledgement, or many at full speed."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Self, cast

import riverrun.producer
from riverrun._core.encoding import Row, size_bound
from riverrun._core.records import Headers, RecordMetadata, SendSummary
from riverrun._core.row_checks import check_row, check_size
from riverrun.blocking.calls import Call
from riverrun.blocking.handover import Handover
from riverrun.blocking.send_queue import Acknowledgement, SendQueue, Take
from riverrun.blocking.session import Session
from riverrun.errors import ClosedError
from riverrun.producer import Sendable

# After an exception in the block, the records before it still have this long to be acknowledged.
_HURRIED_FLUSH_S = 5.0


class Producer:
    """Writes records, from `Client.producer()`; a context manager.

    Everything that `riverrun.Producer` promises holds here. Threads may share a producer, and share
    batches by that; the records of each thread keep their order.

    Example:
        with client.producer() as producer:
            producer.send("orders", b"2 apples", key=b"anna")
    """

    def __init__(
        self,
        session: Session,
        producer: riverrun.producer.Producer,
        buffer_bytes: int,
        owner: object,
    ) -> None:
        self._session = session
        self._thread = session.thread
        self._producer = producer
        # Whoever has a producer has its client, which is not closed as forgotten.
        self._owner = owner
        self._queue = SendQueue(session.thread, producer.drain, buffer_bytes)
        session.queues.add(self._queue)

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> RecordMetadata:
        """Write one record and wait until it is acknowledged.

        Waits for room in the buffer first. Calls of several threads share batches.

        Args:
            topic: where to.
            value: the payload; None is a tombstone, which is not the same as empty.
            key: equal keys go to one partition: CRC-32 of the key modulo partitions.
            partition: where to in the topic, whatever the key says.
            headers: anything else that travels with the record.
            timestamp_ms: when it happened, in ms since 1970; None is now.

        Raises:
            TopicNotFoundError: no such topic or partition.
            TimedOutError: not acknowledged within the delivery timeout.
            UsageError: the broker refuses the record; nothing was written.

        Example:
            place = producer.send("orders", b"2 apples", key=b"anna")
            print(place.partition, place.offset)
        """
        self._thread.check()
        take = self._take(topic, value, key, partition, headers, timestamp_ms)
        size_bytes = _checked_size((key, value, timestamp_ms or 0, headers))
        try:
            return self._queue.put(take, size_bytes or 0, awaited=True).result()
        except ClosedError as error:
            self._thread.park_at_exit(error)
            raise

    def send_nowait(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> Future[RecordMetadata]:
        """Take one record to be written, and return a future of its acknowledgement.

        Does not wait for the broker. The future cannot be cancelled; one that fails and is never asked
        is logged when it is let go. Its callbacks run on the client's thread and must not block.

        Raises:
            BufferFullError: the buffer has no room; `producer.drain()` and call again.
            ClosedError: the producer was closed.

        Example:
            future = producer.send_nowait("orders", b"1 melon", key=b"ben")
            producer.drain()
            print(future.result().offset)
        """
        self._thread.check()
        take = self._take(topic, value, key, partition, headers, timestamp_ms)
        size_bytes = _checked_size((key, value, timestamp_ms or 0, headers))
        is_place = bool(topic) and (partition is None or partition >= 0)
        if is_place and size_bytes is not None and self._queue.has_room(size_bytes):
            return self._queue.put(take, size_bytes)

        # Whatever is not certain, or certainly wrong, the loop decides before this returns.
        async def put_now() -> Acknowledgement:
            return self._queue.put_now(take, size_bytes or 0)

        return self._thread.call(put_now)

    def drain(self) -> None:
        """Wait until the buffer has room for another batch.

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
        records: Iterable[Sendable],
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
            records: values, (key, value) pairs, or `NewRecord`s and `Record`s; encode text before.
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
        handover = Handover(iter(records), self._thread)

        async def send() -> SendSummary:
            await self._queue.taken()
            # The async producer takes any source of runs; its signature need not say so.
            source = cast("Iterable[Sendable]", handover)
            return await self._producer.send_many(topic, source, partition=partition)

        return self._thread.answer(Call(send, ended=handover.stop), handover.read)

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

    def _take(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int | None,
        headers: Headers,
        timestamp_ms: int | None,
    ) -> Take:
        send_nowait = self._producer.send_nowait
        return lambda: send_nowait(
            topic, value, key=key, partition=partition, headers=headers, timestamp_ms=timestamp_ms
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
