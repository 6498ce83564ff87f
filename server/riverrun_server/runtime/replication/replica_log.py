"""One replica's log: what is stored and what memory knows of it, always changed together.

Not here: why it changes (core.replication), and who is told (runtime.replication.replica).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from riverrun_server.core.log.batch import PartitionId, ScannedBatch, StoredBatch
from riverrun_server.core.log.epochs import EpochEntry, EpochMap
from riverrun_server.core.log.hot_tail import HotTail, TailBudget
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.log.state import LogState
from riverrun_server.core.producers import ProducersSnapshot, ProducerTable
from riverrun_server.core.replication.messages import Restart
from riverrun_server.ports.log import CorruptData, LogStore, StorageError
from riverrun_server.runtime.appender import SNAPSHOT_INTERVAL_BYTES, Appender
from riverrun_server.runtime.recovery import recover_producers
from riverrun_server.runtime.replication.cutting import state_below
from riverrun_server.wire.snapshots import encode_snapshot

_log = structlog.stdlib.get_logger(__name__)


class Contradiction(CorruptData):
    """What is stored is whole, and says something else than the leader or the metadata."""


def _log_stopped(partition: PartitionId, why: str) -> None:
    _log.error("replica serves nothing any more", partition=str(partition), why=why)


def _log_began_anew(partition: PartitionId, times: int) -> None:
    _log.warning(
        "replica has thrown away damaged data and takes the leader's",
        partition=str(partition),
        times=times,
    )


@dataclass(frozen=True, slots=True)
class ReplicaServices:
    """What all replicas of a broker share.

    Attributes:
        store: where they are stored.
        tails: the memory that all hot tails may take.
        scan: reads everything of a stored batch, with all checksums verified.
        now_ms: the broker's guarded clock.
        failed: told when the disk failed for good.
        max_producers: how many idempotent producers a partition knows at once.
        producer_retention_ms: after how long a silent one may be forgotten.
        snapshot_interval_bytes: between two snapshots of the producers.
        stopped: told of a replica that serves nothing any more, and why.
        began_anew: told of a replica that threw damaged data away, and how often this process did.
    """

    store: LogStore
    tails: TailBudget
    scan: Callable[[PartitionId, bytes], ScannedBatch]
    now_ms: Callable[[], int]
    failed: Callable[[StorageError], None]
    max_producers: int = 5_000
    producer_retention_ms: int = 7 * 86_400_000
    snapshot_interval_bytes: int = SNAPSHOT_INTERVAL_BYTES
    stopped: Callable[[PartitionId, str], None] = _log_stopped
    began_anew: Callable[[PartitionId, int], None] = _log_began_anew


class SyncPoint(NamedTuple):
    """What a sync that begins now will prove of one partition."""

    partition: PartitionId
    log_end: int
    writes: int
    cuts: int
    probe: int


class ReplicaLog:
    """The log of one replica. Every method that writes raises StorageError with nothing changed.

    Args:
        partition: whose log it is.
        services: what all replicas share.
        touched: told of every write: a sync of the store has to prove it.
    """

    def __init__(
        self, partition: PartitionId, services: ReplicaServices, touched: Callable[[], None]
    ) -> None:
        self.partition = partition
        self._services = services
        self._touched = touched
        self.log = services.store.open(partition)
        self._damage = self.log.damage
        self.epochs = EpochMap(self._stored_epochs())
        self.machine = PartitionMachine(
            self.log.state,
            ProducerTable(services.max_producers),
            leader_epoch=self.log.state.accepted_epoch,
            replicated=True,
        )
        # What was recovered is on the disk: opening the store wrote it into tables.
        self.machine.synced(self.machine.log_end)
        self.tail = HotTail(services.tails)
        self.appender = Appender(
            partition,
            self.log,
            self.machine,
            self.tail,
            services.now_ms,
            services.producer_retention_ms,
            services.failed,
            snapshot_interval_bytes=services.snapshot_interval_bytes,
        )
        self._writes = self._durable_writes = self._accept_write = 0
        self._cuts = 0
        self._first_base: tuple[int, int] | None = None
        self._trim_to = 0
        self._trim_snapshot: tuple[int, bytes] | None = None

    def recover(self) -> None:
        """Bring the producers back from the newest snapshot and what is behind it; blocks.

        Raises:
            CorruptData: what is stored cannot be trusted.
        """
        if self._damage is not None:
            raise CorruptData(self._damage)
        machine, services = self.machine, self._services
        producers = ProducerTable(services.max_producers)
        recover_producers(self.partition, self.log, producers, services.producer_retention_ms)
        machine.producers = producers
        found = self.log.snapshot()
        ahead = found is not None and found[0] > machine.log_end
        machine.producers_known_to = found[0] if found is not None and ahead else 0

    def _stored_epochs(self) -> list[EpochEntry]:
        try:
            return self.log.epochs()
        except CorruptData as found:
            self._damage = self._damage or str(found)
            return []

    def expire(self) -> None:
        """Forget the producers that have been silent for long; to be called every few minutes."""
        services = self._services
        self.machine.producers.expire(services.now_ms(), services.producer_retention_ms)

    def rest(self) -> None:
        """Write a snapshot of the producers where everything is committed: the next start reads less."""
        machine = self.machine
        known = self.log.snapshot()
        end = machine.log_end
        is_whole = machine.high_watermark == end and machine.producers_known_to <= end
        if is_whole and self.is_synced and (known is None or known[0] != end):
            self.log.save(machine.state, snapshot=self.appender.snapshot())

    # What a sync proves.

    @property
    def is_synced(self) -> bool:
        """Whether everything that was written is on the disk."""
        return self._durable_writes == self._writes

    @property
    def has_accepted_durably(self) -> bool:
        """Whether the accepted leader epoch is on the disk."""
        return self._durable_writes >= self._accept_write

    def wrote(self) -> None:
        """Count a write that a sync has yet to prove."""
        self._writes += 1
        self._touched()

    def sync_point(self, probe: int) -> SyncPoint:
        """Return what a sync that begins now will prove, also of a leader's probe."""
        return SyncPoint(self.partition, self.machine.log_end, self._writes, self._cuts, probe)

    def synced(self, point: SyncPoint) -> None:
        """Take into account what a sync has proved; a log cut meanwhile is another one."""
        self._durable_writes = max(self._durable_writes, point.writes)
        if point.cuts == self._cuts:
            self.machine.synced(point.log_end)

    # Leader epochs.

    def begin_epoch(self, leader_epoch: int) -> None:
        """Lead from the log end on in a new epoch.

        Raises:
            Contradiction: the log knows that epoch already, or a later one.
        """
        machine = self.machine
        if (obstacle := self.epochs.obstacle(leader_epoch)) is not None:
            raise Contradiction(obstacle)
        if machine.producers_known_to > machine.log_end:
            self._forget_producers()
        entry = EpochEntry(leader_epoch, machine.log_end)
        self._accept(leader_epoch, entry)
        self.epochs.begin(*entry)
        machine.leader_epoch = leader_epoch

    def accept_epoch(self, leader_epoch: int) -> None:
        """Follow in an epoch, and in no older one ever again."""
        machine, newest = self.machine, self.epochs.latest
        if newest is not None and newest.start_offset >= machine.log_end:
            # It led without a record. What comes next may be of an epoch before that.
            state = dataclasses.replace(machine.state, accepted_epoch=leader_epoch)
            self.log.truncate(state, self.epochs.entries_below(machine.log_end))
            self.epochs.truncate_from(machine.log_end)
            self._accepted(state)
        elif leader_epoch > machine.state.accepted_epoch:
            self._accept(leader_epoch, None)

    def _accept(self, leader_epoch: int, entry: EpochEntry | None) -> None:
        state = dataclasses.replace(self.machine.state, accepted_epoch=leader_epoch)
        self.log.save(state, epoch=entry)
        self._accepted(state)

    def _accepted(self, state: LogState) -> None:
        self.machine.state = state
        self.wrote()
        self._accept_write = self._writes

    def _forget_producers(self) -> None:
        """Know no producer: what is known tells of records that were lost before they came here."""
        machine = self.machine
        end = machine.log_end
        self.log.truncate(machine.state, self.epochs.entries_below(end))
        self.log.save(machine.state, snapshot=(end, encode_snapshot(ProducersSnapshot(end, ()))))
        self.wrote()
        self.recover()

    # Following.

    def replicate(self, batch: ScannedBatch) -> None:
        """Write a batch that the leader sent; it comes next."""
        stamp, newest = batch.stamp, self.epochs.latest
        begins = newest is None or stamp.leader_epoch > newest.leader_epoch
        entry = EpochEntry(stamp.leader_epoch, stamp.base_offset) if begins else None
        self.appender.replicate(batch, entry)
        if entry is not None:
            self.epochs.begin(*entry)
        self.wrote()

    def truncate(self, offset: int) -> None:
        """Delete the batches from an offset on; everything, where nothing of the log can be kept.

        Raises:
            CorruptData: what remains cannot be trusted.
        """
        held = self.log.read(offset, self.machine.log_end, 1)
        if held:
            # The leader's epoch may end in the midst of a batch here: then it does not have that one.
            offset = min(offset, held[0].base_offset)
        start, snapshot = self.machine.log_start, self.log.snapshot()
        if offset < start or (start > 0 and snapshot is not None and snapshot[0] > offset):
            # Without what was deleted before, the producers could not be known either.
            self._begin_at(0, (), None)
            return
        state = state_below(self.log, self.machine.state, offset)
        self.log.truncate(state, self.epochs.entries_below(offset))
        self.epochs.truncate_from(offset)
        self.tail.truncate(offset)
        self._cut(state)

    def restart(self, message: Restart) -> None:
        """Throw the log away and begin where the leader's begins."""
        self._begin_at(message.log_start, message.epochs, message.snapshot)

    def throw_away(self, leader_epoch: int) -> None:
        """Throw a damaged log away and begin at 0, having accepted a leader epoch.

        What was accepted before may not be readable any more; a newer one than it stands for it.
        """
        accepted = max(self.machine.state.accepted_epoch, leader_epoch)
        state = LogState(accepted_epoch=accepted)
        self._services.store.renew(self.partition, state)
        self._damage = None
        self._begun_at(state, ())
        self._accept_write = self._writes

    def _begin_at(
        self, offset: int, epochs: tuple[EpochEntry, ...], snapshot: tuple[int, bytes] | None
    ) -> None:
        accepted = self.machine.state.accepted_epoch
        state = LogState(offset, offset, offset, accepted_epoch=accepted)
        self.log.restart(state, epochs, snapshot=snapshot)
        self._begun_at(state, epochs)

    def _begun_at(self, state: LogState, epochs: tuple[EpochEntry, ...]) -> None:
        self.epochs.truncate_from(0)
        for entry in epochs:
            self.epochs.begin(*entry)
        self.tail.clear()
        self._cut(state)

    def _cut(self, state: LogState) -> None:
        self.wrote()
        self._cuts += 1
        self._trim_to, self._trim_snapshot = 0, None
        self._first_base = None
        self.machine.cut(state)
        self.appender.cut()
        self.recover()

    # Reading.

    @property
    def first_base(self) -> int:
        """Where the first batch begins: the log start may lie inside it."""
        start = self.machine.log_start
        if self._first_base is None or self._first_base[0] != start:
            first = self.log.read(start, self.machine.log_end, 1)
            if not first:
                return start
            self._first_base = (start, first[0].base_offset)
        return self._first_base[1]

    def read(self, offset: int, end: int, max_bytes: int) -> list[StoredBatch]:
        """Return the batches from the one that holds `offset`, below `end`."""
        found = self.tail.read(offset, end, max_bytes)
        return self.log.read(offset, end, max_bytes) if found is None else found

    def restart_message(self, leader_epoch: int) -> Restart:
        """Return what a follower begins with whose log ends before this one begins."""
        base = self.first_base
        below = tuple(self.epochs.entries_below(base))
        return Restart(self.partition, leader_epoch, base, below, self.log.snapshot())

    # Deleting at the start.

    def want_trim(self, offset: int) -> None:
        """Delete the records before an offset as soon as that is possible."""
        machine = self.machine
        if offset <= machine.log_start:
            return
        self._trim_to = max(self._trim_to, offset)
        # Asked again when the records have come that the snapshot here speaks of already.
        if self._trim_snapshot is None and machine.producers_known_to <= machine.log_end:
            self._trim_snapshot = self.appender.snapshot()

    def trim(self) -> None:
        """Delete what was asked for, once the producers' snapshot that goes with it is committed."""
        machine, snapshot = self.machine, self._trim_snapshot
        committed = machine.high_watermark
        if snapshot is None or committed < snapshot[0]:
            return
        target = min(self._trim_to, committed, snapshot[0])
        below = machine.bytes_below(target, self.log.index_before(target))
        plan = machine.trim_plan(target, below)
        if plan is not None:
            self.log.trim(plan, snapshot=snapshot)
            machine.trimmed(plan)
            self.epochs.trim_to(plan.log_start_offset)
            self.wrote()
        self._trim_to, self._trim_snapshot = 0, None
