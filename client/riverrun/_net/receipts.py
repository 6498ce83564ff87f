"""Who waits for acknowledgements: a future for each single record, one tally for many."""

from __future__ import annotations

import asyncio
import copy
from weakref import WeakSet

from riverrun._core.outgoing import OutgoingBatch, Receipt
from riverrun._core.records import RecordMetadata, SendSummary, TopicPartition
from riverrun._net.delivery_reports import OnDelivery, Report, report_soon
from riverrun.errors import RiverrunError


class RecordFutures:
    """The futures of the records of one batch, by their place in it; a Receipt."""

    __slots__ = ("_callbacks", "_futures", "_partition", "_timestamps_ms")

    def __init__(self, partition: TopicPartition) -> None:
        self._partition = partition
        self._futures: list[asyncio.Future[RecordMetadata]] = []
        self._timestamps_ms: list[int] = []
        self._callbacks: dict[int, OnDelivery] = {}

    def add(
        self,
        future: asyncio.Future[RecordMetadata],
        timestamp_ms: int,
        on_delivery: OnDelivery | None = None,
    ) -> None:
        """Add the newest record's, and who is to be called back."""
        if on_delivery is not None:
            self._callbacks[len(self._futures)] = on_delivery
        self._futures.append(future)
        self._timestamps_ms.append(timestamp_ms)

    def acknowledged(self, first: int, count: int, base_offset: int | None) -> None:
        """Tell where a run of records stands."""
        topic, partition = self._partition
        offset = base_offset
        reports: list[Report] = []
        for index in range(first, first + count):
            metadata = RecordMetadata(topic, partition, offset, self._timestamps_ms[index])
            if self._callbacks and (on_delivery := self._callbacks.get(index)) is not None:
                if not reports:
                    # Before the futures' own: whoever awaits one finds that its callback has run.
                    report_soon(reports)
                reports.append((on_delivery, None, metadata))
            future = self._futures[index]
            if not future.done():
                future.set_result(metadata)
            if offset is not None:
                offset += 1

    def failed(self, first: int, count: int, error: RiverrunError) -> None:
        """Tell why a run of records does not stand anywhere, or why nobody knows."""
        indexes = range(first, first + count)
        told = [index for index in indexes if index in self._callbacks]
        if told:
            report_soon([(self._callbacks[index], error, None) for index in told])
        for future in self._futures[first : first + count]:
            if not future.done():
                future.set_exception(error)
        for index in told:
            mark_told(self._futures[index])


def mark_told(future: asyncio.Future[RecordMetadata]) -> None:
    """Let asyncio know that a failure has been told, by a callback, if nobody asks the future."""
    if not future.cancelled():
        future.exception()


