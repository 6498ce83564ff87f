"""Logs of replicas: cut, begun anew, damaged, on disks that are full, and how they travel."""

from __future__ import annotations

import dataclasses

import pytest

from riverrun_server.core.cluster.values import Replica
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.epochs import EPOCHS_LOST_MAX
from riverrun_server.core.replication.following import FollowingState
from riverrun_server.core.replication.messages import Push, Refused
from riverrun_server.core.replication.terms import Terms
from riverrun_server.ports.log import StorageFailed, StorageFull, StorageStalled
from riverrun_server.ports.partitions import Acks
from riverrun_server.runtime.replication.outbox import Outbox
from tests.runtime.replication_world import ID, World, life, ready

# Truncation.


def test_a_sync_that_began_before_a_truncation_proves_nothing_of_what_came_after():
    world = ready(min_isr=1)
    world[1].append(b"a")
    world[1].append(b"b")
    points = world[1].replicas.sync_points()
    world[1].store.sync()
    world.shrink(1, 2)
    world.elect(2)
    world.learn()
    world[2].append(b"c")
    world[2].append(b"d")
    world.run(sync=False)
    assert world[1].log() == world[2].log()
    world[1].replicas.synced(points, world.now)
    assert world[1].machine.durable_end == 0


def test_a_replica_that_led_without_a_record_takes_records_of_an_epoch_before():
    world = ready(min_isr=1)
    world[1].append(b"a")
    world.run()
    world[1].append(b"b")
    world.collect()
    world.deliver((1, 3))
    world[3].sync()
    world.links.clear()
    world.elect(2)
    world.learn(2)  # leads epoch 2 from offset 1 on and writes nothing
    world.elect(3)
    world.learn()
    world.settle()
    assert world[2].log() == world[3].log()
    assert [each[1] for each in world[2].log()] == [1, 1]
    assert world[2].replica.log.epochs.entries()[0] == (1, 0)
    assert len(world[2].replica.log.epochs.entries()) == 1


def test_a_batch_in_whose_midst_the_leaders_epoch_ends_goes_as_a_whole():
    """The leader knows epoch 2 up to offset 2, the follower epoch 1 up to 3 and then epoch 3."""
    world = ready(min_isr=1)
    world[1].append(b"a", b"a", b"a", acks=Acks.NONE)
    for leader, values in ((2, (b"b", b"b")), (1, (b"c",))):
        world.collect()
        world.links.clear()  # nobody hears of it
        world.elect(leader)
        world.learn(leader)
        world[leader].append(*values, acks=Acks.NONE)
    world.collect()
    world.links.clear()
    world.elect(2)
    world.learn()
    world.settle()
    assert world[1].log() == world[2].log() == world[3].log()
    assert [each[:2] for each in world[1].log()] == [(0, 2)]


def test_producers_of_what_was_truncated_come_back_in_no_snapshot():
    """A snapshot of them was due once they were committed, which they never were."""
    world = ready(min_isr=1)
    for producer in (1, 2, 3):
        world[1].append(bytes(90), producer_id=producer, acks=Acks.NONE)
    world.collect()
    world.deliver((1, 3))
    world.links.clear()
    assert world[3].machine.log_end == 3
    world.elect(2)
    world[1].crash()
    world.learn()
    world[2].append(*[b"a"] * 5, producer_id=4)
    world.settle(12)
    assert world[3].machine.high_watermark == 5
    world[3].store.sync()
    world.restart(3)
    world.learn()
    assert world[3].producers() == world[2].producers() != {}


def test_what_was_committed_is_given_up_after_a_loss_that_was_accepted_and_only_then():
    world = ready(min_isr=1)
    world[1].append(b"a")
    world.run()
    world.tick()
    world.run()
    assert world[1].machine.high_watermark == world[3].machine.high_watermark == 1
    world[2].crash()
    world[2].wipe()
    world[2].start()
    world.elect(2, isr=[Replica(2, life(2, 1))])
    world.learn()
    world.run()
    assert "committed" in world[1].replica.why_stopped
    assert [each[1] for each in world[1].log()] == [1]
    world.restart(3)
    world.elect(2, isr=[Replica(2, life(2, 1))], skip=EPOCHS_LOST_MAX)
    world[2].append(b"b")
    world.learn()
    world.settle()
    assert world[3].log() == world[2].log()
    assert world[3].replica.why_stopped is None


