"""The writing half of a partition: decide, stamp and write in one step, answer when it holds.

Intuition: between the decision and the write there is no await, so nothing can come in between;
the machine and the hot tail change only after the write has returned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.acks import WaitingAcks
from riverrun_server.core.log.batch import (
    BatchHeader,
    PartitionId,
    ScannedBatch,
    Stamp,
    StoredBatch,
)
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.log.hot_tail import HotTail
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.producers import Duplicate, ProducersSnapshot
from riverrun_server.ports.log import (
    Log,
    StorageError,
    StorageFull,
    StorageStalled,
)
from riverrun_server.ports.partitions import Acks, Append, Appended
from riverrun_server.wire.snapshots import encode_snapshot

# After a crash no more than this has to be read again for a partition's producers.
SNAPSHOT_INTERVAL_BYTES = 32 << 20


def storage_refusal(error: StorageError) -> Refusal:
    """Say what a failed write means to a client; in each case nothing was written."""
    if isinstance(error, StorageStalled):
        return Refusal(
            Reason.STORAGE_STALLED, f"the disk does not keep up, send again after a moment: {error}"
        )
    if isinstance(error, StorageFull):
        return Refusal(Reason.STORAGE_FULL, f"there is no room on the broker's disk: {error}")
    return Refusal(
        Reason.STORAGE_FAILED, f"the broker's disk failed and the broker is stopping: {error}"
    )


@dataclass(slots=True)
class Appender:
    """Appends to one partition.

    Attributes:
        partition: where.
        log: the stored half.
        machine: decides.
        tail: keeps the newest batches for readers.
        now_ms: the broker's guarded clock.
        producer_retention_ms: after how long a silent producer may be forgotten.
        failed: told when the disk failed for good.
        snapshot_interval_bytes: between two snapshots of the producers.
    """

    partition: PartitionId
    log: Log
    machine: PartitionMachine
    tail: HotTail
    now_ms: Callable[[], int]
    producer_retention_ms: int
    failed: Callable[[StorageError], None]
    snapshot_interval_bytes: int = SNAPSHOT_INTERVAL_BYTES
    _waiting: WaitingAcks[tuple[Append, Appended]] = field(default_factory=WaitingAcks)
    _snapshot_due: ProducersSnapshot | None = None
    _snapshot_bytes: int = 0

    def __post_init__(self) -> None:
        """Count the distance to the next snapshot from here."""
        self._snapshot_bytes = self.machine.state.appended_bytes

    def append(self, append: Append, admit: Callable[[], None] | None = None) -> None:
        """Append a batch; `append.done` is called now or by `synced`.

        Args:
            append: what to append.
            admit: raises the Refusal for a batch that must not be written just now; not asked about
                one that is there already.

        Raises:
            Refusal: nothing was written, `append.done` was not called.
        """
        decided = self._decide(append)
        header = append.batch.header
        if isinstance(decided, Duplicate):
            answer = Appended(
                decided.first_offset, header.record_count, self.machine.log_start, duplicate=True
            )
            self._answer(append, answer, decided.last_offset + 1)
            return
        if admit is not None:
            admit()
        data = append.batch.stamped(self.partition, decided)
        self._write(header, decided, data)
        answer = Appended(decided.base_offset, header.record_count, self.machine.log_start)
        self._answer(append, answer, decided.next_offset)

    def replicate(self, batch: ScannedBatch, epoch: EpochEntry | None) -> None:
        """Write a batch that a leader has stamped, with the entry of an epoch that it begins.

        Raises:
            StorageError: nothing was written.
        """
        self._store(batch.header, batch.stamp, batch.data, epoch)

    def synced(self, offset: int) -> bool:
        """Answer what waited for this much to be on disk; return whether more is committed."""
        moved = self.machine.synced(offset)
        self.release()
        return moved

    def release(self) -> None:
        """Answer what waited and now holds, and store a snapshot whose time has come."""
        machine = self.machine
        for append, answer in self._waiting.release(machine.durable_end, machine.high_watermark):
            append.done(answer)
        self.save_snapshot()

    def give_up(self, error: Refusal) -> None:
        """Answer everything that still waits, whether it is on disk nobody knows; write no more."""
        self._snapshot_due = None
        for append, answer in self._waiting.fail():
            append.done(Appended(None, answer.record_count, error=error))

    def fail_committed(self, error: Refusal) -> None:
        """Answer what waits to be committed; it is written, what becomes of it nobody knows."""
        for append, answer in self._waiting.fail_committed():
            append.done(Appended(None, answer.record_count, error=error))

    def cut(self) -> None:
        """Take into account that the log was cut: a snapshot that is due may tell of what is gone."""
        self._snapshot_due = None
        self._snapshot_bytes = self.machine.state.appended_bytes

    def snapshot(self) -> tuple[int, bytes]:
        """Return what is known of producers at the log end, as (offset, bytes)."""
        snapshot = self.machine.producers.snapshot(self.machine.log_end)
        return snapshot.offset, encode_snapshot(snapshot)

    def _decide(self, append: Append) -> Stamp | Duplicate:
        machine, now_ms = self.machine, self.now_ms()
        try:
            return machine.decide(append.batch.header, append.expected_offset, now_ms)
        except Refusal as refusal:
            if refusal.reason is not Reason.LIMIT_EXCEEDED:
                raise
            # Full of producers: forget those that have been silent for long, then look again.
            machine.producers.expire(now_ms, self.producer_retention_ms)
            return machine.decide(append.batch.header, append.expected_offset, now_ms)

    def _write(self, header: BatchHeader, stamp: Stamp, data: bytes) -> None:
        try:
            self._store(header, stamp, data)
        except StorageError as error:
            if not isinstance(error, StorageStalled | StorageFull):
                self.failed(error)
            raise storage_refusal(error) from error

    def _store(
        self, header: BatchHeader, stamp: Stamp, data: bytes, epoch: EpochEntry | None = None
    ) -> None:
        machine = self.machine
        rows = machine.rows(header, stamp, len(data))
        batch = StoredBatch(stamp.base_offset, stamp.next_offset, stamp.leader_epoch, data)
        self.log.append(batch, rows.state, epoch=epoch, index=rows.index)
        machine.appended(header, stamp, rows)
        self.tail.append(batch)
        if rows.state.appended_bytes - self._snapshot_bytes >= self.snapshot_interval_bytes:
            self._snapshot_bytes = rows.state.appended_bytes
            self._snapshot_due = machine.producers.snapshot(machine.log_end)

    def _answer(self, append: Append, answer: Appended, needed: int) -> None:
        """Answer now, or once everything below `needed` is durable or committed."""
        machine = self.machine
        if append.acks is Acks.ALL:
            if machine.high_watermark < needed:
                self._waiting.wait_committed(needed, (append, answer))
                return
        elif append.acks is Acks.LEADER and machine.durable_end < needed:
            self._waiting.wait_durable(needed, (append, answer))
            return
        append.done(answer)

    def save_snapshot(self) -> None:
        """Store the snapshot that is due, once everything that it speaks of is committed."""
        due = self._snapshot_due
        if due is None or self.machine.high_watermark < due.offset:
            return
        try:
            self.log.save(self.machine.state, snapshot=(due.offset, encode_snapshot(due)))
        except (StorageStalled, StorageFull):
            return  # the next sync tries again; only the next start would miss it
        except StorageError as error:
            self.failed(error)
        self._snapshot_due = None
