"""Replicas of one partition over stores that crash: what is answered, refused, written and asked for."""

from __future__ import annotations

import dataclasses

import pytest

from riverrun_server.core.cluster.keys import PartitionKey
from riverrun_server.core.cluster.values import Durability, Replica
from riverrun_server.core.errors import Reason
from riverrun_server.core.log.epochs import EPOCHS_LOST_MAX
from riverrun_server.core.replication.following import FollowingState
from riverrun_server.core.replication.messages import Acked, Envelope, Follow, Push, Refused
from riverrun_server.core.replication.terms import Terms
from riverrun_server.ports.log import StorageFailed, StorageFull, StorageStalled
from riverrun_server.ports.partitions import Acks
from riverrun_server.runtime.replication.outbox import Outbox, Outcome
from tests.runtime.replication_world import ID, TOPIC, World, life


def ready(**how) -> World:
    world = World(**how)
    world.run()
    return world


def sent(world: World, kind, *, to: int | None = None):
    """Return the messages of a kind that are on their way."""
    return [
        message
        for (_, receiver), queue in world.links.items()
        for envelope in queue
        for message in envelope.messages
        if isinstance(message, kind) and to in (None, receiver)
    ]


def shrink(world: World, *left: int) -> None:
    """Let the replicas in sync be these, as the metadata say."""
    value = world.value
    isr = tuple(Replica(each, life(each)) for each in left)
    epoch = value.partition_epoch + 1
    changed = dataclasses.replace(value, isr=isr, partition_epoch=epoch)
    world.write(PartitionKey(TOPIC, 0), changed)
    world.learn()


# Answers.


def test_an_append_for_all_is_answered_once_all_in_sync_have_it_on_the_disk():
    world = ready()
    answers = world[1].append(b"a")
    world.run(sync=False)
    assert world[2].machine.log_end == world[3].machine.log_end == 1
    world[1].sync()
    world[2].sync()
    world.run(sync=False)
    assert answers == []
    world[3].sync()
    world.run(sync=False)
    assert [each.base_offset for each in answers] == [0]


def test_an_append_for_the_leader_is_answered_once_it_is_on_its_disk():
    world = ready()
    for_leader = world[1].append(b"a", acks=Acks.LEADER)
    for_none = world[1].append(b"b", acks=Acks.NONE)
    assert for_leader == []
    assert for_none[0].base_offset == 1
    world[1].sync()
    assert for_leader[0].base_offset == 0


def test_who_does_not_lead_refuses_an_append():
    world = ready()
    (answer,) = world[2].append(b"a")
    assert answer.error.reason is Reason.NOT_LEADER
    assert world[2].machine.log_end == 0


def test_an_append_is_refused_and_not_written_while_too_few_are_in_sync():
    world = ready(min_isr=2)
    shrink(world, 1)
    (answer,) = world[1].append(b"a")
    assert answer.error.reason is Reason.NOT_ENOUGH_REPLICAS
    assert world[1].machine.log_end == 0
    assert world[1].append(b"b", acks=Acks.NONE)[0].base_offset == 0


def test_what_waits_when_too_few_are_left_is_answered_as_unknown():
    world = ready(min_isr=2)
    answers = world[1].append(b"a")
    for_leader = world[1].append(b"b", acks=Acks.LEADER)
    shrink(world, 1)
    (answer,) = answers
    assert answer.error.reason is Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND
    assert not answer.error.meaning.definite
    assert for_leader == []
    world.run()
    assert for_leader[0].error is None
    assert world[1].machine.high_watermark == 0


def test_a_batch_sent_again_while_too_few_are_in_sync_is_not_refused_as_unwritten():
    world = ready(min_isr=2)
    world[1].append(b"a", producer_id=9)
    shrink(world, 1)
    (again,) = world[1].append(b"a", producer_id=9)
    assert again.error.reason is Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND
    assert world[1].machine.log_end == 1


def test_what_was_committed_before_is_answered_though_too_few_are_in_sync():
    world = ready(min_isr=2)
    world[1].append(b"a", producer_id=9)
    world.run()
    shrink(world, 1)
    (again,) = world[1].append(b"a", producer_id=9)
    assert (again.base_offset, again.duplicate) == (0, True)


def test_what_waits_when_the_leadership_ends_is_answered_as_unknown():
    world = ready()
    answers = world[1].append(b"a")
    world.elect(2)
    world.learn()
    assert not answers[0].error.meaning.definite
    assert world[1].replica.leader is None


def test_past_the_lease_appends_wait_until_followers_have_confirmed():
    world = ready()
    answers = world[1].append(b"a")
    world[1].replicas.lease(world.now)
    world.run()
    assert answers == []
    assert world[1].machine.high_watermark == 0
    (refused,) = world[1].append(b"b")
    assert refused.error.reason is Reason.PARTITION_OFFLINE
    world.tick(1.0)
    world.run()
    assert answers[0].base_offset == 0