def test_followers_forget_silent_producers_too():
    world = ready()
    world[1].append(b"a", producer_id=1)
    world.settle(2)
    assert all(each.producers() for each in world.brokers.values())
    world.wall_ms += 3_600_000
    world.tick(300.0)
    assert [each.producers() for each in world.brokers.values()] == [{}, {}, {}]


# Beginning anew.


def trimmed_world(**how) -> World:
    """Broker 3 is away while the others go on and delete what it would need."""
    world = ready(min_isr=1, **how)
    for number in range(4):
        world[1].append(b"%d" % number, producer_id=number + 1)
    world.run()
    world[3].crash()
    world.elect(1)
    world.learn()
    for number in range(4, 9):
        world[1].append(b"%d" % number, producer_id=number + 1)
    world.settle(12)
    world[1].replica.trim(6)
    world.settle(2)
    return world


def test_a_replica_whose_log_ends_before_the_leaders_begins_starts_there():
    world = trimmed_world()
    assert world[1].machine.log_start == world[2].machine.log_start == 6
    world[3].start()
    world.learn()
    world.settle()
    assert world[3].log() == world[1].log()
    assert world[3].machine.log_start == 6
    assert {each.broker for each in world.value.isr} == {1, 2, 3}
    for producer in range(1, 10):
        # What was deleted is still known of its producers.
        world.elect(3) if producer == 1 else None
        world.learn()
        (answer,) = world[3].append(b"x", producer_id=producer)
        world.run()
        assert answer.duplicate


def test_a_log_begins_anew_with_the_epochs_before_that_and_none_of_later_ones():
    """Its next leader may never have had the later ones."""
    world = trimmed_world()
    world.elect(2)
    world.learn()
    world[2].append(b"a")
    assert world[2].replica.log.epochs.entries() == [(2, 4), (3, 9)]
    message = world[2].replica.log.restart_message(3)
    assert (message.log_start, message.epochs) == (6, ((2, 4),))


def half_begun() -> World:
    """Broker 3 has begun at offset 6 with a snapshot of offset 9, and two batches of three."""
    world = trimmed_world(terms=Terms(max_push_bytes=100, max_under_way_bytes=100))
    world[3].start()
    world.learn()
    world.run(sync=False)
    world[3].store.sync()
    log = world[3].replica.log
    assert (log.log.snapshot()[0], log.machine.producers_known_to) == (9, 9)
    assert (log.machine.log_start, log.machine.log_end) == (6, 8)
    return world


def test_who_leads_without_the_records_that_a_snapshot_tells_of_knows_no_producers():
    """Their batches are lost: to call them duplicates would be to say that they are there."""
    world = half_begun()
    world[1].crash()
    world[2].crash()
    world.elect(3, isr=[Replica(3, life(3))], skip=EPOCHS_LOST_MAX)
    world.learn()
    assert world[3].producers() == {}
    assert world[3].append(b"x", producer_id=9) == []
    (refused,) = world[3].append(b"x", producer_id=8, base_sequence=1)
    assert refused.error.reason is Reason.UNKNOWN_PRODUCER
    world.run()
    known = world[3].producers()
    world.restart(3)
    world.learn()
    assert world[3].replica.why_stopped is None
    assert world[3].producers() == known


def test_a_log_that_is_cut_below_its_only_snapshot_is_thrown_away():
    """Its producers could not be known: what was before its start is deleted."""
    log = half_begun()[3].replica.log
    log.truncate(7)
    assert (log.machine.log_start, log.machine.log_end) == (0, 0)
    assert log.log.snapshot() is None
    assert log.epochs.entries() == []
    log.recover()


def test_a_replica_that_begins_anew_and_crashes_at_once_does_it_again():
    world = trimmed_world()
    world[3].start()
    world.learn()
    world.run(sync=False)
    assert world[3].machine.log_start == 6
    world.restart(3)
    world.learn()
    assert world[3].machine.log_end == 4
    world.settle()
    assert world[3].log() == world[1].log()


