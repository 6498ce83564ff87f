"""Bugs planted into the machines, one at a time: a simulator that misses one of them proves nothing.

Each is a mistake that some system has made. A mutant is caught when a seed ends in a violation; which
rule noticed it is printed, for a bug that is only ever noticed far from where it is is half found.
"""

from __future__ import annotations

import dataclasses
from unittest.mock import patch

from riverrun_server.core.cluster import controller, partition_changes
from riverrun_server.core.cluster.eligible import Eligible
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import BatchHeader, ScannedBatch, Stamp
from riverrun_server.core.log.epochs import EpochEnd, EpochMap
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.producers import FRESH, Duplicate, ProducerTable
from riverrun_server.core.replication import isr as in_sync
from riverrun_server.core.replication.following import Following
from riverrun_server.core.replication.isr import InSyncSet
from riverrun_server.core.replication.leadership import Handshake, Leadership
from riverrun_server.core.replication.messages import Diverged
from riverrun_server.core.replication.progress import Followers
from riverrun_server.ports.partitions import Appended
from riverrun_server.runtime.appender import Appender
from riverrun_server.runtime.replication.follower import FollowerRole
from riverrun_server.runtime.replication.replica import Replica
from riverrun_server.runtime.replication.replica_log import ReplicaLog
from tests.sim.cluster import mutants_of_class, mutants_of_data
from tests.sim.cluster.options import leading_in_turn
from tests.sim.cluster.planting import CRASHES, CUTS, MUTANTS, busy, damaged, mutant

__all__ = ["MUTANTS", "mutants_of_class", "mutants_of_data"]


# When an offset counts.


@mutant("a follower may acknowledge what it has written", "power_cut", "power_cut_of_all")
def acknowledged_before_sync():
    replicate = ReplicaLog.replicate

    def eager(self, batch):
        replicate(self, batch)
        self.machine.synced(self.machine.log_end)

    with patch.object(ReplicaLog, "replicate", eager), patch.object(ReplicaLog, "is_synced", True):
        yield


@mutant("a leader may count what it has written", "power_cut", "slow_disk")
def leader_counts_unsynced():
    advance = Leadership.advance

    def eager(self, now):
        self._machine.synced(self._machine.log_end)
        return advance(self, now)

    with patch.object(Leadership, "advance", eager):
        yield


@mutant("a sync proves what was written while it ran", "slow_disk", "power_cut")
def sync_proves_too_much():
    def synced(self, point):
        self._durable_writes = self._writes
        self.machine.synced(self.machine.log_end)

    with patch.object(ReplicaLog, "synced", synced):
        yield


@mutant(
    "a sync that began before a truncation proves the log behind it",
    "leaders_isolated_in_turn",
    "slow_disk",
    options=lambda options: dataclasses.replace(
        leading_in_turn(options), kinds=("leaders_isolated_in_turn", "slow_disk"), mean_gap_s=2.0
    ),
)
def sync_of_a_log_that_was_cut():
    def synced(self, point):
        self._durable_writes = max(self._durable_writes, point.writes)
        self.machine.synced(min(point.log_end, self.machine.log_end))

    with patch.object(ReplicaLog, "synced", synced):
        yield


