"""Each way to lose, reorder or lie is noticed, and a cluster that does none of it is left alone."""

from __future__ import annotations

import dataclasses

import pytest

from riverrun_server.core.log.batch import StoredBatch
from riverrun_server.core.replication.messages import Acked, Envelope, Push
from riverrun_server.ports.partitions import Acks
from tests.sim.cluster.invariants import STALE_S, Violation
from tests.sim.cluster.rows import P0, Cluster


def violation(rule: str):
    return pytest.raises(Violation, match=f"^{rule}: ")


@pytest.fixture
def cluster() -> Cluster:
    """Two batches everywhere, the first of which is committed; then broker 2 is elected."""
    it = Cluster()
    it.append(1, 2, 3, values=(b"a", b"b"))
    it.show(1, 2)
    it.append(1, 2, 3, values=(b"c",))
    return it


def send(it: Cluster, *messages: object, sender: int = 2) -> None:
    it.invariants.sent(Envelope(sender, 100 + sender, 1, messages))


def test_a_cluster_that_keeps_its_promises_is_left_alone(cluster):
    cluster.show(1, 3)
    cluster.acknowledge(1, b"a", b"b", at=0)
    cluster.acknowledge(1, b"c", at=2, acks=Acks.LEADER)
    cluster.invariants.delivered(1, P0, ((1, b"b"), (2, b"c")))
    cluster.accept(2, 1)
    send(cluster, Acked(P0, 1, 3, 7), Push(P0, 1, 1, (), 3, 0, 7, 3))
    cluster.elect(2, 2, 3)
    cluster.append(2, 3, values=(b"d",), epoch=2)
    cluster.show(2, 4, epoch=2)
    cluster.append(1, values=(b"d",), epoch=2)
    cluster.change(isr=cluster.lives(2, 3, 1))
    cluster.invariants.at_rest()
    assert cluster.invariants.checks > 10


def test_a_watermark_beyond_what_is_on_enough_disks(cluster):
    cluster.append(1, values=(b"d",))
    with violation("too-few-copies"):
        cluster.show(1, 4)


def test_a_watermark_beyond_what_is_written(cluster):
    with violation("committed-differs"):
        cluster.show(1, 4)


def test_a_watermark_in_the_middle_of_a_batch():
    it = Cluster()
    it.append(1, 2, 3, values=(b"a", b"b"))
    with violation("committed-differs"):
        it.show(1, 1)


def test_a_watermark_that_counts_what_is_written_but_not_synced(cluster):
    cluster.append(1, 2, values=(b"d",), sync=False)
    with violation("too-few-copies"):
        cluster.show(1, 4)


def test_a_watermark_that_an_isr_member_has_not_reached(cluster):
    cluster.append(1, 2, values=(b"d",))
    with violation("isr-without-committed"):
        cluster.show(1, 4)


def test_a_watermark_of_one_process_goes_back(cluster):
    cluster.show(1, 3)
    with violation("watermark-back"):
        cluster.show(1, 2)
    cluster.show(1, 2, process="1.1 again", epoch=4)


def test_two_processes_commit_in_one_epoch(cluster):
    with violation("two-leaders"):
        cluster.show(2, 2)


def test_a_leader_shows_another_log_than_was_committed(cluster):
    cluster.show(1, 3)
    cluster.change(isr=cluster.lives(1, 3), min_isr=1)
    cluster.truncate(2, 2)
    cluster.append(2, values=(b"x",))
    with violation("committed-differs"):
        cluster.show(2, 3, epoch=2)


def test_an_isr_member_truncates_what_is_committed(cluster):
    cluster.show(1, 3)
    with violation("isr-without-committed"):
        cluster.truncate(2, 2)


def test_a_replica_outside_the_isr_may_truncate_and_may_not_join_before_it_has_caught_up(cluster):
    cluster.show(1, 3)
    cluster.change(isr=cluster.lives(1, 3))
    cluster.truncate(2, 2)
    with violation("isr-without-committed"):
        cluster.change(isr=cluster.lives(1, 2, 3))


def test_a_replica_in_the_elr_holds_everything_too(cluster):
    cluster.change(isr=cluster.lives(1), elr=cluster.lives(2))
    cluster.show(1, 2)
    with violation("elr-without-committed"):
        cluster.truncate(2, 0)


def test_a_leader_elected_from_nowhere(cluster):
    cluster.change(isr=cluster.lives(1, 3))
    with violation("unclean-election"):
        cluster.elect(2)


def test_a_leader_elected_with_another_life_of_its_data(cluster):
    cluster.disks[2].wipe()
    with violation("unclean-election"):
        cluster.elect(2)


def test_a_fenced_leader_is_elected(cluster):
    with violation("elected-the-dead"):
        cluster.elect(2, is_registered=False)