def test_a_follower_that_falls_behind_what_is_deleted_begins_anew():
    world = ready(min_isr=1)
    world.broken.add((1, 3))
    for _ in range(6):
        world[1].append(b"a")
    world.settle(12)
    assert {each.broker for each in world.value.isr} == {1, 2}
    world[1].replica.trim(4)
    world.broken.clear()
    world.settle()
    assert world[3].machine.log_start == 4
    assert world[3].log() == world[1].log()


def test_what_is_deleted_on_the_leader_is_deleted_on_followers():
    world = ready()
    for number in range(4):
        world[1].append(b"a", producer_id=number + 1)
    world.settle(1)
    world[1].replica.trim(2)
    assert world[1].machine.log_start == 2
    with pytest.raises(Refusal):
        world[1].replica.trim(5)
    with pytest.raises(Refusal):
        world[2].replica.trim(2)
    world.settle(2)
    assert [each.machine.log_start for each in world.brokers.values()] == [2, 2, 2]
    world[1].replica.trim(-1)
    world.settle(2)
    assert [each.machine.log_start for each in world.brokers.values()] == [4, 4, 4]
    assert world[1].append(b"a", producer_id=2)[0].duplicate
    for broker in (1, 2, 3):
        world.restart(broker)
        world.learn()
        assert world[broker].machine.log_start == 4
        assert world[broker].replica.why_stopped is None


def test_a_deletion_waits_for_the_producers_that_it_would_forget_to_be_committed():
    world = ready()
    world[1].append(b"a", producer_id=1)
    world.run()
    answers = world[1].append(b"b", producer_id=2)
    world[1].replica.trim(1)
    assert world[1].machine.log_start == 0
    world.settle(1)
    assert answers
    assert world[1].machine.log_start == 1


def test_a_deletion_that_the_disk_refuses_happens_later_and_nothing_else_waits():
    world = ready()
    world[1].append(b"a")
    world.settle(1)
    world[1].store.refuse_writes(StorageStalled("behind"))
    world[1].replica.trim(1)
    world.tick()
    assert world[1].machine.log_start == 0
    world[1].store.refuse_writes(None)
    world.tick()
    assert world[1].machine.log_start == 1
    assert world[1].replica.leader is not None


def test_a_follower_that_is_overtaken_by_a_deletion_while_it_is_fed_begins_anew():
    world = ready(min_isr=1, terms=Terms(max_push_bytes=100, max_under_way_bytes=100))
    world.broken.add((3, 1))  # the leader hears nothing of what arrives
    for _ in range(6):
        world[1].append(bytes(90))
    world.settle(12)
    assert {each.broker for each in world.value.isr} == {1, 2}
    assert world[3].machine.log_end == 1
    world[1].replica.trim(4)
    world[1].replica.log.tail.clear()  # other partitions needed the room
    world.broken.clear()
    world.settle()
    assert world[3].machine.log_start == 4
    assert world[3].log() == world[1].log()


# Damage and full disks.


def test_a_batch_that_fails_its_checksum_is_not_written_and_is_asked_for_again():
    world = ready()
    world[1].append(b"a")
    world.collect()
    (envelope,) = world.links[(1, 2)]
    (push,) = envelope.messages
    (batch,) = push.batches
    damaged = batch._replace(data=batch.data[:-1] + bytes([batch.data[-1] ^ 1]))
    bad = dataclasses.replace(push, batches=(damaged,))
    world.links[(1, 2)] = [dataclasses.replace(envelope, messages=(bad,))]
    world.run()
    assert world[2].machine.log_end == 0
    assert world[1].replica.why_stopped is None
    world.tick()
    world.run()
    assert world[2].log() == world[1].log()


@pytest.mark.parametrize("field", ["base_offset", "leader_epoch"])
def test_a_batch_that_is_not_what_it_says_is_not_written(field):
    world = ready()
    world[1].append(b"a")
    world.collect()
    (envelope,) = world.links[(1, 2)]
    (push,) = envelope.messages
    (batch,) = push.batches
    other = batch._replace(**{field: getattr(batch, field) + 1})
    bad = dataclasses.replace(push, batches=(other,), base_offset=push.base_offset)
    world.links[(1, 2)] = [dataclasses.replace(envelope, messages=(bad,))]
    world.run()
    assert world[2].machine.log_end == 0