def test_with_relaxed_durability_what_is_written_counts():
    world = World(durability=Durability.RELAXED)
    world.run()
    answers = world[1].append(b"a")
    world.run(sync=False)
    assert answers[0].base_offset == 0
    assert world[2].store.unsynced_writes


# The replicas in sync.


@pytest.mark.parametrize("written", [True, False])
def test_a_join_of_which_nobody_knows_counts_until_it_is_known(written):
    world = ready(min_isr=1)
    shrink(world, 1, 2)
    world.tick()
    world.collect()
    assert len(world.proposals) == 1
    world.decide(Outcome.UNKNOWN, written=written)
    world[3].crash()
    answers = world[1].append(b"a")
    world.run()
    assert answers == []  # broker 3 may be in sync, and does not have it
    for _ in range(3):
        world.tick()
        world.collect()
        world.decide()
        world.learn()
        world.run()
    assert bool(answers) is not written  # another write has told
    world.settle(12)
    assert answers[0].base_offset == 0
    assert {each.broker for each in world.value.isr} == {1, 2}


@pytest.mark.parametrize("written", [True, False])
def test_who_left_perhaps_counts_until_it_is_known(written):
    world = ready(min_isr=1)
    world[3].crash()
    answers = world[1].append(b"a")
    for _ in range(12):
        world.run()
        world.tick()
        world.collect()
    assert len(world.proposals) == 1
    world.decide(Outcome.UNKNOWN, written=written)
    world.run()
    assert answers == []
    world.settle(3)
    assert answers[0].base_offset == 0


def test_who_joins_must_be_registered_as_it_was_judged():
    world = ready(min_isr=1)
    shrink(world, 1, 2)
    world.tick()
    world.collect()
    world.restart(3)  # another process, and the leader has not heard of it
    world.decide()
    assert {each.broker for each in world.value.isr} == {1, 2}
    world.settle()
    assert {each.broker for each in world.value.isr} == {1, 2, 3}


# Leader epochs.


def test_an_accepted_epoch_is_on_the_disk_before_it_is_acknowledged():
    world = ready()
    world.elect(2)
    world.learn(2, 3)
    world.run(sync=False)
    assert world[3].machine.state.accepted_epoch == 2
    assert world[3].replica.follower.core.state is FollowingState.FOLLOWING
    assert world[2].replica.leader.core.followers.confirmed_at(3) is None
    world.tick()
    world.run(sync=False)
    assert world[2].replica.leader.core.followers.confirmed_at(3) is None
    world.run()
    world.tick()
    world.run()
    assert world[2].replica.leader.core.followers.confirmed_at(3) is not None


@pytest.mark.parametrize("survives", [True, False])
def test_a_follower_that_restarts_before_it_acknowledges_refuses_the_older_epoch(survives):
    """It accepted a newer epoch; whoever heard of that must be able to rely on it for ever."""
    world = ready()
    world.elect(2)
    world.learn(2, 3)
    world.restart(3, survivors=world[3].store.unsynced_writes if survives else 0)
    world[3].learn()
    stale = Push(ID, 1, None, (), 0, 0, 9, 0)
    epoch = world[1].replicas.broker_epoch
    world[3].replicas.receive(Envelope(1, epoch, 3, (stale,)), world.now)
    world.collect()
    assert [each.leader_epoch for each in sent(world, Refused, to=1)] == [2]
    assert sent(world, Acked, to=1) == []


def test_an_accepted_epoch_is_kept_also_where_the_metadata_is_behind():
    world = ready()
    before = world.stored[PartitionKey(TOPIC, 0)]
    world.elect(2)
    world.learn(2, 3)
    world.run()
    world.restart(3)
    world.stored[PartitionKey(TOPIC, 0)] = before  # what a lagging member of the store shows
    world[3].learn()
    assert world[3].replica.follower is None
    stale = Push(ID, 1, None, (), 0, 0, 9, 0)
    world[3].replicas.receive(Envelope(1, 1, 3, (stale,)), world.now)
    world.collect()
    assert [each.reason for each in sent(world, Refused, to=1)] == [Reason.FENCED_LEADER_EPOCH]


def test_a_leader_that_hears_of_a_newer_epoch_answers_nothing_more():
    world = ready()
    world.elect(2)
    world.learn(2, 3)
    answers = world[1].append(b"a")
    world.run()
    assert answers == []
    (refused,) = world[1].append(b"b")
    assert refused.error.reason is Reason.FENCED_LEADER_EPOCH
    world.learn()
    assert not answers[0].error.meaning.definite


