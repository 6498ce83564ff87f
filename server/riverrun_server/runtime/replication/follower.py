"""A replica that follows: it makes its log agree with the leader's, writes what comes, and acknowledges."""

from __future__ import annotations

from collections.abc import Callable

from riverrun_server.core.cluster.values import Durability, PartitionValue
from riverrun_server.core.errors import Reason
from riverrun_server.core.log.batch import PartitionId, ScannedBatch, StoredBatch
from riverrun_server.core.replication.following import Following, FollowingState
from riverrun_server.core.replication.messages import Diverged, Message, Push, Refused, Restart
from riverrun_server.ports.log import CorruptData, StorageFull, StorageStalled
from riverrun_server.runtime.replication.outbox import Outbox
from riverrun_server.runtime.replication.replica_log import Contradiction, ReplicaLog


class FollowerRole:
    """One log that follows one leader in one epoch.

    Args:
        log: that has accepted the epoch.
        core: decides.
        leader: the broker and the process of it that lead.
        outbox: takes what is to be sent.
        scan: reads everything of a stored batch, with all checksums verified.
        relaxed: what is written counts as durable.
    """

    def __init__(
        self,
        log: ReplicaLog,
        core: Following,
        leader: tuple[int, int],
        outbox: Outbox,
        scan: Callable[[PartitionId, bytes], ScannedBatch],
        *,
        relaxed: bool,
    ) -> None:
        self.core = core
        self.leader = leader
        self._log = log
        self._outbox = outbox
        self._scan = scan
        self._relaxed = relaxed

    @classmethod
    def begin(
        cls,
        log: ReplicaLog,
        value: PartitionValue,
        outbox: Outbox,
        scan: Callable[[PartitionId, bytes], ScannedBatch],
        retry_s: float,
    ) -> FollowerRole:
        """Follow the leader that a partition's value names, in its epoch and in no older one.

        Raises:
            StorageError: nothing was written.
        """
        log.accept_epoch(value.leader_epoch)
        core = Following(log.partition, value.leader_epoch, log.machine, log.epochs, retry_s)
        leader = (value.leader, value.leader_broker_epoch)
        relaxed = value.durability is Durability.RELAXED
        return cls(log, core, leader, outbox, scan, relaxed=relaxed)

    def ask(self, now: float) -> None:
        """Ask the leader to be fed: a new epoch, a new stream, a truncation, a gap, silence."""
        if self.core.state is not FollowingState.STOPPED:
            self._send(self.core.ask(now))

    def receive(self, sender: int, sender_epoch: int, message: Message, now: float) -> None:
        """Take what the leader says.

        Raises:
            CorruptData: this log cannot be trusted.
            Contradiction: it is whole, and the leader's is another one.
            StorageError: nothing was written, the leader is asked again later.
        """
        if (sender, sender_epoch) != self.leader:
            refused = Refused(self._log.partition, self.core.leader_epoch, Reason.NOT_LEADER)
            self._outbox.send(sender, refused)
            return
        try:
            self._take(message, now)
        except (StorageStalled, StorageFull):
            self.core.pause(now)
            raise
        if self.core.state is FollowingState.STOPPED:
            raise Contradiction(self.core.why_stopped)

    def synced(self, probe: int) -> None:
        """Acknowledge what a sync has proved; `probe` is the newest that had come before it began."""
        self._commit()
        self._acknowledge(probe)

    def tick(self, now: float) -> None:
        """Ask again where no answer came."""
        if self.core.is_overdue(now):
            self.ask(now)

    def _take(self, message: Message, now: float) -> None:
        match message:
            case Diverged():
                target = self.core.diverged(message)
                if target is not None:
                    self._log.truncate(target)
                    self.ask(now)
            case Restart():
                if self.core.restart(message):
                    self._log.restart(message)
                    self.ask(now)
            case Push():
                self._pushed(message, now)

    def _pushed(self, message: Push, now: float) -> None:
        taken = self.core.pushed(message, now)
        if taken.ask:
            self.ask(now)
        if not taken.fits:
            return
        for batch in taken.batches:
            scanned = self._read(batch)
            if scanned is None:
                self._send(Refused(message.partition, message.leader_epoch, Reason.CORRUPT_DATA))
                self.core.pause(now)
                return
            self._log.replicate(scanned)
        if self._relaxed:
            self._log.machine.synced(self._log.machine.log_end)
        self._commit()
        if self._relaxed or self._log.is_synced:
            self._acknowledge(self.core.probe)

    def _read(self, batch: StoredBatch) -> ScannedBatch | None:
        """Return a pushed batch if it is what it says it is, and comes next."""
        try:
            scanned = self._scan(self._log.partition, batch.data)
        except CorruptData:
            return None
        stamp, last = scanned.stamp, self.core.last_epoch
        says = (stamp.base_offset, stamp.next_offset, stamp.leader_epoch)
        comes_next = stamp.base_offset == self._log.machine.log_end
        in_order = (last or 0) <= stamp.leader_epoch <= self.core.leader_epoch
        return scanned if says == batch[:3] and comes_next and in_order else None

    def _commit(self) -> None:
        log = self._log
        log.machine.committed(min(self.core.committed, log.machine.durable_end))
        log.appender.save_snapshot()
        log.want_trim(self.core.log_start)

    def _acknowledge(self, probe: int) -> None:
        # Whoever accepted an epoch must refuse older ones for ever, also after a crash right now. A
        # sync from before that proves nothing to this leader, nor is its probe one of this leader's.
        if self._log.has_accepted_durably and (acked := self.core.ack(probe)) is not None:
            self._send(acked)

    def _send(self, message: Message) -> None:
        self._outbox.send(self.leader[0], message)
