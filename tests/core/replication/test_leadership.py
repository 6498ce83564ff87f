"""What a leader commits, acknowledges and asks for."""

from __future__ import annotations

import dataclasses

import pytest

from riverrun_server.core.cluster.values import Durability, Id, PartitionValue, Replica
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import BatchHeader, PartitionId
from riverrun_server.core.log.epochs import EpochEntry, EpochMap
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.log.state import LogState
from riverrun_server.core.producers import ProducerTable
from riverrun_server.core.replication.feeding import Feeds, Windows
from riverrun_server.core.replication.isr import InSyncSet
from riverrun_server.core.replication.leadership import Handshake, Leadership
from riverrun_server.core.replication.messages import Acked, Diverged, Follow
from riverrun_server.core.replication.terms import Registered, Terms

ID = PartitionId(b"t" * 16, 0)
EPOCH = 7


def life(broker: int, number: int = 0) -> Replica:
    return Replica(broker, Id(bytes([broker, number]) * 8))


class Led:
    """A leadership of broker 1 over brokers 2 and 3, whose processes are 20 and 30."""

    def __init__(
        self, *isr: int, min_isr: int = 2, end: int = 0, elr=(), now: float = 100.0
    ) -> None:
        self.now = now
        state = LogState(log_end_offset=end)
        self.machine = PartitionMachine(
            state, ProducerTable(9), leader_epoch=EPOCH, replicated=True
        )
        self.machine.synced(end)
        self.epochs = EpochMap([EpochEntry(3, 0), EpochEntry(EPOCH, end)])
        self.value = PartitionValue(
            leader=1,
            leader_epoch=EPOCH,
            leader_broker_epoch=10,
            replicas=(1, 2, 3),
            isr=tuple(map(life, isr or (1, 2, 3))),
            elr=tuple(map(life, elr)),
            min_isr=min_isr,
        )
        insync = InSyncSet(1, self.value, 9)
        feeds = Feeds(1_000, 1_000, Windows(1_000), lambda: None)
        self.core = Leadership(self.machine, self.epochs, insync, feeds, 1, end, Terms(), now)
        self.core.lease_deadline = float("inf")
        self.register()

    def register(self, broker: int = 1, **how) -> None:
        known = {each: Registered(each * 10, life(each), each) for each in (1, 2, 3)}
        known[broker] = dataclasses.replace(known[broker], **how)
        self.core.registered = known

    def append(self, count: int = 1, *, synced: bool = True) -> None:
        header = BatchHeader(count, 10)
        stamp = self.machine.decide(header, None, 1_000)
        self.machine.appended(header, stamp, self.machine.rows(header, stamp, 10))
        if synced:
            self.machine.synced(self.machine.log_end)
            self.core.advance(self.now)

    def ack(self, broker: int, end: int, probe: int = 0, *, process: int | None = None) -> bool:
        message = Acked(ID, EPOCH, end, probe)
        return self.core.acked(broker, process or broker * 10, message, self.now)

    def tick(self, seconds: float):
        self.now += seconds
        self.core.tick(self.now)
        return self.core.change(self.now)

    @property
    def committed(self) -> int:
        return self.machine.high_watermark


def test_what_everybody_in_sync_has_on_the_disk_is_committed():
    it = Led()
    it.append(10)
    assert not it.ack(2, 10)
    assert it.committed == 0
    assert it.ack(3, 6)
    assert it.committed == 6
    assert it.ack(3, 10)
    assert it.committed == 10


def test_the_leaders_own_disk_counts_too():
    it = Led()
    it.append(10, synced=False)
    it.ack(2, 10)
    it.ack(3, 10)
    assert it.committed == 0
    it.machine.synced(4)
    assert it.core.advance(it.now)
    assert it.committed == 4


def test_nothing_is_committed_while_too_few_are_in_sync():
    it = Led(1, min_isr=2)
    it.append(5)
    it.ack(2, 5)
    it.ack(3, 5)
    assert it.committed == 0
    change = it.tick(0.1)
    assert change.value.isr == (life(1), life(2))
    assert not it.core.advance(it.now)  # asked for is not in
    it.core.insync.seen(change.value, 10)
    assert it.core.advance(it.now)
    assert it.committed == 5


def test_who_is_about_to_join_counts_already():
    it = Led(1, 2, min_isr=1)
    it.append(5)
    it.ack(2, 5)
    it.ack(3, 5)
    assert it.tick(0.1).value.isr == (life(1), life(2), life(3))
    it.append(5)
    it.ack(2, 10)
    assert it.committed == 5
    it.core.insync.unknown()
    assert not it.core.advance(it.now)
    it.ack(3, 7)
    assert it.committed == 7


