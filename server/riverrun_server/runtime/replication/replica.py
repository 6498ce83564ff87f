"""One replica of one partition: leader, follower or neither, as the partition's value says.

Synchronous, without a loop: it takes messages, values, syncs and ticks, writes, and puts what is to be
sent and asked for into the outbox. Appends are answered through their own `done`.

Not here: which role a value gives to whom else (core.cluster), what both roles decide
(core.replication), and how the log is changed (runtime.replication.replica_log).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final

from riverrun_server.core.cluster.values import PartitionValue
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.core.replication.feeding import Feeds, Windows
from riverrun_server.core.replication.giving_way import GivingWay
from riverrun_server.core.replication.isr import InSyncSet
from riverrun_server.core.replication.leadership import Leadership
from riverrun_server.core.replication.messages import Message, Refused
from riverrun_server.core.replication.terms import Change, Registered, Terms
from riverrun_server.ports.log import CorruptData, StorageError, StorageFull, StorageStalled
from riverrun_server.ports.partitions import Append
from riverrun_server.runtime.replication.follower import FollowerRole
from riverrun_server.runtime.replication.leader import LeaderRole
from riverrun_server.runtime.replication.outbox import Outbox, Outcome, Proposal
from riverrun_server.runtime.replication.replica_log import (
    Contradiction,
    ReplicaLog,
    ReplicaServices,
    SyncPoint,
)
from riverrun_server.runtime.replication.stopped import Stopped, not_served

# Between two looks for producers that have been silent for long; that costs next to nothing.
_EXPIRE_S: Final = 300.0


class Replica:
    """One replica.

    Transitions of its role: none -> leader | follower -> ... with every newer leader epoch of the
    partition's value; any -> stopped (`stop`, its data cannot be trusted), for good, or where the data
    is damaged and another has it -> follower, with a log that begins anew (core.replication.refetching).

    Args:
        partition: of what.
        me: this broker.
        broker_epoch: of this process.
        services: what all replicas share.
        terms: times and bounds.
        outbox: takes what is to be sent and asked for.
        windows: how much is under way to each broker.

    Attributes:
        name: the partition as people know it.
    """

    def __init__(
        self,
        partition: PartitionId,
        me: int,
        broker_epoch: int,
        services: ReplicaServices,
        terms: Terms,
        outbox: Outbox,
        windows: Windows,
    ) -> None:
        self.partition = partition
        self.name = str(partition)
        self.stopped = Stopped(partition, me, broker_epoch, outbox, terms)
        self._giving_way = GivingWay(me, broker_epoch, terms)
        self.log = ReplicaLog(partition, services, lambda: outbox.touch(partition))
        self.leader: LeaderRole | None = None
        self.follower: FollowerRole | None = None
        self._me = me
        self._services = services
        self._terms = terms
        self._outbox = outbox
        self._windows = windows
        self._value: PartitionValue | None = None
        self._revision = 0
        self._registered: Mapping[int, Registered] = {}
        self._allows_loss = False
        self._lease_deadline = float("-inf")
        self._has_begun = False
        self._expire_at = 0.0

    def recover(self) -> None:
        """Bring back what memory must know; damage stops the replica. Blocks."""
        try:
            self.log.recover()
        except CorruptData as found:
            self.stop(str(found))

    @property
    def why_stopped(self) -> str | None:
        """Why nothing is served here to anybody; None where that is not so."""
        return self.stopped.why

    @property
    def leader_epoch(self) -> int:
        """The newest leader epoch that is known here; older ones are refused."""
        known = self._value.leader_epoch if self._value else 0
        return max(known, self.log.machine.state.accepted_epoch)

    @property
    def refusal(self) -> Refusal | None:
        """Why clients are not served here; None where this replica leads."""
        return self._no_leader() if self.leader is None else None

    # What the metadata says.

    def update(
        self,
        value: PartitionValue,
        revision: int,
        registered: Mapping[int, Registered],
        now: float,
        *,
        allows_loss: bool = False,
    ) -> None:
        """Take the partition's value, and how the brokers that hold it are registered.

        Args:
            value: the newest one known.
            revision: at which it was written.
            registered: by broker id.
            now: in seconds, monotonic, here and everywhere.
            allows_loss: the topic allows an election of a replica that does not have everything.
        """
        self._registered, self._allows_loss = registered, allows_loss
        if revision > self._revision:
            before, self._value, self._revision = self._value, value, revision
            if before is None or before.leader_epoch != value.leader_epoch:
                self.stopped.refetching.hurry()
                self._begin(now)
            elif self._me not in value.replicas:
                self._end()
            elif self.leader is not None:
                self.leader.core.seen(value, revision)
            elif self.follower is None:
                self._begin(now)
        if self.leader is not None:
            self._inform(self.leader.core)
            self.leader.reconsider(now)

    @property
    def follows(self) -> int | None:
        """The broker to which this replica needs a stream: who leads, as far as it is another one."""
        value = self._value
        if value is None or self._me == value.leader or self._me not in value.replicas:
            return None
        return value.leader

    def lease(self, deadline: float) -> None:
        """Learn until when this broker's session with the metadata store is known to hold."""
        self._lease_deadline = deadline
        if self.leader is not None:
            self.leader.core.lease_deadline = deadline

    def outcome(
        self, proposal: Proposal, outcome: Outcome, now: float, *, revision: int = 0
    ) -> None:
        """Learn what became of a change that was asked for; `revision` where it was written."""
        if self.leader is not None:
            self.leader.outcome(proposal, outcome, revision, now)
        elif outcome is Outcome.APPLIED:
            self.stopped.refetching.settled(proposal.change.value)

    # What other brokers say.

    def receive(self, sender: int, sender_epoch: int, message: Message, now: float) -> None:
        """Take a message; one of another leader epoch than the current one is refused."""
        if isinstance(message, Refused):
            self._refused(sender, sender_epoch, message, now)
        elif message.leader_epoch < self.leader_epoch:
            self._refuse(sender, Reason.FENCED_LEADER_EPOCH)
        elif message.leader_epoch > self.leader_epoch or not self._has_begun:
            self._refuse(sender, Reason.UNKNOWN_LEADER_EPOCH)
        elif self.why_stopped is not None:
            value = self._value
            if value and self.stopped.is_answered(value, sender, sender_epoch, message):
                self._begin_anew(value.leader_epoch, now)
            else:
                self.stopped.tell(sender, self.leader_epoch)
        elif (role := self.leader or self.follower) is not None:
            with self._trusting():
                role.receive(sender, sender_epoch, message, now)
        else:
            self._refuse(sender, Reason.NOT_LEADER)

    def connected(self, broker: int, now: float) -> None:
        """Ask anew on a new stream to a broker, if that leads here."""
        if self.follower is not None and self.follower.leader[0] == broker:
            self.follower.ask(now)
        elif self.why_stopped is not None and self.follows == broker:
            self.stopped.refetching.hurry()
            self._while_stopped(now)

    def disconnected(self, broker: int) -> None:
        """Learn that the stream of a follower has ended: what was on its way may be lost."""
        if self.leader is not None:
            self.leader.disconnected(broker)

    # Appending and reading.

    def append(self, append: Append, now: float) -> None:
        """Append a batch; never raises, the answer comes through `append.done`."""
        if self.leader is None:
            append.refuse(self._no_leader(), self.log.machine.log_start)
            return
        self.leader.append(append, now)

    def latest_offset(self, now: float) -> int:
        """Return where a reader of new records begins.

        Raises:
            Refusal: not led here, or not known yet.
        """
        if self.leader is None:
            raise self._no_leader()
        return self.leader.core.latest_offset(now)

    def read(self, offset: int, max_bytes: int) -> list[StoredBatch]:
        """Return committed batches from the one that holds `offset` on."""
        return self.log.read(offset, self.log.machine.high_watermark, max_bytes)

    def trim(self, before_offset: int) -> None:
        """Delete the records before an offset, -1 for all that are committed, as soon as that can be.

        Raises:
            Refusal: not led here, or OFFSET_OUT_OF_RANGE above the high watermark.
        """
        if self.leader is None:
            raise self._no_leader()
        plan = self.log.machine.trim_plan(before_offset, 0)
        if plan is not None:
            self.log.want_trim(plan.log_start_offset)
        with self._trusting():
            self.log.trim()

    # The disk and the time.

    def sync_point(self) -> SyncPoint | None:
        """Return what a sync that begins now will prove; None where nothing was written."""
        if self.log.is_synced or self.why_stopped is not None:
            return None
        probe = self.follower.core.probe if self.follower is not None else 0
        return self.log.sync_point(probe)

    def synced(self, point: SyncPoint, now: float) -> None:
        """Learn that a sync that began at a point has ended well."""
        self.log.synced(point)
        with self._trusting():
            if self.leader is not None:
                self.leader.synced(now)
            elif self.follower is not None:
                self.follower.synced(point.probe)

    def tick(self, now: float) -> None:
        """Do what is due: several times a second, evenly."""
        if not self._has_begun and self._value is not None:
            self._begin(now)
            self._give_way(self._value, now)
        if self.why_stopped is not None:
            self._while_stopped(now)
            return
        if now >= self._expire_at:
            self._expire_at = now + _EXPIRE_S
            self.log.expire()
        with self._trusting():
            self.log.trim()
        with self._trusting():
            if (role := self.leader or self.follower) is not None:
                role.tick(now)

    def feed(self) -> None:
        """Put into the outbox what followers lack."""
        with self._trusting():
            if self.leader is not None:
                self.leader.feed()

    def stop(self, why: str, *, damaged: bool = True) -> None:
        """Serve nothing any more, for what is stored cannot be trusted.

        Nothing is deleted here. What is damaged is, later, once a leader has it; what is whole and
        contradicts what the leader has is kept, for nobody knows who is right.
        """
        if self.why_stopped is not None:
            return
        self._end()
        self.stopped.begin(why, damaged=damaged)
        self._services.stopped(self.partition, why)
        if self.follows is not None:
            self.stopped.tell(self.follows, self.leader_epoch)

    def retire(self, why: str) -> None:
        """Serve nothing any more, without a word to anybody: nothing is wrong."""
        self._end()
        self.stopped.begin(why, damaged=False)

    def _while_stopped(self, now: float) -> None:
        if self._value is not None:
            self.stopped.act(self._value, self._revision, self._registered, now)

    def _begin_anew(self, leader_epoch: int, now: float) -> None:
        """Throw the damaged log away, and follow."""
        with self._trusting():
            self.log.throw_away(leader_epoch)
            self.stopped.end(now)
            self._services.began_anew(self.partition, self.stopped.refetching.rounds)
            self._begin(now)

    # Roles.

    def _begin(self, now: float) -> None:
        """Take the role that the value gives; where the disk refuses, the next tick tries again."""
        self._end()
        value = self._value
        assert value is not None
        if value.leader_epoch < self.log.machine.state.accepted_epoch:
            return  # older than what was accepted here: a newer value is on its way
        leads = self._giving_way.is_to_lead(value)
        follows = value.leader != self._me and self._me in value.replicas
        if self.why_stopped is not None:
            self._while_stopped(now)
        elif leads or follows:
            self._has_begun = False
            with self._trusting():
                if leads:
                    self._lead(value, now)
                else:
                    scan, retry_s = self._services.scan, self._terms.retry_s
                    self.follower = FollowerRole.begin(self.log, value, self._outbox, scan, retry_s)
                    self.follower.ask(now)
                self._has_begun = True
            return
        self._has_begun = True

    def _give_way(self, value: PartitionValue, now: float) -> None:
        if self._has_begun or self.why_stopped is not None:
            return
        if (left := self._giving_way.failed(value, now)) is not None:
            self._outbox.propose(self.partition, Change(left, self._revision))

    def _lead(self, value: PartitionValue, now: float) -> None:
        insync = InSyncSet(self._me, value, self._revision)
        terms = self._terms
        feeds = Feeds(
            terms.max_push_bytes,
            terms.max_under_way_bytes,
            self._windows,
            lambda: self._outbox.feed_later(self.partition, self.feed),
        )
        self.leader = LeaderRole.begin(self.log, insync, feeds, self._outbox, self._me, terms, now)
        self._inform(self.leader.core)
        self.leader.reconsider(now)

    def _end(self) -> None:
        if self.leader is not None:
            self.leader.end()
        self.leader = self.follower = None

    def _inform(self, core: Leadership) -> None:
        core.registered = self._registered
        core.unclean_allowed = self._allows_loss
        core.lease_deadline = self._lease_deadline

    # Refusing.

    def _refused(self, sender: int, sender_epoch: int, message: Refused, now: float) -> None:
        if self.leader is not None:
            with self._trusting():
                self.leader.refused(sender, sender_epoch, message, now)
        elif self.follower is not None and message.reason is Reason.UNKNOWN_LEADER_EPOCH:
            self.follower.core.refused()  # for the rest it asks again by itself

    def _refuse(self, to: int, reason: Reason) -> None:
        self._outbox.send(to, Refused(self.partition, self.leader_epoch, reason))

    def _no_leader(self) -> Refusal:
        return not_served(self.name, self._me, self.why_stopped, self._value)

    @contextlib.contextmanager
    def _trusting(self) -> Iterator[None]:
        """Stop at damage; a disk that is behind or full has changed nothing, the next tick goes on."""
        try:
            yield
        except Contradiction as found:
            self.stop(str(found), damaged=False)
        except CorruptData as damage:
            self.stop(str(damage))
        except (StorageStalled, StorageFull):
            pass
        except StorageError as error:
            self._services.failed(error)