def test_an_accepted_loss_is_one_and_what_was_lost_is_known():
    it = Cluster(unclean=True)
    it.append(1, 2, 3, values=(b"a",))
    it.append(1, 2, values=(b"b",))
    it.change(isr=it.lives(1, 2))
    it.show(1, 2)
    it.elect(3)
    assert it.watched.log.end == 1
    assert [(each.partition, each.from_offset) for each in it.history.losses] == [(P0, 1)]
    it.change(min_isr=1)
    it.append(3, values=(b"x",), epoch=2)
    it.show(3, 2, epoch=2)


def test_an_accepted_loss_takes_no_batch_for_lost_in_which_a_bit_was_flipped():
    """The elected replica knows that it was committed, and says so as before."""
    it = Cluster(unclean=True)
    it.append(1, 3, values=(b"a",))
    it.change(isr=it.lives(1, 3))
    it.show(1, 1)
    it.change(isr=it.lives(1))
    for durable in (False, True):
        rows = it.disks[3].store.stored(P0, durable=durable)
        good = rows.batches[0]
        rows.batches[0] = bad = good[:-1] + bytes([good[-1] ^ 1])
        it.disks[3].damaged[bad] = good
    it.elect(3)
    assert it.watched.log.end == 1
    it.show(3, 1, epoch=2)


def test_a_leader_elected_with_nothing_loses_everything():
    it = Cluster(unclean=True)
    it.append(1, 2, values=(b"a", b"b"))
    it.change(isr=it.lives(1, 2))
    it.show(1, 2)
    it.elect(3)
    assert it.watched.log.end == 0
    assert it.history.losses[0].from_offset == 0


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"isr": ()}, "value"),
        ({"isr": (2, 3)}, "value"),
        ({"isr": (1, 1)}, "value"),
        ({"isr": (1,), "elr": (1,)}, "value"),
        ({"isr": (1, 2), "elr": (3,)}, "value"),
        ({"isr": (1, 2, 3), "replicas": (1, 2)}, "value"),
        ({"leader_epoch": 0}, "value-change"),
        ({"partition_epoch": 0}, "value-change"),
        ({"leader": 2, "leader_broker_epoch": 102}, "value-change"),
        ({"leader_broker_epoch": 105}, "value-change"),
    ],
)
def test_a_value_that_cannot_be(cluster, fields, rule):
    for name in ("isr", "elr"):
        if name in fields:
            fields = {**fields, name: cluster.lives(*fields[name])}
    with violation(rule):
        cluster.change(**fields)


def test_a_leader_whose_disk_is_damaged_may_leave_the_isr_and_is_not_elected_outside(cluster):
    cluster.disks[1].damaged[b"now"] = b"before"
    cluster.change(isr=cluster.lives(2, 3))
    with violation("value"):
        cluster.elect(2, 3)


def test_an_acknowledgement_of_what_is_not_committed(cluster):
    with violation("acked-uncommitted"):
        cluster.acknowledge(1, b"c", at=2)
    with violation("acked-uncommitted"):
        cluster.acknowledge(1, b"b", at=0)


def test_an_acknowledgement_of_what_is_not_on_the_leaders_disk(cluster):
    cluster.append(1, values=(b"d",), sync=False)
    with violation("acked-unsynced"):
        cluster.acknowledge(1, b"d", at=3, acks=Acks.LEADER)


def test_a_leader_that_was_fenced_and_replaced_long_ago_still_answers(cluster):
    cluster.invariants.fenced_s[1] = 0.0
    cluster.elect(2, 2, 3)
    cluster.show(2, 2, epoch=2)
    cluster.world.run(STALE_S - 0.1)
    cluster.acknowledge(1, b"a", b"b", at=0)
    cluster.invariants.latest(1, P0, 1)
    cluster.world.run(STALE_S + 0.1)
    cluster.acknowledge(2, b"a", b"b", at=0, epoch=2)
    with violation("stale-leader"):
        cluster.acknowledge(1, b"a", b"b", at=0)
    with violation("stale-leader"):
        cluster.invariants.latest(1, P0, 1)


def test_a_delivery_of_what_is_not_committed(cluster):
    with violation("delivered-uncommitted"):
        cluster.invariants.delivered(1, P0, ((2, b"c"),))
    with violation("delivered-uncommitted"):
        cluster.invariants.delivered(1, P0, ((0, b"b"),))


def test_a_follower_acknowledges_what_it_has_not_synced(cluster):
    cluster.accept(2, 1)
    cluster.append(2, values=(b"d",), sync=False)
    with violation("acked-without-sync"):
        send(cluster, Acked(P0, 1, 4, 0))