def test_who_is_about_to_leave_counts_until_that_is_known():
    it = Led(min_isr=1)
    it.append(5)
    it.ack(2, 5)
    probe = it.core.followers.probes
    for _ in range(11):
        it.tick(1.0) if it.core.insync.pending is None else None
        it.ack(2, 5, probe.newest)
    pending = it.core.insync.pending
    assert pending.isr == (life(1), life(2))
    assert it.committed == 0
    it.core.insync.unknown()
    it.core.insync.not_applied()
    assert not it.core.advance(it.now)
    assert it.committed == 0
    it.core.insync.seen(pending, 10)
    assert it.core.advance(it.now)
    assert it.committed == 5


def test_another_life_of_a_member_counts_for_nothing_and_the_member_leaves():
    it = Led(min_isr=1)
    it.append(5)
    it.ack(3, 5)
    it.register(2, replica=life(2, 1), broker_epoch=21)
    it.ack(2, 5, process=21)
    assert it.committed == 0
    change = it.tick(0.1)
    assert change.value.isr == (life(1), life(3))
    it.core.insync.seen(change.value, 10)
    assert it.core.advance(it.now)
    assert it.tick(0.1).value.isr == (life(1), life(3), life(2, 1))


def test_what_an_earlier_process_had_is_forgotten():
    it = Led(1, 2, min_isr=1)
    it.append(5)
    it.ack(2, 3)
    it.register(2, broker_epoch=21)
    it.ack(2, 2, process=21)
    it.append(1)
    assert it.committed == 3
    it.ack(2, 6)  # of the process that is gone
    assert it.committed == 3


# Joining.


def test_who_has_what_is_committed_and_where_the_epoch_began_joins():
    it = Led(1, 2, min_isr=1, end=5)
    it.append(5)
    it.ack(3, 4)
    assert it.tick(0.1) is None  # 0 is committed, but the epoch began at 5 (KIP-903)
    it.ack(2, 10)
    it.ack(3, 9)
    assert it.tick(0.1) is None  # 10 is committed
    it.ack(3, 10)
    change = it.tick(0.1)
    assert change.value.isr == (life(1), life(2), life(3))
    assert change.mod_revision == 9
    assert change.guards == ((3, 3),)


@pytest.mark.parametrize(
    "how", [{"fenced": True}, {"draining": True}, {"broker_epoch": 31}], ids=str
)
def test_who_is_fenced_draining_or_another_process_does_not_join(how):
    it = Led(1, 2, min_isr=1)
    it.ack(3, 0)
    it.register(3, **how)
    assert it.tick(0.1) is None
    it.register()
    assert it.tick(0.1) is not None


def test_who_is_not_registered_or_not_a_replica_does_not_join():
    it = Led(1, 2, min_isr=1)
    it.ack(3, 0)
    it.ack(4, 0)
    it.core.registered = {**it.core.registered, 4: Registered(40, life(4), 4)}
    del it.core.registered[3]
    assert it.tick(0.1) is None


def test_who_left_because_it_is_gone_does_not_join_again_by_what_it_had():
    """Where too few are in sync nothing more is committed, and it has what was."""
    it = Led(1, 2, min_isr=2)
    it.ack(2, 0)
    it.append(5)
    left = next(filter(None, (it.tick(1.0) for _ in range(12))))
    assert left.value.isr == (life(1),)
    it.core.insync.seen(left.value, 10)
    assert [it.tick(1.0) for _ in range(5)] == [None] * 5
    it.ack(2, 5)
    assert it.tick(1.0).value.isr == (life(1), life(2))


def test_who_was_not_heard_of_for_a_while_does_not_join():
    it = Led(1, 2, min_isr=1)
    it.ack(3, 0)
    assert it.tick(3.1) is None
    it.ack(3, 0)
    assert it.tick(2.9) is not None


def test_what_a_broker_had_is_forgotten_when_it_holds_no_replica():
    it = Led(1, 2, min_isr=1)
    it.ack(3, 0)
    without = dataclasses.replace(it.value, replicas=(1, 2))
    it.core.insync.seen(without, 10)
    assert it.tick(0.1) is None
    it.core.insync.seen(it.value, 11)
    assert it.tick(0.1) is None
    it.ack(3, 0)
    assert it.tick(0.1) is not None


# Leaving.


