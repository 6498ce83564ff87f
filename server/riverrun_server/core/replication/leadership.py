"""One partition that is led here, in one leader epoch: what is committed, who is in sync, who is fed.

Intuition: the log itself is run by core.log.partition; this knows the others. An offset is committed
once every replica that may be in sync has it on its disk, and only while enough of them are
(KIP-497, KIP-966). It decides; whoever drives it reads, sends, and asks the metadata store.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping

from riverrun_server.core.cluster.values import PartitionValue, Replica
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.epochs import EpochMap
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.replication.becoming_durable import becoming_durable
from riverrun_server.core.replication.feeding import Feeds
from riverrun_server.core.replication.isr import InSyncSet
from riverrun_server.core.replication.messages import Acked, Diverged, Follow
from riverrun_server.core.replication.progress import Followers, Progress
from riverrun_server.core.replication.terms import Change, Registered, Terms


class Handshake(enum.Enum):
    """What a follower's question leads to, beside an answer where logs part."""

    FEED = "its log is a prefix of the leader's"
    RESTART = "its log ends before the leader's begins, or has no record and is of another history"
    IGNORE = "a later process of the same broker has asked"


class Leadership:
    """One partition as its leader sees the others.

    Invariants: the high watermark never passes what any replica of the maximal in-sync set has on
    its disk, and stands while the committed set is smaller than it must be.

    Transitions:
        leading -> deposed: somebody has accepted a newer leader epoch; nothing is committed or
            acknowledged any more. The epoch ends when the metadata says so.

    Args:
        machine: of the log; its epoch has begun at `epoch_start`.
        epochs: of the log.
        insync: the replicas in sync.
        feeds: who is fed; nobody yet.
        me: this broker.
        epoch_start: where the log ended when the epoch began.
        terms: times and bounds.
        now: in seconds, monotonic, here and everywhere.

    Attributes:
        registered: by broker id, as the metadata says; to be kept up to date.
        lease_deadline: until then this broker's session with the metadata store is known to hold; to
            be kept up to date.
        unclean_allowed: whether a replica that does not have everything may be elected; likewise.
        insync: the replicas in sync.
        followers: what is known of the others.
        feeds: what was sent to them.
        deposed: see the transitions.
    """

    def __init__(
        self,
        machine: PartitionMachine,
        epochs: EpochMap,
        insync: InSyncSet,
        feeds: Feeds,
        me: int,
        epoch_start: int,
        terms: Terms,
        now: float,
    ) -> None:
        self.insync = insync
        self.followers = Followers(now)
        self.feeds = feeds
        self.registered: Mapping[int, Registered] = {}
        self.lease_deadline = float("-inf")
        self.unclean_allowed = False
        self.deposed = False
        self.leader_epoch = insync.committed.leader_epoch
        self.epoch_start = epoch_start
        self._machine = machine
        self._epochs = epochs
        self._me = me
        self._terms = terms
        self._ticked_at = now
        self._probe_at = now
        self._settle_at = now

    # Appending.

    def admit(self, now: float, *, needs_all: bool) -> None:
        """Check that a batch may be written, before it is.

        Raises:
            Refusal: FENCED_LEADER_EPOCH, PARTITION_OFFLINE (leadership cannot be confirmed), and for
                an append that waits for all replicas in sync NOT_ENOUGH_REPLICAS; all definite.
        """
        if self.deposed:
            raise Refusal(
                Reason.FENCED_LEADER_EPOCH,
                f"leader epoch {self.leader_epoch} is over, another broker leads the partition; "
                "refresh the metadata and send to the leader",
            )
        if not self.may_acknowledge(now, self.lease_deadline):
            raise Refusal(
                Reason.PARTITION_OFFLINE,
                "the leader has lost its session with the metadata store and cannot confirm that "
                "it still leads; nothing was written, try again after a moment",
            )
        if needs_all and self.insync.is_too_small:
            raise self._not_enough(Reason.NOT_ENOUGH_REPLICAS, "nothing was written")

    def too_few(self) -> Refusal | None:
        """Return how to answer what was written and waits, once too few replicas are in sync."""
        if not self.insync.is_too_small:
            return None
        return self._not_enough(
            Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
            "the batch is written on the leader and may yet be committed or lost",
        )

    def may_acknowledge(self, now: float, lease_deadline: float) -> bool:
        """Return whether it is certain enough that nobody else leads.

        The lease says so until its deadline. After that everybody who could have been elected must
        have confirmed this epoch within one time to live, counted from when it was asked: who
        accepted a later epoch confirms this one no more. As a process: what an earlier one of a broker
        said is nothing that the later one is held to.
        """
        if self.deposed:
            return False
        if now < lease_deadline:
            return True
        others = {each.broker for each in self.insync.electable}
        if self.unclean_allowed:
            others.update(self.insync.committed.replicas)
        others.discard(self._me)
        for broker in others:
            confirmed = self._confirmed_at(broker)
            if confirmed is None or now - confirmed > self._terms.ttl_s:
                return False
        # With a loss, a later process of this very broker could be elected, and nobody can deny that.
        return bool(others) or not self.unclean_allowed

    def latest_offset(self, now: float) -> int:
        """Return the high watermark as the partition's latest offset (KIP-207).

        Raises:
            Refusal: OFFSET_NOT_AVAILABLE, an earlier leader may have told a later one;
                PARTITION_OFFLINE, FENCED_LEADER_EPOCH as for an append.
        """
        self.admit(now, needs_all=False)
        committed = self._machine.high_watermark
        if committed < self.epoch_start:
            raise Refusal(
                Reason.OFFSET_NOT_AVAILABLE,
                f"the leader was elected at offset {self.epoch_start} and knows of {committed} only "
                "that it is committed; ask again after a moment",
            )
        return committed

    def seen(self, value: PartitionValue, revision: int) -> None:
        """Take the value that stands at a revision, which this leader may not have written.

        Whoever could not be elected may have thrown its data away, and says so by nothing but a value
        that it wrote: what it had on its disk counts again once it has said so in answer to a later probe.
        """
        if self.insync.seen(value, revision):
            may_lead = {each.broker for each in self.insync.electable}
            for broker in set(self.followers).difference(may_lead):
                self.followers.doubt(broker)

    # What followers say.

    def followed(
        self,
        broker: int,
        broker_epoch: int,
        message: Follow,
        first_base: int,
        *,
        in_batch: bool = False,
    ) -> Diverged | Handshake:
        """Answer a follower that asks to be fed.

        Args:
            broker: who asks.
            broker_epoch: its process.
            message: what it says of its log.
            first_base: where the first batch of this log begins; the log start may lie inside it.
            in_batch: its log ends in the midst of a batch of this one, so what it had there was lost.
        """
        progress = self.followers.heard(broker, broker_epoch)
        if progress is None:
            return Handshake.IGNORE
        progress.offline = False
        self.feeds.end(broker)
        end, last = message.log_end, message.last_epoch
        mine = self._epochs.epoch_at(end - 1)
        if end < first_base or (end == first_base and mine is None and last is not None):
            return Handshake.RESTART
        if last is None and in_batch:
            return Handshake.RESTART
        # A follower without an epoch has nothing below its log end but what was deleted.
        if end <= self._machine.log_end and (last is None or last == mine):
            progress.asked_from = end
            self.feeds.begin(broker, end)
            return Handshake.FEED
        upto = self.leader_epoch if last is None else last
        found = self._epochs.end_offset_for(upto, self._machine.log_end)
        return Diverged(message.partition, self.leader_epoch, *found, last)

    def acked(self, broker: int, broker_epoch: int, message: Acked, now: float) -> bool:
        """Take what a follower has on its disk; return whether more is committed."""
        progress = self.followers.heard(broker, broker_epoch)
        if progress is None or progress.offline:
            return False
        assert message.durable_end <= self._machine.log_end, (message, self._machine.state)
        end = self._machine.log_end
        self.followers.acked(progress, message.durable_end, message.probe, end, now)
        self.feeds.acked(broker, message.durable_end)
        return self.advance(now)

    def went_offline(self, broker: int, broker_epoch: int) -> None:
        """Learn that a follower cannot serve the partition: what it had counts no more."""
        progress = self.followers.heard(broker, broker_epoch)
        if progress is not None:
            progress.offline, progress.durable_end = True, None
            self.feeds.end(broker)

    def durable_end_of(self, broker: int) -> int:
        """Return what a follower is known to have on its disk in this epoch."""
        registration = self.registered.get(broker)
        progress = self.followers.of(broker, registration.broker_epoch) if registration else None
        return (progress.durable_end if progress else None) or self._machine.log_start

    def log_end_of(self, broker: int) -> int:
        """Return how far a follower is known to have come in this epoch."""
        registration = self.registered.get(broker)
        progress = self.followers.of(broker, registration.broker_epoch) if registration else None
        return max(progress.asked_from if progress else 0, self.durable_end_of(broker))

    def depose(self) -> None:
        """Learn that a newer leader epoch has been accepted somewhere."""
        self.deposed = True
        self.feeds.close()

    # What follows from it.

    def advance(self, now: float) -> bool:
        """Commit what every replica that may be in sync has on its disk; return whether that is more.

        To be called after anything that may have changed it: a sync, an acknowledgement, a value.
        """
        if self.insync.is_too_small:
            return False
        lowest = self._machine.durable_end
        for replica in self.insync.maximal:
            if replica.broker == self._me:
                continue
            progress = self._counted(replica)
            if progress is None or progress.durable_end is None:
                return False
            lowest = min(lowest, progress.durable_end)
        if lowest <= self._machine.high_watermark:
            return False
        if not self.may_acknowledge(now, self.lease_deadline):
            return False
        return self._machine.committed(lowest)

    def tick(self, now: float) -> bool:
        """Begin a new probe where it is time; return whether it was.

        Followers are forgiven the time in which this process did not run.
        """
        passed, self._ticked_at = now - self._ticked_at, now
        if passed > self._terms.lag_s / 2:
            self.followers.forgive(passed, now)
        if now < self._probe_at:
            return False
        self._probe_at = now + self._terms.probe_s
        self.followers.probes.mark(now, self._machine.log_end)
        self.feeds.owe()
        return True

    def change(self, now: float, *, is_begun: bool = True) -> Change | None:
        """Return a change of the replicas in sync to ask for; it is pending from here on.

        Args:
            now: in seconds.
            is_begun: this epoch's beginning, and so all that was written before, is on the disk.
        """
        insync = self.insync
        if self.deposed:
            return None
        for broker in set(self.followers).difference(insync.committed.replicas):
            self.followers.forget(broker)
            self.feeds.end(broker)
        if insync.in_doubt:
            return self._settling(now)
        if (value := insync.leave(self._behind(now), self._unfit())) is not None:
            return Change(value, insync.revision)
        for broker, registration in self._joining(now):
            life = registration.life(insync.committed.durability)
            if (value := insync.join(life)) is not None:
                return Change(value, insync.revision, ((broker, registration.mod_revision),))
        return self._becoming_durable() if is_begun else None

    # How.

    def _settling(self, now: float) -> Change | None:
        if now < self._settle_at:
            return None
        self._settle_at = now + self._terms.retry_s
        value = self.insync.settle()
        return None if value is None else Change(value, self.insync.revision)

    def _unfit(self) -> set[Replica]:
        """Return members whose data is damaged, or whose life of it is over."""
        unfit = set()
        for replica in self.insync.electable:
            registration, progress = self.registered.get(replica.broker), self._counted(replica)
            over = registration is not None and not registration.is_life(replica)
            if replica.broker != self._me and (over or (progress and progress.offline)):
                unfit.add(replica)
        return unfit

    def _becoming_durable(self) -> Change | None:
        needed = max(self._machine.high_watermark, self.epoch_start)
        return becoming_durable(self.insync, self.registered, self._held, needed)

    def _held(self, replica: Replica) -> int | None:
        if replica.broker == self._me:
            return self._machine.durable_end
        progress = self._counted(replica)
        return progress.durable_end if progress else None

    def _behind(self, now: float) -> set[Replica]:
        """Return members that have not had everything for too long."""
        return {
            replica
            for replica in self.insync.committed.isr
            if replica.broker != self._me
            and self._lags(replica.broker, self._counted(replica), now)
        }

    def _lags(self, broker: int, progress: Progress | None, now: float) -> bool:
        if progress is not None and progress.durable_end == self._machine.log_end:
            return False
        since = progress.caught_up_at if progress else self.followers.caught_up_at(broker)
        return now - since > self._terms.lag_s

    def _joining(self, now: float) -> Iterator[tuple[int, Registered]]:
        """Yield who may join: it has all that is committed, and this epoch's beginning (KIP-903).

        And it is there and keeps up, or it would leave again at once: where too few are in sync what is
        committed stands still, and who died has it.
        """
        needed = max(self._machine.high_watermark, self.epoch_start)
        for broker in self.followers:
            registration = self.registered.get(broker)
            if registration is None or registration.fenced or registration.draining:
                continue
            progress = self.followers.of(broker, registration.broker_epoch)
            if progress is None or progress.acked_at is None or progress.durable_end is None:
                continue
            is_there = now - progress.acked_at <= self._terms.ttl_s
            if (
                is_there
                and progress.durable_end >= needed
                and not self._lags(broker, progress, now)
            ):
                yield broker, registration

    def _confirmed_at(self, broker: int) -> float | None:
        """Return when the newest probe was sent that the registered process of a broker confirmed."""
        registration = self.registered.get(broker)
        progress = self.followers.of(broker, registration.broker_epoch) if registration else None
        return progress.confirmed_at if progress else None

    def _counted(self, replica: Replica) -> Progress | None:
        """Return what is known of the process that is this life of the broker's data, and no other."""
        registration = self.registered.get(replica.broker)
        if registration is None or not registration.is_life(replica):
            return None
        return self.followers.of(replica.broker, registration.broker_epoch)

    def _not_enough(self, reason: Reason, outcome: str) -> Refusal:
        value = self.insync.committed
        return Refusal(
            reason,
            f"the partition has {len(value.isr)} replicas in sync and needs {value.min_isr} "
            f"(min.insync.replicas); {outcome}. Try again once replicas have caught up, or produce "
            "with acks=leader",
        )
