"""What a producer has done so far: counted where it happens, told as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from riverrun._core.histogram import Durations, Histogram
from riverrun._core.outgoing import OutgoingBatch, Resolution


@dataclass(frozen=True, slots=True)
class ProducerStatistics:
    """What a producer has done since it was made, from `Producer.statistics()`.

    Counts only grow: the difference of two snapshots is what happened between them. A record counts
    as sent when its batch is first put on a stream. Times are from a batch's first record being taken,
    each counted once for every record in the batch.

    Attributes:
        elapsed_s: how long there has been the producer.
        records_sent: records in the batches that were sent.
        batches_sent: batches that were sent, each counted once however often.
        bytes_sent: what they take encoded, before compression.
        records_acknowledged: records that the broker has acknowledged.
        batches_acknowledged: their batches.
        bytes_acknowledged: what these take encoded, before compression.
        compressed_bytes_acknowledged: what they take as they were sent.
        records_failed: records that were taken and then failed, whether or not they were sent.
        retries: how often a batch, or a half of one that was too large, was sent again.
        batches_in_flight: batches that wait for their answer now.
        buffered_bytes: what was taken and is not resolved now.
        buffer_wait_s: how long calls have waited for room in the buffer, all together.
        queue_time: until a batch was first sent, compression not included.
        acknowledgement_time: until a batch was acknowledged, retries included.

    Example:
        before = producer.statistics()
        await producer.send_many("orders", [b"1", b"2", b"3"])
        after = producer.statistics()
        print(after.records_acknowledged - before.records_acknowledged, "acknowledged")
        print(after.batch_records_mean, "records a batch")
    """

    elapsed_s: float
    records_sent: int
    batches_sent: int
    bytes_sent: int
    records_acknowledged: int
    batches_acknowledged: int
    bytes_acknowledged: int
    compressed_bytes_acknowledged: int
    records_failed: int
    retries: int
    batches_in_flight: int
    buffered_bytes: int
    buffer_wait_s: float
    queue_time: Durations
    acknowledgement_time: Durations

    @property
    def batch_records_mean(self) -> float:
        """How many records a batch that was sent has, on average; 0 before the first."""
        return self.records_sent / self.batches_sent if self.batches_sent else 0.0

    @property
    def batch_bytes_mean(self) -> float:
        """How many bytes, before compression, it has."""
        return self.bytes_sent / self.batches_sent if self.batches_sent else 0.0


class ProducerCounters:
    """The counts behind the statistics; each call is once for a batch, never for a record."""

    def __init__(self) -> None:
        self._records_sent = 0
        self._batches_sent = 0
        self._bytes_sent = 0
        self._records_acknowledged = 0
        self._batches_acknowledged = 0
        self._bytes_acknowledged = 0
        self._compressed_bytes_acknowledged = 0
        self._records_failed = 0
        self._retries = 0
        self._queue_time = Histogram()
        self._acknowledgement_time = Histogram()

    def sent(self, batch: OutgoingBatch, now_s: float) -> None:
        """Count a batch that is put on a stream, for the first time or again."""
        if batch.attempts > 1:
            self._retries += 1
            return
        self._records_sent += batch.record_count
        self._batches_sent += 1
        self._bytes_sent += batch.size_bytes
        self._queue_time.record(_ns(now_s - batch.accepted_s), batch.record_count)

    def acknowledged(self, batch: OutgoingBatch, now_s: float) -> None:
        """Count a batch that is written."""
        self._records_acknowledged += batch.record_count
        self._batches_acknowledged += 1
        self._bytes_acknowledged += batch.size_bytes
        self._compressed_bytes_acknowledged += len(batch.records)
        self._acknowledgement_time.record(_ns(now_s - batch.accepted_s), batch.record_count)

    def failed(self, records: int) -> None:
        """Count records that are not written, or of which nobody knows."""
        self._records_failed += records

    def settled(self, resolution: Resolution, now_s: float | None) -> None:
        """Count what became of a batch; when is known wherever one can be acknowledged."""
        if resolution.error is not None:
            self.failed(resolution.batch.record_count)
        else:
            assert now_s is not None, "only an answer acknowledges, and it comes at some time"
            self.acknowledged(resolution.batch, now_s)

    def snapshot(
        self,
        *,
        elapsed_s: float,
        batches_in_flight: int,
        buffered_bytes: int,
        buffer_wait_s: float,
    ) -> ProducerStatistics:
        """Tell everything, with what others know."""
        return ProducerStatistics(
            elapsed_s=elapsed_s,
            records_sent=self._records_sent,
            batches_sent=self._batches_sent,
            bytes_sent=self._bytes_sent,
            records_acknowledged=self._records_acknowledged,
            batches_acknowledged=self._batches_acknowledged,
            bytes_acknowledged=self._bytes_acknowledged,
            compressed_bytes_acknowledged=self._compressed_bytes_acknowledged,
            records_failed=self._records_failed,
            retries=self._retries,
            batches_in_flight=batches_in_flight,
            buffered_bytes=buffered_bytes,
            buffer_wait_s=buffer_wait_s,
            queue_time=self._queue_time.durations(),
            acknowledgement_time=self._acknowledgement_time.durations(),
        )


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
