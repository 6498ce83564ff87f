"""Write records: one at a time with its acknowledgement, or many at full speed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from types import TracebackType
from typing import Literal, Self, TypeAlias

from riverrun._core.records import Headers, NewRecord, Record, RecordMetadata, SendSummary

Acks: TypeAlias = Literal["all", "leader", "none"]
Compression: TypeAlias = Literal["none", "gzip", "zstd"]
Sendable: TypeAlias = bytes | tuple[bytes | None, bytes | None] | NewRecord | Record | None
"""What `send_many` takes: a value, a (key, value) pair, or a record with all its parts."""


class Producer:
    """Writes records, from `Client.producer()`; an async context manager.

    Records of one partition keep the order in which they were given, also through broken
    connections, and with `idempotent` (the default) each stands in its partition once. Where a
    batch fails for good, those behind it in the same partition fail too, in order: nothing
    overtakes.

    What the methods raise says whether the outcome is known (`RiverrunError.outcome_known`).
    """

    async def send(
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

        Waits for room in the buffer first. Many concurrent calls share batches.

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
        """
        raise NotImplementedError

    def send_nowait(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        """Take one record to be written, and return a future of its acknowledgement.

        Never waits. Pair it with `drain()`, as with asyncio's streams:

            future = producer.send_nowait("orders", b"...")
            await producer.drain()

        Raises:
            BufferFullError: the buffer has no room; `await producer.drain()` and call again.
            ClosedError: the producer was closed.
        """
        raise NotImplementedError

    async def drain(self) -> None:
        """Wait until the buffer has room for more."""
        raise NotImplementedError

    async def send_many(
        self,
        topic: str,
        records: Iterable[Sendable] | AsyncIterable[Sendable],
        *,
        partition: int | None = None,
    ) -> SendSummary:
        """Write all records and wait until they are acknowledged: the fast path.

        Whole batches are taken from `records`, encoded at once and sent while the next are made; no
        more is read ahead than the buffer holds. Records without a timestamp carry that of their
        batch's making. Records without a key fill one partition's batch, then another's.

        Args:
            topic: where to.
            records: values, (key, value) pairs, or `NewRecord`s and `Record`s; not mixed with
                strings: encode text before. An async iterable's batch goes out when the next record
                is longer away than `linger_s`.
            partition: where to in the topic, whatever the keys say.

        Raises:
            RiverrunError: of the first batch that failed; `acknowledged_records` says how many were
                written all the same.
        """
        raise NotImplementedError

    async def flush(self) -> None:
        """Wait until every record taken so far is acknowledged or has failed.

        Failures are told by the calls and futures of the records themselves.
        """
        raise NotImplementedError

    async def close(self, *, timeout_s: float | None = None) -> None:
        """Flush, then let go of everything. Safe to call twice.

        Args:
            timeout_s: give up flushing after that; what is left fails with `ClosedError`. None
                waits as long as the delivery timeout lets it take.
        """
        raise NotImplementedError

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
        raise NotImplementedError