def test_a_leader_whose_own_batch_is_damaged_stops():
    world = ready(min_isr=1)
    world[1].append(b"a")
    world.run()
    stored = world[1].store._live.partitions[ID]
    data = stored.batches[0]
    stored.batches[0] = data[:-1] + bytes([data[-1] ^ 1])
    world[1].replica.log.tail.clear()
    world[3].crash()
    world[3].wipe()
    world[3].start()
    world.learn()
    world.settle(3)
    assert "checksum" in world[1].replica.why_stopped
    assert world[3].machine.log_end == 0


def test_a_stopped_follower_tells_its_leader_and_leaves():
    world = ready(min_isr=1)
    world[1].append(b"a")
    world.run()
    world[2].replica.stop("it contradicts what the leader has", damaged=False)
    world.settle(2)
    assert {each.broker for each in world.value.isr} == {1, 3}
    world.elect(3)
    world.learn()
    world.run()
    assert world[3].replica.leader.core.followers.of(2, world[2].replicas.broker_epoch).offline


def test_a_follower_without_room_pauses_and_goes_on_later():
    world = ready()
    world[2].store.refuse_writes(StorageFull("full"))
    answers = [world[1].append(b"a") for _ in range(3)]
    world.run()
    assert world[2].machine.log_end == 0
    world.tick()
    world.run()
    world[2].store.refuse_writes(None)
    world.tick()
    world.run()
    assert world[2].log() == world[1].log()
    assert all(each[0].error is None for each in answers)


def test_a_truncation_that_the_disk_refuses_happens_later():
    world = ready()
    world[1].append(b"a", acks=Acks.NONE)
    world.collect()
    world.links.clear()
    world.elect(2)
    world.learn()
    world[1].store.refuse_writes(StorageStalled("behind"))
    world.run()
    assert world[1].machine.log_end == 1
    world[1].store.refuse_writes(None)
    world.tick()
    world.run()
    assert world[1].machine.log_end == 0
    assert world[1].replica.follower.core.state is FollowingState.FOLLOWING


def test_a_role_that_the_disk_refuses_begins_later():
    world = ready()
    for broker in (2, 3):
        world[broker].store.refuse_writes(StorageStalled("behind"))
    world.elect(2)
    world.learn()
    assert world[2].replica.leader is None
    assert world[2].append(b"a")[0].error.reason is Reason.NOT_LEADER
    for broker in (2, 3):
        world[broker].store.refuse_writes(None)
    world.settle(2)
    assert world[2].append(b"a") == []
    world.settle(2)
    assert world[3].log() == world[2].log() != []


def test_only_what_was_written_is_synced():
    world = ready()
    assert world[1].replicas.sync_points() == []
    assert not world[1].replicas.is_dirty
    world[1].append(b"a")
    assert world[1].replicas.is_dirty
    assert [each.log_end for each in world[1].replicas.sync_points()] == [1]
    assert [each.log_end for each in world[1].replicas.sync_points()] == [1]
    world[1].append(b"b")  # while the disk works
    world[1].replicas.synced(world[1].replicas.sync_points()[:0], world.now)
    assert [each.log_end for each in world[1].replicas.sync_points()] == [2]
    world[1].sync()
    assert world[1].replicas.sync_points() == []
    assert not world[1].replicas.is_dirty


def test_a_disk_that_failed_is_told():
    world = ready()
    world[2].store.refuse_writes(StorageFailed("gone"))
    world[1].append(b"a")
    world.run(sync=False)
    assert [str(each) for each in world[2].failures] == ["gone"]


# Pushing.


def test_pushes_are_bounded_and_fill_what_may_be_under_way():
    terms = Terms(max_push_bytes=500, max_under_way_bytes=1_500)
    world = World(terms=terms)
    world.run()
    for _ in range(40):
        world[1].append(bytes(100))
    world.collect()
    pushes = world.sent(Push, to=2)
    sizes = [sum(len(batch.data) for batch in each.batches) for each in pushes]
    assert all(size <= 500 for size in sizes)
    assert 1_000 < sum(sizes) <= 2_000
    world.settle(1)
    assert world[2].log() == world[1].log()