def test_who_did_not_keep_up_for_too_long_leaves():
    it = Led(min_isr=1)
    it.append(5)
    it.ack(2, 5)
    for _ in range(10):
        assert it.tick(1.0) is None
    assert it.tick(1.0).value.isr == (life(1), life(2))


def test_who_is_always_a_moment_behind_a_busy_leader_stays():
    it = Led(min_isr=1)
    for _ in range(30):
        assert it.tick(1.0) is None
        probe = it.core.followers.probes.newest
        end = it.machine.log_end
        it.append(5)
        for broker in (2, 3):
            it.ack(broker, end, probe)


def test_who_has_everything_stays_however_quiet_it_is():
    it = Led(min_isr=1)
    it.ack(2, 0)
    it.ack(3, 0)
    for _ in range(30):
        assert it.tick(1.0) is None


def test_a_leader_that_did_not_run_blames_nobody():
    it = Led(min_isr=1)
    it.append(5)
    assert it.tick(30.0) is None
    for _ in range(10):
        assert it.tick(1.0) is None
    assert it.tick(1.1).value.isr == (life(1),)


def test_who_made_the_set_too_small_stays_eligible_and_who_is_damaged_does_not():
    it = Led(min_isr=2)
    it.ack(2, 0)
    it.core.went_offline(2, 20)
    it.append(1)
    value = it.tick(0.1).value
    assert (value.isr, value.elr) == ((life(1), life(3)), ())
    it.core.insync.seen(value, 10)
    change = next(filter(None, (it.tick(1.0) for _ in range(11))))
    assert (change.value.isr, change.value.elr) == ((life(1),), (life(3),))


def test_what_a_damaged_follower_had_counts_no_more():
    it = Led(1, 2, min_isr=1)
    it.append(5)
    it.ack(2, 3)
    it.core.went_offline(2, 20)
    it.ack(2, 5)  # was on its way
    assert it.committed == 3
    assert it.core.followed(2, 20, Follow(ID, EPOCH, 0, None), 0) is Handshake.FEED
    it.ack(2, 5)
    assert it.committed == 5


def test_a_doubt_is_settled_by_another_write_now_and_then():
    it = Led(1, 2, min_isr=1)
    it.ack(3, 0)
    asked = it.tick(0.1)
    assert it.tick(0.1) is None
    it.core.insync.unknown()
    settling = it.tick(0.1)
    assert settling.value.isr == (life(1), life(2))
    assert settling.mod_revision == asked.mod_revision
    assert it.tick(0.1) is None
    assert it.tick(1.0) == settling


# Admission and acknowledgement.


def refused(check) -> Reason:
    with pytest.raises(Refusal) as caught:
        check()
    assert caught.value.meaning.definite
    return caught.value.reason


def test_an_append_for_all_is_refused_while_too_few_are_in_sync():
    it = Led(1, min_isr=2)
    assert refused(lambda: it.core.admit(it.now, needs_all=True)) is Reason.NOT_ENOUGH_REPLICAS
    it.core.admit(it.now, needs_all=False)
    assert it.core.too_few().reason is Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND
    assert not it.core.too_few().meaning.definite
    Led(1, 2, min_isr=2).core.admit(it.now, needs_all=True)
    assert Led(1, 2, min_isr=2).core.too_few() is None


def test_past_the_lease_everybody_who_could_be_elected_must_have_confirmed():
    it = Led(1, 2, min_isr=2, elr=(3,))
    it.append(5)
    it.tick(0.0)
    probe, sent_at = it.core.followers.probes.newest, it.now
    it.core.lease_deadline = it.now + 1.0
    assert it.core.may_acknowledge(it.now, it.core.lease_deadline)
    it.now += 1.0
    assert not it.core.may_acknowledge(it.now, it.core.lease_deadline)
    it.ack(2, 5, probe)
    assert not it.core.may_acknowledge(it.now, it.core.lease_deadline)
    assert it.committed == 0
    it.ack(3, 5, probe)
    assert it.core.may_acknowledge(it.now, it.core.lease_deadline)
    assert it.core.advance(it.now) or it.committed == 5
    # It counts from when it was asked, and for one time to live.
    it.now = sent_at + 3.0
    assert it.core.may_acknowledge(it.now, it.core.lease_deadline)
    it.now = sent_at + 3.1
    assert not it.core.may_acknowledge(it.now, it.core.lease_deadline)
    assert refused(lambda: it.core.admit(it.now, needs_all=False)) is Reason.PARTITION_OFFLINE