class Tally:
    """What has become of the batches of one `send_many`; each has a `TallyReceipt`.

    Attributes:
        error: the first failure.
        records: how many records are acknowledged.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._submitted = 0
        self._unresolved = 0
        self._first_failed: int | None = None
        self._doubtful = False
        self._batches = 0
        self._bytes = 0
        self._offsets: dict[int, tuple[int, int]] = {}
        self._changed = asyncio.Event()
        self.records = 0
        self.error: RiverrunError | None = None

    def submitted(self, record_count: int) -> int:
        """Count records that are on their way; return how many were before them."""
        before = self._submitted
        self._submitted += record_count
        self._unresolved += record_count
        return before

    def acknowledged(
        self, partition: int, record_count: int, size_bytes: int, base_offset: int | None
    ) -> None:
        """Count records that are written."""
        self._unresolved -= record_count
        self._batches += 1
        self._bytes += size_bytes
        self.records += record_count
        if base_offset is not None:
            first, end = self._offsets.get(partition, (base_offset, base_offset))
            reached = base_offset + record_count
            self._offsets[partition] = (min(first, base_offset), max(end, reached))
        self._changed.set()

    def failed(self, first: int, record_count: int, error: RiverrunError) -> None:
        """Count records that are not; `first` is which of all that were submitted the first one is."""
        self._unresolved -= record_count
        if self._first_failed is None or first < self._first_failed:
            self._first_failed = first
        self._doubtful |= not error.outcome_known
        if self.error is None:
            self.error = error
        self._changed.set()

    def told(self, error: RiverrunError, *, in_order: bool) -> RiverrunError:
        """Return what the call fails with, as it holds for all its records; once all are settled.

        Args:
            error: why it failed.
            in_order: records were submitted in the order in which they were given.
        """
        told = copy.copy(error)
        told.acknowledged_records = self.records
        if in_order:
            known = self._first_failed
            told.acknowledged_first = self.records if known is None else known
        if self._doubtful and told.outcome_known:
            told.outcome_known = False
            told.message = f"{told.message.rstrip('. ')}; others, too, were not acknowledged"
        return told

    async def settled(self) -> None:
        """Wait until nothing is on its way any more."""
        while self._unresolved:
            self._changed.clear()
            await self._changed.wait()

    def summary(self) -> SendSummary:
        """Return what has been acknowledged."""
        return SendSummary(
            self.topic, self.records, self._bytes, self._batches, dict(self._offsets)
        )


class TallyReceipt:
    """Tells a tally about one batch; a Receipt."""

    __slots__ = ("_before", "_bytes", "_partition", "_record_count", "_tally")

    def __init__(self, tally: Tally, partition: int, record_count: int, size_bytes: int) -> None:
        self._tally = tally
        self._partition = partition
        self._record_count = record_count
        self._bytes = size_bytes
        self._before = tally.submitted(record_count)

    def acknowledged(self, _first: int, count: int, base_offset: int | None) -> None:
        """Count a run of records that are written."""
        share = self._bytes * count // self._record_count
        self._tally.acknowledged(self._partition, count, share, base_offset)

    def failed(self, first: int, count: int, error: RiverrunError) -> None:
        """Count a run of records that are not."""
        self._tally.failed(self._before + first, count, error)


class FlushReceipt:
    """Stands before a batch's own receipt, so that flushes hear of it too; a Receipt.

    There is one, however many flushes wait: receipts that stood before each other would nest as
    deep as flushes are called. A flush that nobody waits for any more is not kept.
    """

    __slots__ = ("_batch_receipt", "_flushes")

    def __init__(self, batch_receipt: Receipt) -> None:
        self._batch_receipt = batch_receipt
        self._flushes: WeakSet[Flush] = WeakSet()

    def add(self, flush: Flush) -> None:
        """Let one more flush hear of it; adding it twice, for two halves of a batch, is fine."""
        self._flushes.add(flush)

    def acknowledged(self, first: int, count: int, base_offset: int | None) -> None:
        """Pass it on and count."""
        self._batch_receipt.acknowledged(first, count, base_offset)
        self._resolved(count)

    def failed(self, first: int, count: int, error: RiverrunError) -> None:
        """Pass it on and count."""
        self._batch_receipt.failed(first, count, error)
        self._resolved(count)

    def _resolved(self, count: int) -> None:
        for flush in self._flushes:
            flush.resolved(count)


class Flush:
    """Waits for the batches that are on their way now, and for none that come later."""

    def __init__(self, batches: list[OutgoingBatch]) -> None:
        self.waiting = 0
        self._done = asyncio.Event()
        for batch in batches:
            receipt = batch.receipt
            if not isinstance(receipt, FlushReceipt):
                receipt = batch.receipt = FlushReceipt(receipt)
            receipt.add(self)
            self.waiting += batch.record_count

    def resolved(self, record_count: int) -> None:
        """Count records that have been resolved."""
        self.waiting -= record_count
        if not self.waiting:
            self._done.set()

    async def wait(self) -> None:
        """Return once all are resolved."""
        if self.waiting:
            await self._done.wait()
