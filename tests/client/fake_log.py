"""A partition in memory that keeps the rules of the protocol: sequences, offsets, checksums."""

from __future__ import annotations

from dataclasses import dataclass, field
from zlib import crc32

from riverrun._core.checksums import FORMAT_VERSION, placement_crc
from riverrun._core.codecs import expand
from riverrun.v1 import errors_pb2 as errors
from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet

NOW_MS = 1_750_000_000_000
REMEMBERED = 64


class FakeRefusal(Exception):
    """What the fake broker answers with."""

    def __init__(
        self,
        reason: str,
        message: str = "",
        *,
        known: bool = True,
        retry_safe: bool = False,
        retry_after_s: float | None = None,
        expected_sequence: int | None = None,
        available: tuple[int, int] | None = None,
        leader: tuple[int, str, int] | None = None,
        diverging_offset: int | None = None,
    ) -> None:
        super().__init__(message or reason)
        self.reason = reason
        self.proto = errors.Error(
            reason=errors.ErrorReason.Value(f"ERROR_REASON_{reason}"),
            message=message or f"the fake says {reason}",
            outcome=errors.OUTCOME_NOTHING_HAPPENED if known else errors.OUTCOME_UNKNOWN,
            retry_safe=retry_safe,
            expected_sequence=expected_sequence,
            diverging_offset=diverging_offset,
        )
        if leader is not None:
            hint = self.proto.leader
            hint.broker_id, hint.endpoint, hint.leader_epoch = leader
        if retry_after_s is not None:
            self.proto.retry_after.FromNanoseconds(int(retry_after_s * 1e9))
        if available is not None:
            self.proto.available.earliest, self.proto.available.latest = available


@dataclass
class ProducerState:
    epoch: int
    last_sequence: int = -1
    batches: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass
class Appended:
    base_offset: int | None
    duplicate: bool = False


class FakePartition:
    """One log; every accepted batch is stamped as a broker stamps it."""

    def __init__(self, topic_id: bytes, partition: int, max_batch_bytes: int = 1 << 20) -> None:
        self.topic_id = topic_id
        self.partition = partition
        self.max_batch_bytes = max_batch_bytes
        self.leader_epoch = 1
        self.batches: list[RecordBatch] = []
        self.log_start = 0
        self.end = 0
        self.offline: FakeRefusal | None = None
        self.producers: dict[int, ProducerState] = {}

    def append(self, batch: RecordBatch) -> Appended:
        if self.offline is not None:
            raise self.offline
        self._check(batch)
        if batch.producer_id:
            known = self._deduplicate(batch)
            if known is not None:
                return known
        base = self.end
        self.store(batch)
        return Appended(base)

    def store(self, batch: RecordBatch, *, gap: int = 0) -> None:
        """Stamp and keep; a gap of so many offsets behind it is as compaction leaves them."""
        batch.base_offset = self.end
        batch.last_offset_delta = batch.record_count - 1 + gap
        batch.leader_epoch = self.leader_epoch
        batch.append_time_ms = NOW_MS
        batch.partition_max_timestamp_ms = batch.max_timestamp_ms
        batch.format_version = FORMAT_VERSION
        self.sign(batch)
        self.batches.append(batch)
        self.end += batch.last_offset_delta + 1

    def truncate(self, end: int) -> None:
        """Lose everything from an offset on, which a batch begins with."""
        self.batches = [batch for batch in self.batches if batch.base_offset < end]
        self.end = end

    def check_position(self, offset: int, epoch: int) -> None:
        """Refuse a reader that has read what is not in the log before its position."""
        known = [batch for batch in self.batches if batch.leader_epoch <= epoch]
        end = known[-1].base_offset + known[-1].last_offset_delta + 1 if known else 0
        if offset <= end:
            return
        raise FakeRefusal(
            "LOG_TRUNCATED", f"not what was read before {offset}", diverging_offset=end
        )

    def sign(self, batch: RecordBatch) -> None:
        batch.placement_crc = placement_crc(self.topic_id, self.partition, batch)

    def records(self) -> list[Record]:
        return [
            record
            for batch in self.batches
            for record in RecordSet.FromString(expand(batch.codec, batch.records)).records
        ]

    def values(self) -> list[bytes]:
        return [record.value for record in self.records()]

    def _check(self, batch: RecordBatch) -> None:
        if len(batch.records) > self.max_batch_bytes:
            raise FakeRefusal(
                "BATCH_TOO_LARGE", f"{len(batch.records)} bytes; {self.max_batch_bytes} are allowed"
            )
        if not batch.HasField("records_crc") or crc32(batch.records) != batch.records_crc:
            raise FakeRefusal("INVALID_RECORD", "checksum")
        records = RecordSet.FromString(expand(batch.codec, batch.records)).records
        if len(records) != batch.record_count or not records:
            raise FakeRefusal("INVALID_RECORD", "count")
        if max(record.timestamp_ms for record in records) != batch.max_timestamp_ms:
            raise FakeRefusal("INVALID_RECORD", "max timestamp")
        if records[0].timestamp_ms != batch.first_timestamp_ms:
            raise FakeRefusal("INVALID_RECORD", "first timestamp")
        if batch.placement_crc or batch.format_version or batch.append_time_ms:
            raise FakeRefusal("INVALID_RECORD", "stamp")

    def _deduplicate(self, batch: RecordBatch) -> Appended | None:
        state = self.producers.get(batch.producer_id)
        first, last = batch.base_sequence, batch.base_sequence + batch.record_count - 1
        if state is None or batch.producer_epoch > state.epoch:
            if first != 0:
                raise FakeRefusal("UNKNOWN_PRODUCER", f"first sequence {first}, not 0")
            state = self.producers[batch.producer_id] = ProducerState(batch.producer_epoch)
        if batch.producer_epoch < state.epoch:
            raise FakeRefusal("PRODUCER_FENCED", f"epoch {state.epoch} has written")
        if last <= state.last_sequence:
            for known_first, _, offset in state.batches:
                if known_first == first:
                    return Appended(offset, duplicate=True)
            return Appended(None, duplicate=True)
        if first != state.last_sequence + 1:
            raise FakeRefusal(
                "OUT_OF_ORDER_SEQUENCE",
                f"sequence {first}, not {state.last_sequence + 1}",
                expected_sequence=state.last_sequence + 1,
            )
        state.last_sequence = last
        state.batches = [*state.batches[-REMEMBERED + 1 :], (first, batch.record_count, self.end)]
        return None


class RefusingLane:
    """The rule of one stream and partition: after a failure, later batches are refused."""

    def __init__(self) -> None:
        self._failed: tuple[int, int, int, int] | None = None

    def check(self, batch: RecordBatch, attempt: int) -> None:
        if self._failed is None:
            return
        producer_id, epoch, sequence, failed_attempt = self._failed
        if batch.producer_id:
            same = (batch.producer_id, batch.producer_epoch) == (producer_id, epoch)
            last = batch.base_sequence + batch.record_count - 1
            if same and batch.base_sequence <= sequence:
                if last >= sequence:
                    self._failed = None
                return
            if not same and batch.base_sequence == 0:
                self._failed = None
                return
        elif attempt > failed_attempt:
            self._failed = None
            return
        raise FakeRefusal("PRECEDING_FAILED", retry_safe=True)

    def failed(self, batch: RecordBatch, attempt: int) -> None:
        now = (batch.producer_id, batch.producer_epoch, batch.base_sequence, attempt)
        if self._failed is None or self._failed[:2] != now[:2] or now[2] < self._failed[2]:
            self._failed = now