def test_past_the_lease_who_could_join_by_a_pending_change_must_confirm_too():
    it = Led(1, 2, min_isr=1)
    it.tick(0.0)
    it.ack(2, 0, it.core.followers.probes.newest)
    assert it.core.may_acknowledge(it.now, 0.0)
    it.ack(3, 0)
    assert it.tick(0.1) is not None
    assert not it.core.may_acknowledge(it.now, 0.0)


def test_without_anybody_else_to_elect_the_lease_does_not_matter():
    it = Led(1, min_isr=1)
    assert it.core.may_acknowledge(it.now, 0.0)
    it.append(3)
    it.core.lease_deadline = 0.0
    it.core.advance(it.now)
    assert it.committed == 3
    it.core.unclean_allowed = True
    assert not it.core.may_acknowledge(it.now, 0.0)
    it.append(3)
    assert it.committed == 3
    it.tick(0.1)
    for broker in (2, 3):
        assert not it.core.may_acknowledge(it.now, 0.0)
        it.ack(broker, 0, it.core.followers.probes.newest)
    assert it.core.may_acknowledge(it.now, 0.0)


def test_the_only_replica_of_a_topic_that_accepts_losses_relies_on_its_lease():
    """A later process of its broker, on an empty disk, could be elected; nobody would deny it."""
    it = Led(1, min_isr=1)
    it.core.insync = InSyncSet(1, dataclasses.replace(it.value, replicas=(1,)), 9)
    assert it.core.may_acknowledge(it.now, 0.0)
    it.core.unclean_allowed = True
    assert not it.core.may_acknowledge(it.now, 0.0)
    assert it.core.may_acknowledge(it.now, it.now + 1.0)


def test_a_deposed_leader_commits_and_admits_nothing():
    it = Led(1, 2, min_isr=1)
    it.append(5)
    it.core.depose()
    it.ack(2, 5)
    assert it.committed == 0
    assert not it.core.may_acknowledge(it.now, float("inf"))
    assert refused(lambda: it.core.admit(it.now, needs_all=False)) is Reason.FENCED_LEADER_EPOCH
    assert it.tick(0.1) is None


def test_the_latest_offset_is_told_once_the_epochs_beginning_is_committed():
    """An earlier leader may have told a later offset (KIP-207)."""
    it = Led(1, 2, min_isr=1, end=5)
    it.append(1)
    for end in (0, 4):
        it.ack(2, end)
        assert refused(lambda: it.core.latest_offset(it.now)) is Reason.OFFSET_NOT_AVAILABLE
    it.ack(2, 5)
    assert it.core.latest_offset(it.now) == 5


# Handshakes.


def follow(it: Led, end: int, last: int | None, first_base: int = 0):
    return it.core.followed(2, 20, Follow(ID, EPOCH, end, last), first_base)


def test_a_log_that_is_a_prefix_is_fed_from_its_end():
    it = Led(end=8)
    it.append(2)
    for end, last in ((0, None), (5, 3), (8, 3), (9, EPOCH), (10, EPOCH)):
        assert follow(it, end, last) is Handshake.FEED
        assert it.core.feeds.next_portion(2, 10).offset == end


def test_a_log_that_is_not_a_prefix_is_told_where_they_part():
    it = Led(end=8)
    assert follow(it, 5, 2) == Diverged(ID, EPOCH, 2, 0, 2)
    assert follow(it, 9, 3) == Diverged(ID, EPOCH, 3, 8, 3)
    assert follow(it, 12, 5) == Diverged(ID, EPOCH, 3, 8, 5)
    # All of it was deleted, and more than the leader ever had: data was lost in the election.
    assert follow(it, 12, None) == Diverged(ID, EPOCH, EPOCH, 8, None)
    assert it.core.feeds.next_portion(2, 8) is None


def test_a_log_that_ends_before_the_leaders_begins_is_to_begin_anew():
    it = Led(end=8)
    it.epochs.trim_to(8)
    assert follow(it, 5, 3, first_base=8) is Handshake.RESTART
    # Whether its last record is the one that was deleted here nobody can tell.
    assert follow(it, 8, 3, first_base=8) is Handshake.RESTART
    assert follow(it, 8, None, first_base=8) is Handshake.FEED


def test_a_log_of_which_everything_was_deleted_is_fed_from_its_end():
    it = Led(end=8)
    assert follow(it, 5, None) is Handshake.FEED


def test_an_earlier_process_is_not_answered():
    it = Led(end=8)
    follow(it, 0, None)
    older = it.core.followed(2, 19, Follow(ID, EPOCH, 5, 3), 0)
    assert older is Handshake.IGNORE
    assert it.core.feeds.next_portion(2, 8).offset == 0