def test_a_newer_epoch_than_known_is_asked_to_wait():
    world = ready()
    world.elect(2)
    world.learn(3)
    world.collect()
    world.deliver((3, 2))
    world.collect()
    (refused,) = sent(world, Refused, to=3)
    assert (refused.reason, refused.leader_epoch) == (Reason.UNKNOWN_LEADER_EPOCH, 1)
    world.learn()
    world.deliver((2, 3))
    world.tick(0.1)  # sooner than it would ask by itself
    world.run()
    assert world[3].replica.follower.core.state is FollowingState.FOLLOWING


def test_a_probe_of_an_earlier_leader_confirms_nothing_to_a_later_one():
    world = ready()
    for _ in range(5):
        world.tick()
        world.run()
    world[1].append(b"a")
    world.run(sync=False)
    points = world[3].replicas.sync_points()
    world[3].store.sync()
    world.elect(2)
    world.learn()
    world.run(sync=False)
    for _ in range(9):
        world[2].replicas.tick(world.now)
        world.now += 1.0
    world[3].replicas.synced(points, world.now)
    world.collect()
    assert sent(world, Acked, to=2) == []


def test_a_log_that_is_newer_than_the_metadata_stops_its_leader():
    world = ready()
    world.elect(2)
    world.learn()
    world.run()
    value = world.value
    world.write(PartitionKey(TOPIC, 0), dataclasses.replace(value, leader_epoch=1))
    world.restart(2)
    forged = dataclasses.replace(
        value, leader_broker_epoch=world[2].replicas.broker_epoch, partition_epoch=9
    )
    world.write(PartitionKey(TOPIC, 0), forged)
    world[2].learn()
    assert "the metadata is older" in world[2].replica.why_stopped
    (answer,) = world[2].append(b"a")
    assert answer.error.reason is Reason.PARTITION_OFFLINE


def test_an_earlier_process_of_a_broker_does_not_lead():
    world = ready()
    world.restart(1)
    world.learn()
    assert world[1].replica.leader is None
    assert world[1].replica.follower is None
    world.elect(1)
    world.learn()
    assert world[1].replica.leader is not None


def test_messages_of_an_earlier_process_of_the_leader_are_not_taken():
    world = ready()
    push = Push(ID, 1, None, (), 0, 0, 9, 0)
    world[2].replicas.receive(Envelope(1, 1, 2, (push,)), world.now)
    world.collect()
    assert [each.reason for each in sent(world, Refused, to=1)] == [Reason.NOT_LEADER]


def test_a_broker_that_holds_no_replica_asks_to_wait_and_keeps_silent_at_refusals():
    world = ready()
    elsewhere = ID._replace(partition=5)
    follow, refused = Follow(elsewhere, 3, 0, None), Refused(elsewhere, 3, Reason.NOT_LEADER)
    world[1].replicas.receive(Envelope(2, 9, 1, (follow, refused)), world.now)
    world[1].replicas.receive(Envelope(2, 9, 3, (follow,)), world.now)  # for somebody else
    work = world[1].replicas.take()
    assert work.envelopes == [
        Envelope(
            1,
            world[1].replicas.broker_epoch,
            2,
            (Refused(elsewhere, 0, Reason.UNKNOWN_LEADER_EPOCH),),
        )
    ]


def test_who_is_made_a_replica_again_in_the_same_epoch_follows_again():
    world = ready()
    value = world.value
    two = dataclasses.replace(value, replicas=(1, 2), isr=value.isr[:2], partition_epoch=1)
    world.write(PartitionKey(TOPIC, 0), two)
    world.learn()
    assert world[3].replica.follower is None
    world.write(PartitionKey(TOPIC, 0), dataclasses.replace(two, replicas=(1, 2, 3)))
    world.learn()
    world.settle()
    assert {each.broker for each in world.value.isr} == {1, 2, 3}


# Truncation.


def test_a_sync_that_began_before_a_truncation_proves_nothing_of_what_came_after():
    world = ready(min_isr=1)
    world[1].append(b"a")
    world[1].append(b"b")
    points = world[1].replicas.sync_points()
    world[1].store.sync()
    shrink(world, 1, 2)
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
    world = ready(min_isr=1)
    world[1].append(b"a", b"a", b"a", acks=Acks.LEADER)
    world[1].sync()
    world.links.clear()
    world.elect(2)
    world.learn(2)
    world[2].append(b"b", b"b", acks=Acks.LEADER)
    world.learn()
    world.settle()
    assert world[1].log() == world[2].log() == world[3].log()
    assert [each[:2] for each in world[1].log()] == [(0, 2)]


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


# Beginning anew.


def trimmed_world() -> World:
    """Broker 3 is away while the others go on and delete what it would need."""
    world = ready(min_isr=1)
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
    world[2].replica.stop("damage")
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
    pushes = sent(world, Push, to=2)
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
    (push,) = sent(world, Push, to=2)
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
    world[1].replicas.forget(ID)
    assert world[1].replicas.find(ID) is None
    assert not answers[0].error.meaning.definite
    world[1].replicas.forget(ID)