def test_an_envelope_fits_a_frame():
    outbox = Outbox()
    world = ready()
    world[1].append(bytes(1_000))
    world.collect()
    (push,) = world.sent(Push, to=2)
    big = push.batches[0]._replace(data=bytes(1 << 20))
    for _ in range(7):
        outbox.send(2, dataclasses.replace(push, batches=(big,)))
    for _ in range(1_500):
        outbox.send(3, Refused(ID, 1, Reason.NOT_LEADER))
    envelopes = outbox.take_envelopes(1, 10)
    assert [(each.to, len(each.messages)) for each in envelopes] == [
        (2, 3),
        (2, 3),
        (2, 1),
        (3, 1_000),
        (3, 500),
    ]
    assert outbox.take_envelopes(1, 10) == []


def test_a_new_stream_loses_nothing_of_what_the_old_one_lost():
    world = ready()
    answers = [world[1].append(b"a") for _ in range(3)]
    world.collect()
    world.links.clear()
    world[1].replicas.disconnected(2)
    world[2].replicas.connected(1, world.now)
    world[3].replicas.connected(1, world.now)
    world.run()
    assert all(each[0].error is None for each in answers)


def test_nothing_is_sent_to_who_is_not_connected_until_it_asks():
    world = ready()
    world[1].append(bytes(1_000))
    world.collect()
    world.links.clear()
    world[1].replicas.disconnected(2)
    world[1].append(b"a")
    world.tick()
    world.collect()
    assert world.sent(Push, to=2) == []
    assert world.sent(Push, to=3)


def test_a_push_that_was_lost_is_asked_for_when_the_next_one_comes():
    world = ready()
    answers = [world[1].append(b"a")]
    world.collect()
    world.links.clear()
    answers.append(world[1].append(b"b"))
    world.run()
    assert [each[0].base_offset for each in answers] == [0, 1]


def test_readers_get_what_is_committed_and_no_more():
    world = ready()
    world[1].append(b"a")
    world.run()
    world[1].append(b"b")
    assert [each.base_offset for each in world[1].replica.read(0, 1 << 20)] == [0]
    assert world[1].replica.latest_offset(world.now) == 1


def test_a_deleted_topic_is_forgotten_and_its_appends_are_answered():
    world = ready()
    answers = world[1].append(b"a")
    world[1].replicas.forget(ID, "deleted")
    assert world[1].replicas.find(ID) is None
    assert not answers[0].error.meaning.definite
    world[1].replicas.forget(ID, "deleted")


def test_however_many_partitions_wait_only_so_much_is_gathered_at_once():
    world, outbox = ready(), Outbox()
    world[1].append(bytes(1_000))
    world.collect()
    (push,) = world.sent(Push, to=2)
    big = dataclasses.replace(push, batches=(push.batches[0]._replace(data=bytes(3 << 20)),))
    for number in range(5):
        outbox.feed_later(ID._replace(partition=number), lambda: outbox.send(2, big))
        outbox.feed_later(ID._replace(partition=number), lambda: outbox.send(2, big))
    assert [len(outbox.take_envelopes(1, 10)), outbox.has_more] == [3, True]
    assert [len(outbox.take_envelopes(1, 10)), outbox.has_more] == [2, False]


def test_a_deletion_that_came_before_the_records_of_a_snapshot_is_not_forgotten():
    """The log start lies in a batch; a replica begins from nothing, comes in sync, and leads."""
    world = ready(terms=Terms(max_push_bytes=1))
    world[1].append(b"a", b"b", b"c", producer_id=7)
    world[1].append(b"d", b"e", b"f", producer_id=8)
    world[1].append(b"g", producer_id=9)
    world.run()
    world[3].crash()
    world.shrink(1, 2)
    world[1].replica.trim(5)
    world.run()
    world.tick()
    world.run()
    assert (world[1].machine.log_start, world[1].replica.log.first_base) == (5, 3)
    world[3].wipe()
    world.restart(3)
    world.learn()
    world.settle(8)
    assert 3 in [each.broker for each in world.value.isr]
    world.elect(3)
    world.learn()
    world.settle(3)
    assert world[3].machine.log_start == 5, "what was deleted can be read again"