def syncing(*isr, **how):
    it = Led(*isr, **how)
    value = dataclasses.replace(it.value, durability=Durability.SYNCING)
    it.core.insync = InSyncSet(1, value, 9)
    known = {
        each: Registered(each * 10, life(each), each, synced=life(each, 5)) for each in (1, 2, 3)
    }
    it.core.registered = known
    return it


def test_a_partition_is_durable_once_all_in_sync_have_acknowledged_in_this_epoch():
    it = syncing(end=5)
    assert it.tick(1.0) is None
    it.ack(2, 5)
    assert it.tick(1.0) is None
    it.ack(3, 4)
    assert it.tick(1.0) is None, "it lacks what may have counted"
    it.ack(3, 5)
    assert it.core.change(it.now, is_begun=False) is None, "the leader's own disk may lack it"
    change = it.tick(1.0)
    assert change.value.durability is Durability.FSYNC
    assert change.value.isr == tuple(life(each, 5) for each in (1, 2, 3))
    assert change.guards == ((1, 1), (2, 2), (3, 3)), "as the processes that acknowledged"
    assert it.tick(1.0) is None


def test_what_is_committed_moves_on_while_a_partition_becomes_durable():
    it = syncing()
    it.ack(2, 0)
    it.ack(3, 0)
    change = it.tick(1.0)
    it.append(5)
    it.ack(2, 5)
    assert it.ack(3, 5)
    it.core.insync.seen(change.value, 12)
    it.append(5)
    it.ack(2, 10)
    assert it.ack(3, 10)
    assert it.tick(1.0) is None


def test_who_joins_a_partition_that_has_become_durable_is_a_life_of_that_class():
    it = syncing(1, 2)
    it.ack(2, 0)
    change = it.tick(1.0)
    it.core.insync.seen(change.value, 12)
    it.ack(3, 0)
    assert life(3, 5) in it.tick(1.0).value.isr


def test_too_few_in_sync_keep_those_eligible_beside_them_before_they_become_durable():
    it = syncing(1, elr=[2])
    assert it.tick(1.0) is None


# Values that others wrote.


def foreign(it: Led, **changes) -> None:
    """Let a value stand that the leader did not write."""
    value = dataclasses.replace(it.core.insync.committed, **changes)
    value = dataclasses.replace(value, partition_epoch=value.partition_epoch + 1)
    it.core.seen(value, it.core.insync.revision + 1)


def test_behind_a_value_of_others_who_is_outside_has_to_say_anew_what_it_has():
    it = Led(1, 2, end=5)
    it.tick(1.0)
    before = it.core.followers.probes.newest
    it.ack(3, 5, before)
    foreign(it)
    assert it.core.change(it.now) is None
    it.ack(3, 5, before)  # from before, on an older stream
    assert it.core.change(it.now) is None
    it.tick(1.0)
    it.ack(3, 2, it.core.followers.probes.newest)
    assert it.core.followers.of(3, 30).durable_end == 2
    it.ack(3, 5, it.core.followers.probes.newest)
    assert it.core.change(it.now).value.isr[-1] == life(3)


def test_behind_a_value_of_others_who_may_be_elected_counts_on():
    it = Led(1, 2, min_isr=2, end=5)
    it.ack(2, 5)
    foreign(it)
    assert it.core.followers.of(2, 20).durable_end == 5
    foreign(it, isr=(life(1),), elr=(life(2),))
    assert it.core.followers.of(2, 20).durable_end == 5


def test_a_value_that_is_not_newer_makes_nobody_doubtful():
    it = Led(1, 2, end=5)
    it.ack(3, 5)
    it.core.seen(it.core.insync.committed, it.core.insync.revision)
    assert it.core.followers.of(3, 30).durable_end == 5


def test_who_is_doubted_confirms_the_leader_epoch_all_the_same():
    it = Led(1, 2, end=5)
    it.tick(1.0)
    foreign(it)
    it.ack(3, 5, it.core.followers.probes.newest)
    assert it.core.followers.of(3, 30).confirmed_at == it.now


def test_how_far_a_follower_has_come_is_known_from_its_question_too():
    it = Led(1, 2, end=50)
    assert it.core.log_end_of(3) == 0
    it.core.followed(3, 30, Follow(ID, EPOCH, 40, 3), 0)
    assert it.core.log_end_of(3) == 40
    it.ack(3, 45)
    assert it.core.log_end_of(3) == 45