def test_a_follower_acknowledges_in_an_epoch_that_its_disk_does_not_know(cluster):
    with violation("acked-other-epoch"):
        send(cluster, Acked(P0, 1, 3, 0))
    cluster.accept(2, 2)
    with violation("acked-other-epoch"):
        send(cluster, Acked(P0, 1, 3, 0))


def test_a_disk_forgets_which_epoch_it_accepted(cluster):
    cluster.accept(2, 5)
    with violation("accepted-epoch-back"):
        cluster.accept(2, 4)


def test_a_leader_tells_followers_a_watermark_that_nobody_has_shown(cluster):
    with violation("pushed-watermark"):
        send(cluster, Push(P0, 1, 1, (), 3, 0, 7, 3), sender=1)


def test_a_log_start_that_moved_without_a_deletion(cluster):
    log = cluster.disks[2].store.open(P0)
    log.save(dataclasses.replace(log.state, high_watermark=2))
    log.trim(dataclasses.replace(log.state, log_start_offset=2))
    cluster.disks[2].store.sync()
    with violation("isr-without-committed"):
        cluster.invariants.look()
    cluster.watched.log.deleted_below = 2
    cluster.invariants._seen.clear()
    cluster.invariants._versions.clear()
    cluster.invariants.look()


def test_a_flipped_bit_counts_for_what_it_was_on_its_own_disk_only(cluster):
    rows = cluster.disks[2].store.stored(P0, durable=True)
    good = rows.batches[0]
    bad = good[:-1] + bytes([good[-1] ^ 1])
    rows.batches[0] = bad
    cluster.disks[2].damaged[bad] = good
    cluster.change()
    cluster.disks[3].store.stored(P0, durable=True).batches[0] = bad
    with violation("isr-without-committed"):
        cluster.change()


def test_a_replica_that_stops_on_a_whole_disk(cluster):
    cluster.disks[1].damaged[b"bad"] = b"good"
    cluster.invariants.stopped(1, P0, "a checksum is wrong")
    with violation("stopped-without-damage"):
        cluster.invariants.stopped(2, P0, "a checksum is wrong")


def test_replicas_that_differ_behind_what_is_committed(cluster):
    cluster.append(1, values=(b"d",))
    cluster.append(2, 3, values=(b"x",))
    with violation("replicas-differ"):
        cluster.invariants.at_rest()


def test_a_replica_whose_rows_are_wrong_by_themselves(cluster):
    rows = cluster.disks[3].store.stored(P0, durable=False)
    rows.epochs.clear()
    with violation("raw-log"):
        cluster.invariants.at_rest()


def test_a_batch_that_was_pushed_is_not_looked_at_by_its_name_only(cluster):
    push = Push(P0, 1, 1, (StoredBatch(3, 4, 1, b"?"),), 2, 0, 1, 3)
    send(cluster, push, sender=1)  # bytes are judged where they are stored


# What is thrown away and deleted.


def test_who_may_be_elected_throws_its_data_away(cluster):
    cluster.change(isr=cluster.lives(1), elr=cluster.lives(2))
    for broker in (1, 2):
        with violation("threw-away-eligible"):
            cluster.invariants.threw_away(broker, f"{broker}.1", P0)
    cluster.invariants.threw_away(3, "3.1", P0)


def test_who_has_thrown_its_data_away_knows_no_watermark(cluster):
    cluster.show(1, 3)
    cluster.elect(2, 2, 3)
    cluster.invariants.threw_away(1, "1.1", P0)
    cluster.show(1, 2)


def test_what_was_said_to_be_deleted_is_stored(cluster):
    cluster.invariants.forget(P0)
    cluster.invariants.confirmed(P0.topic_id, (1, 2, 3))
    cluster.disks[1].store.drop(P0)
    cluster.disks[1].store.sync()
    cluster.invariants.confirmed(P0.topic_id, (2, 3))
    cluster.disks[2].store.drop(P0)
    with violation("deleted-is-back"):
        cluster.invariants.confirmed(P0.topic_id, (3,))


def test_what_was_deleted_is_stored_again(cluster):
    cluster.invariants.forget(P0)
    cluster.disks[1].store.drop(P0)
    cluster.disks[1].store.sync()
    cluster.invariants.confirmed(P0.topic_id, (2, 3))
    cluster.invariants.look()
    cluster.disks[1].store.open(P0)
    with violation("deleted-is-back"):
        cluster.invariants.look()


def test_nothing_is_expected_of_a_deleted_partition(cluster):
    cluster.invariants.forget(P0)
    cluster.change(isr=())
    cluster.show(2, 9)
    cluster.acknowledge(1, b"c", at=2)
    cluster.invariants.latest(1, P0, 1)
    cluster.invariants.delivered(1, P0, ((2, b"c"),))
    cluster.invariants.threw_away(1, "1.1", P0)
    send(cluster, Acked(P0, 1, 9, 7))
    cluster.invariants.at_rest()