@mutant("a majority of the replicas in sync is enough", *CUTS)
def majority_commits():
    def advance(self, now):
        if self.insync.is_too_small:
            return False
        ends = [self._machine.durable_end]
        for replica in self.insync.maximal:
            progress = self._counted(replica)
            ends.append((progress.durable_end if progress else None) or 0)
        lowest = sorted(ends, reverse=True)[len(self.insync.maximal) // 2]
        return lowest > self._machine.high_watermark and self._machine.committed(lowest)

    with patch.object(Leadership, "advance", advance):
        yield


@mutant("only the committed set counts, whatever is pending",
        "slow_watch", "lost_store_replies", "slow_link", "kill", "slow_disk", options=busy)  # fmt: skip
def pending_members_do_not_count():
    maximal = property(lambda self: frozenset(self.committed.isr))
    with patch.object(InSyncSet, "maximal", maximal):
        yield


@mutant("the pending set counts before it is committed", "lost_store_replies", *CUTS)
def wished_for_set_counts():
    maximal = property(lambda self: frozenset((self.pending or self.committed).isr))
    with patch.object(InSyncSet, "maximal", maximal):
        yield


@mutant(
    "what nobody knows about did not happen",
    "slow_store",
    "slow_watch",
    "kill",
    "slow_disk",
    "cut_between_two",
    options=busy,
)
def unknown_outcome_means_no():
    def unknown(self):
        self.pending = None

    with patch.object(InSyncSet, "unknown", unknown):
        yield


@mutant("too small a set commits too", *CRASHES)
def min_isr_is_not_looked_at():
    with patch.object(InSyncSet, "is_too_small", False):
        yield


@mutant("a lease once held holds for ever", "isolated_broker", "store_cut_off", "split",
        options=lambda options: dataclasses.replace(options, faults_s=25.0, mean_gap_s=4.0,
                                                    replication_factor=2, min_isr=1))  # fmt: skip
def lease_is_trusted():
    with patch.object(Leadership, "may_acknowledge", lambda self, now, deadline: True):
        yield


# Where logs part.


@mutant("a replica begins again from its high watermark", *CRASHES)
def truncates_to_the_high_watermark():
    accept_epoch = ReplicaLog.accept_epoch

    def truncating(self, leader_epoch):
        if self.machine.high_watermark < self.machine.log_end:
            self.truncate(self.machine.high_watermark)
        accept_epoch(self, leader_epoch)

    with patch.object(ReplicaLog, "accept_epoch", truncating):
        yield


@mutant(
    "one round of truncation is enough",
    "leaders_isolated_in_turn",
    options=leading_in_turn,
)
def one_round_of_truncation():
    diverged = Following.diverged

    def once(self, message):
        target = diverged(self, message)
        self._agreed = self._agreed or target is not None
        return target

    with patch.object(Following, "diverged", once):
        yield


@mutant(
    "a follower truncates to where the leader says, whatever its own epochs are",
    "leaders_isolated_in_turn",
    options=leading_in_turn,
)
def own_epochs_are_not_looked_at():
    def diverged(self, message):
        ends = lambda epochs, epoch, log_end: EpochEnd(epoch, log_end)  # noqa: E731
        with patch.object(EpochMap, "end_offset_for", ends):
            return original(self, message)

    original = Following.diverged
    with patch.object(Following, "diverged", diverged):
        yield


@mutant("whoever asks has a prefix of the leader's log", *CRASHES, *CUTS, options=busy)
def leader_does_not_look_for_divergence():
    def followed(self, broker, broker_epoch, message, first_base, *, in_batch):
        answer = original(self, broker, broker_epoch, message, first_base, in_batch=in_batch)
        if isinstance(answer, Diverged):
            self.feeds.begin(broker, min(message.log_end, self._machine.log_end))
            return Handshake.FEED
        return answer

    original = Leadership.followed
    with patch.object(Leadership, "followed", followed):
        yield


@mutant("an epoch begins with its first record, not with its election", *CRASHES)
def epoch_is_not_begun_on_election():
    def begin_epoch(self, leader_epoch):
        self._accept(leader_epoch, None)
        self.machine.leader_epoch = leader_epoch

    with patch.object(ReplicaLog, "begin_epoch", begin_epoch):
        yield


# Who is believed.


@mutant("the accepted epoch reaches the disk some time", *CRASHES, "slow_disk")
def epoch_is_acknowledged_before_it_is_durable():
    with patch.object(ReplicaLog, "has_accepted_durably", True):
        yield


@mutant("messages of older epochs are as good as any",
        "store_cut_off", "slow_watch", "pause", "quick_restart", options=busy)  # fmt: skip
def epochs_of_messages_are_not_looked_at():
    def receive(self, sender, sender_epoch, message, now):
        if self._has_begun and self.why_stopped is None:
            role = self.leader or self.follower
            known = role.core.leader_epoch if role else None
            if known is not None and message.leader_epoch < known:
                message = dataclasses.replace(message, leader_epoch=known)
                if self.follower is not None:
                    sender, sender_epoch = self.follower.leader
        original(self, sender, sender_epoch, message, now)

    original = Replica.receive
    with patch.object(Replica, "receive", receive):
        yield


@mutant(
    "what a broker had on its disk it still has after a restart",
    "replaced_disk",
    "slow_disk",
    options=lambda options: dataclasses.replace(
        options,
        brokers=3,
        replication_factor=2,
        min_isr=2,
        unclean=False,
        relaxed=False,
        mean_gap_s=0.6,
        terms=dataclasses.replace(
            options.terms, lag_s=10.0, max_push_bytes=1, max_under_way_bytes=300
        ),
    ),
)
def progress_outlives_a_process():
    def heard(self, broker, broker_epoch):
        found = self._known.get(broker)
        if found is not None and found.broker_epoch < broker_epoch:
            found.broker_epoch = broker_epoch
        return original(self, broker, broker_epoch)

    original = Followers.heard
    with patch.object(Followers, "heard", heard):
        yield


@mutant("a replaced disk is the same replica", "replaced_disk", "quick_restart", "kill")
def lives_of_data_are_not_told_apart():
    def same_life(self, replica, durability):
        return replica.broker in self._brokers

    def replaced(self, replica, durability):
        return False

    def leads(self, partition):
        leader = partition.leader
        return self.serves(leader) and self.epoch(leader) == partition.leader_broker_epoch

    with (
        patch.object(Standing, "same_life", same_life),
        patch.object(Standing, "replaced", replaced),
        patch.object(Standing, "leads", leads),
        patch.object(partition_changes, "elected", _elected_as_named),
    ):
        yield


def _elected_as_named(partition, broker, standing):
    isr = tuple(each for each in partition.isr if standing.serves(each.broker)) or partition.isr
    changed = dataclasses.replace(partition, isr=isr, elr=())
    return partition_changes._led(changed, broker, partition.leader_epoch + 1, standing)


@mutant("any replica that serves may lead", *CRASHES, "replaced_disk")
def anybody_is_elected():
    def candidate(partition, standing):
        return next((each for each in partition.replicas if standing.stays(each)), None)

    def elected(partition, broker, standing):
        leader = standing.replica(broker, partition.durability)
        isr = tuple({leader, *(each for each in partition.isr if standing.serves(each.broker))})
        changed = dataclasses.replace(partition, isr=isr, elr=())
        return partition_changes._led(changed, broker, partition.leader_epoch + 1, standing)

    with (
        patch.object(partition_changes, "candidate", candidate),
        patch.object(partition_changes, "elected", elected),
    ):
        yield


@mutant("whoever ever left the ISR stays eligible", *CRASHES, "another_min_isr")
def the_elr_is_never_emptied():
    def eligible(before, isr, keeps):
        inside = {each.broker for each in isr}
        out = [each for each in (*before.elr, *before.isr) if each.broker not in inside]
        return Eligible(left=tuple(filter(keeps, out)))

    with patch.object(in_sync, "eligible", eligible):
        yield


@mutant("a replica joins as soon as it is heard of", *CRASHES, "slow_link")
def joins_without_having_caught_up():
    def joining(self, now):
        for broker in self.followers:
            registration = self.registered.get(broker)
            if registration is not None and not registration.fenced:
                yield broker, registration

    with patch.object(Leadership, "_joining", joining):
        yield


@mutant("a later process of a leader still leads", "quick_restart", "power_cut", "kill")
def a_restart_is_no_election():
    def leads(self, partition):
        return self.serves(partition.leader)

    with patch.object(Standing, "leads", leads):
        yield


@mutant("one vanished key fences a broker, and so does the next look", "leases_end_early")
def fencing_elects_without_an_epoch():
    def led(partition, broker, leader_epoch, standing):
        return dataclasses.replace(
            partition,
            leader=broker,
            leader_broker_epoch=standing.epoch(broker),
            partition_epoch=partition.partition_epoch + 1,
        )

    with patch.object(partition_changes, "_led", led):
        yield


@mutant(
    "a broker is what the image said of it when it is elected",
    "quick_restart",
    "slow_watch",
    "kill",
    options=busy,
)
def elections_do_not_compare_registrations():
    def unguarded(*decided_on, by_topic):
        _, write = original(*decided_on, by_topic=by_topic)
        return (), write

    original = controller.guarded_partition
    with patch.object(controller, "guarded_partition", unguarded):
        yield


@mutant(
    "who was eligible stays so when another number of replicas is asked for",
    "another_min_isr",
    "kill",
    "power_cut",
)
def another_min_isr_keeps_the_elr():
    def with_min_isr(partition, min_isr):
        return dataclasses.replace(original(partition, min_isr), elr=partition.elr)

    original = partition_changes.with_min_isr
    with patch.object(partition_changes, "with_min_isr", with_min_isr):
        yield


# What clients are told.


@mutant("a batch that was sent twice is written twice", *CUTS, "quick_restart")
def duplicates_are_written():
    with patch.object(ProducerTable, "check", lambda self, header: FRESH):
        yield


@mutant("sequences with gaps are fine", "stalled_disk", options=busy)
def gaps_in_sequences_are_written():
    def check(self, header):
        try:
            return original(self, header)
        except Refusal as refusal:
            if refusal.reason in (Reason.OUT_OF_ORDER_SEQUENCE, Reason.UNKNOWN_PRODUCER):
                return FRESH
            raise

    original = ProducerTable.check
    with patch.object(ProducerTable, "check", check):
        yield


@mutant("a duplicate is answered at once", *CUTS, "slow_disk", "quick_restart")
def duplicates_are_answered_before_they_are_committed():
    def append(self, append, admit):
        decided = self._decide(append)
        if isinstance(decided, Duplicate):
            count = append.batch.header.record_count
            append.done(Appended(decided.first_offset, count, duplicate=True))
            return
        original(self, append, admit)

    original = Appender.append
    with patch.object(Appender, "append", append):
        yield


@mutant("what is known of producers stays when the log is cut", *CRASHES)
def producers_outlive_a_truncation():
    def cut(self, state):
        self._writes += 1
        self._cuts += 1
        self._trim_to, self._trim_snapshot = 0, None
        self._first_base = None
        self.machine.cut(state)
        self.appender.cut()

    with patch.object(ReplicaLog, "_cut", cut):
        yield


@mutant("only a leader needs to know producers", *CRASHES)
def followers_know_no_producers():
    def appended(self, header, stamp, rows):
        if stamp.leader_epoch == self.leader_epoch:
            self.producers.appended(header, stamp)
        self.state = rows.state

    with patch.object(PartitionMachine, "appended", appended):
        yield


@mutant("readers may have what is written", *CUTS, "slow_disk")
def readers_see_what_is_not_committed():
    def read(self, offset, max_bytes):
        return self.log.read(offset, self.log.machine.log_end, max_bytes)

    with patch.object(Replica, "read", read):
        yield


# Damage.


@mutant("what a leader sends is what it wrote", "flipped_bit", "replaced_disk", options=damaged)
def pushed_batches_are_not_verified():
    def read(self, batch):
        count = batch.next_offset - batch.base_offset
        stamp = Stamp(batch.base_offset, count - 1, batch.leader_epoch, 1, 1)
        try:
            return original(self, batch) or ScannedBatch(BatchHeader(count, 1), stamp, batch.data)
        except Exception:
            return None

    original = FollowerRole._read
    with patch.object(FollowerRole, "_read", read):
        yield
