"""A replica that leads: it appends, feeds its followers, and answers what everybody in sync has."""

from __future__ import annotations

from typing import Final

from riverrun_server.core.cluster.values import Durability
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.replication.feeding import Feeds
from riverrun_server.core.replication.isr import InSyncSet
from riverrun_server.core.replication.leadership import Handshake, Leadership
from riverrun_server.core.replication.messages import (
    Acked,
    Diverged,
    Follow,
    Message,
    Push,
    Refused,
)
from riverrun_server.core.replication.terms import Terms
from riverrun_server.ports.partitions import Acks, Append
from riverrun_server.runtime.replication.outbox import Outbox, Outcome, Proposal
from riverrun_server.runtime.replication.replica_log import ReplicaLog

# As much as one follower may have under way by default.
_VERIFIED_BYTES: Final = 8 << 20


class LeaderRole:
    """One leadership over one log.

    Args:
        log: whose epoch has begun.
        core: decides.
        outbox: takes what is to be sent and asked for.
        relaxed: what is written counts as durable.
    """

    def __init__(
        self,
        log: ReplicaLog,
        core: Leadership,
        outbox: Outbox,
        *,
        relaxed: bool,
    ) -> None:
        self.core = core
        self._log = log
        self._outbox = outbox
        self._hungry = core.feeds.hungry
        self._relaxed = relaxed

    @classmethod
    def begin(
        cls,
        log: ReplicaLog,
        insync: InSyncSet,
        feeds: Feeds,
        outbox: Outbox,
        me: int,
        terms: Terms,
        now: float,
    ) -> LeaderRole:
        """Begin the leader epoch that a partition's value names.

        Raises:
            Contradiction: the log knows that epoch already, or a later one.
            StorageError: nothing was written.
        """
        value, epoch_start = insync.committed, log.machine.log_end
        log.begin_epoch(value.leader_epoch)
        core = Leadership(log.machine, log.epochs, insync, feeds, me, epoch_start, terms, now)
        return cls(log, core, outbox, relaxed=value.durability is Durability.RELAXED)

    def append(self, append: Append, now: float) -> None:
        """Append a batch; never raises, the answer comes through `append.done`."""
        log, end = self._log, self._log.machine.log_end

        def admit() -> None:
            self.core.admit(now, needs_all=append.acks is Acks.ALL)

        try:
            self.core.admit(now, needs_all=False)
            log.appender.append(append, admit)
        except Refusal as refusal:
            append.refuse(refusal, log.machine.log_start)
            return
        if log.machine.log_end > end:
            log.wrote()
            self._hungry()
        if self._relaxed or self.core.insync.is_too_small:
            self.reconsider(now)

    def receive(self, sender: int, sender_epoch: int, message: Message, now: float) -> None:
        """Take what a follower says."""
        match message:
            case Follow():
                answer = self._followed(sender, sender_epoch, message)
                if answer is Handshake.RESTART:
                    self._restart(sender)
                elif not isinstance(answer, Handshake):
                    self._outbox.send(sender, answer)
            case Acked():
                self.core.acked(sender, sender_epoch, message, now)
                self.reconsider(now)
            case _:
                return
        self._hungry()

    def refused(self, sender: int, sender_epoch: int, message: Refused, now: float) -> None:
        """Learn that a follower did not take what was said to it.

        Raises:
            CorruptData: this log is damaged where the follower is; a bounded piece was looked at.
        """
        if message.leader_epoch > self.core.leader_epoch:
            if message.reason is Reason.FENCED_LEADER_EPOCH:
                self.core.depose()
        elif message.leader_epoch < self.core.leader_epoch:
            return
        elif message.reason is Reason.PARTITION_OFFLINE:
            self.core.went_offline(sender, sender_epoch)
            self.reconsider(now)
        elif message.reason is Reason.CORRUPT_DATA:
            self._log.log.scan(self.core.log_end_of(sender), _VERIFIED_BYTES)

    def disconnected(self, broker: int) -> None:
        """Send a follower nothing more until it asks on a new stream."""
        self.core.feeds.end(broker)

    def outcome(self, proposal: Proposal, outcome: Outcome, revision: int, now: float) -> None:
        """Learn what became of a change; one that was asked for on another value is history."""
        insync, change = self.core.insync, proposal.change
        if change.value.leader_epoch != insync.committed.leader_epoch:
            return
        if outcome is Outcome.APPLIED:
            insync.seen(change.value, revision)
        elif insync.pending == change.value:
            if outcome is Outcome.REFUSED:
                insync.not_applied()
            else:
                insync.unknown()
        self.reconsider(now)

    def synced(self, now: float) -> None:
        """Learn that more of the log may be on the disk."""
        self.reconsider(now)

    def tick(self, now: float) -> None:
        """Probe the followers, and ask for a change of the replicas in sync where one is due."""
        if not self.core.tick(now):
            return
        change = self.core.change(now, is_begun=self._log.has_accepted_durably)
        if change is not None:
            self._outbox.propose(self._log.partition, change)
        self.reconsider(now)
        self._hungry()

    def reconsider(self, now: float) -> None:
        """Commit and answer what holds now."""
        core, log = self.core, self._log
        if self._relaxed:
            log.machine.synced(log.machine.log_end)
        core.advance(now)
        if core.may_acknowledge(now, core.lease_deadline):
            log.appender.release()
        if (refusal := core.too_few()) is not None:
            log.appender.fail_committed(refusal)

    def lags(self) -> dict[int, int]:
        """Return for each follower how many offsets it is not known to have on its disk."""
        core, end = self.core, self._log.machine.log_end
        value = core.insync.committed
        others = (broker for broker in value.replicas if broker != value.leader)
        return {broker: max(0, end - core.durable_end_of(broker)) for broker in others}

    def feed(self) -> None:
        """Send every follower what it lacks, as far as it may have more under way."""
        for broker in list(self.core.feeds):
            while (portion := self._portion(broker)) is not None:
                self._push(broker, *portion)

    def end(self) -> None:
        """Lead no more: whether what waits will be committed nobody here will know."""
        self.core.feeds.close()
        self._log.appender.give_up(
            Refusal(
                Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
                "the leadership ended before enough replicas had the batch; it may yet be committed "
                "or lost",
            )
        )

    def _followed(self, sender: int, sender_epoch: int, message: Follow) -> Diverged | Handshake:
        log, end = self._log, message.log_end
        in_batch = False
        if message.last_epoch is None and log.first_base < end < log.machine.log_end:
            in_batch = log.read(end, log.machine.log_end, 1)[0].base_offset < end
        return self.core.followed(sender, sender_epoch, message, log.first_base, in_batch=in_batch)

    def _portion(self, broker: int) -> tuple[int, int] | None:
        portion = self.core.feeds.next_portion(broker, self._log.machine.log_end)
        if portion is not None and portion.offset < self._log.first_base:
            self.core.feeds.end(broker)
            self._restart(broker)
            return None
        return portion

    def _push(self, broker: int, offset: int, max_bytes: int) -> None:
        log, machine = self._log, self._log.machine
        batches = tuple(log.read(offset, machine.log_end, max_bytes)) if max_bytes else ()
        assert not batches or batches[0].base_offset == offset, (offset, batches[0][:3])
        self._outbox.send(
            broker,
            Push(
                partition=log.partition,
                leader_epoch=self.core.leader_epoch,
                previous_epoch=log.epochs.epoch_at(offset - 1),
                batches=batches,
                high_watermark=machine.high_watermark,
                log_start=machine.log_start,
                probe=self.core.followers.probes.newest,
                base_offset=offset,
            ),
        )
        self.core.feeds.sent(broker, batches)

    def _restart(self, broker: int) -> None:
        self._outbox.send(broker, self._log.restart_message(self.core.leader_epoch))
