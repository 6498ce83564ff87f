"""Replicas of one partition over stores that crash: what is answered, refused, written and asked for."""

from __future__ import annotations

import dataclasses

import pytest

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.keys import BrokerKey, PartitionKey
from riverrun_server.core.cluster.steps import Guard, Step, Write
from riverrun_server.core.cluster.values import Durability, Replica
from riverrun_server.core.errors import Reason
from riverrun_server.core.replication.following import FollowingState
from riverrun_server.core.replication.messages import Acked, Envelope, Follow, Push, Refused
from riverrun_server.ports.partitions import Acks
from riverrun_server.runtime.replication.outbox import Outcome
from tests.runtime.replication_world import ID, TOPIC, World, life, ready

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
    world.shrink(1)
    (answer,) = world[1].append(b"a")
    assert answer.error.reason is Reason.NOT_ENOUGH_REPLICAS
    assert world[1].machine.log_end == 0
    assert world[1].append(b"b", acks=Acks.NONE)[0].base_offset == 0


def test_what_waits_when_too_few_are_left_is_answered_as_unknown():
    world = ready(min_isr=2)
    answers = world[1].append(b"a")
    for_leader = world[1].append(b"b", acks=Acks.LEADER)
    world.shrink(1)
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
    world.shrink(1)
    (again,) = world[1].append(b"a", producer_id=9)
    assert again.error.reason is Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND
    assert world[1].machine.log_end == 1


def test_what_was_committed_before_is_answered_though_too_few_are_in_sync():
    world = ready(min_isr=2)
    world[1].append(b"a", producer_id=9)
    world.run()
    world.shrink(1)
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


def test_an_earlier_process_confirms_nothing_once_a_later_one_is_registered():
    """Both are cut off from the store; the later one, on an empty disk, leads by an accepted loss."""
    world = ready(size=2, allows_loss=True)
    leader = world[1].replica.leader.core
    world[1].replicas.lease(world.now)
    world.tick()
    world.run()
    assert leader.may_acknowledge(world.now, world.now)
    # Its registration has come with the metadata, and it has confirmed nothing.
    world[2].crash()
    world[2].wipe()
    world[2].start()
    world.learn(1)
    assert not leader.may_acknowledge(world.now, world.now)


def test_with_relaxed_durability_what_is_written_counts():
    world = World(durability=Durability.RELAXED)
    world.run()
    answers = world[1].append(b"a")
    world.run(sync=False)
    assert answers[0].base_offset == 0
    assert world[2].store.unsynced_writes


def becoming_durable():
    """Return a world whose topic was relaxed and is to be durable; one record counts that is not synced."""
    world = World(durability=Durability.RELAXED, min_isr=2)
    world.run()
    answers = world[1].append(b"a")
    world.run(sync=False)
    assert answers[0].error is None
    world.elect(1, durability=Durability.SYNCING)
    world.learn()
    return world


def test_a_topic_that_becomes_durable_is_answered_from_the_disks():
    world = becoming_durable()
    answers = world[1].append(b"b")
    world.run(sync=False)
    assert answers == []
    world.run()
    assert answers[0].error is None
    for broker in world.brokers:
        world[broker].crash(0)
    for broker in world.brokers:
        world[broker].start()
    world.elect(1)
    world.learn()
    assert [world[broker].machine.log_end for broker in world.brokers] == [2, 2, 2]


@pytest.mark.parametrize("unsynced", [1, 2, 3])
def test_a_topic_is_durable_once_what_counted_before_is_on_all_disks_in_sync(unsynced):
    world = becoming_durable()
    for _ in range(4):
        world.tick()
        for _ in range(5):
            world.collect()
            for link in list(world.links):
                world.deliver(link, 100)
            for broker in world.brokers:
                if broker != unsynced:
                    world[broker].sync()
        world.decide()
        world.learn()
    assert world.value.durability is Durability.SYNCING
    world[unsynced].sync()
    world.settle(3)
    value = world.value
    assert value.durability is Durability.FSYNC
    assert (value.leader_epoch, len(value.isr)) == (2, 3)
    assert not any(each.store.unsynced_writes for each in world.brokers.values())


def test_a_process_that_has_begun_since_is_not_taken_for_the_one_that_synced():
    world = becoming_durable()
    world.run()
    world.tick()
    world.run()
    world[2].start()  # its registration is another one now
    world.collect()
    assert [each.change.value.durability for _, each in world.proposals] == [Durability.FSYNC]
    world.decide()
    assert world.value.durability is Durability.SYNCING


# The replicas in sync.


@pytest.mark.parametrize("written", [True, False])
def test_a_join_of_which_nobody_knows_counts_until_it_is_known(written):
    world = ready(min_isr=1)
    world.shrink(1, 2)
    world.tick()
    world.run()
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


def test_a_change_is_one_transaction_that_insists_on_what_it_was_planned_on():
    world = ready(min_isr=1)
    world.shrink(1, 2)
    revision = world.revision
    world.tick()
    world.run()
    world.tick()
    world.collect()
    ((_, proposal),) = world.proposals
    joined = dataclasses.replace(
        world.value,
        isr=tuple(Replica(each, life(each)) for each in (1, 2, 3)),
        partition_epoch=world.value.partition_epoch + 1,
    )
    registration = world.stored[BrokerKey(3)].mod_revision
    assert proposal.step == Step(
        (
            Write(keys.partition(TOPIC, 0), joined, revision),
            Guard(keys.broker(3), registration),
        )
    )


def test_the_outcome_of_a_change_of_an_earlier_epoch_is_history():
    world = ready(min_isr=1)
    world.shrink(1, 2)
    world.tick()
    world.run()
    world.tick()
    world.collect()
    proposals, world.proposals = world.proposals, []
    world.elect(1)
    world.learn()
    for outcome in (Outcome.UNKNOWN, Outcome.REFUSED, Outcome.APPLIED):
        for broker, proposal in proposals:
            broker.replicas.outcome(proposal, outcome, world.now, revision=world.revision + 1)
    insync = world[1].replica.leader.core.insync
    assert (insync.committed, insync.pending, insync.in_doubt) == (world.value, None, False)


def test_who_joins_must_be_registered_as_it_was_judged():
    world = ready(min_isr=1)
    world.shrink(1, 2)
    world.tick()
    world.run()
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
    followers, process = world[2].replica.leader.core.followers, world[3].replicas.broker_epoch
    world.tick()
    world.run(sync=False)
    assert followers.of(3, process).confirmed_at is None
    world.run()
    world.tick()
    world.run()
    assert followers.of(3, process).confirmed_at is not None


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
    assert [each.leader_epoch for each in world.sent(Refused, to=1)] == [2]
    assert world.sent(Acked, to=1) == []


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
    assert [each.reason for each in world.sent(Refused, to=1)] == [Reason.FENCED_LEADER_EPOCH]


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
    (refused,) = world.sent(Refused, to=3)
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
    assert world.sent(Acked, to=2) == []


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
    assert [each.reason for each in world.sent(Refused, to=1)] == [Reason.NOT_LEADER]


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
    world.tick()
    world.write(PartitionKey(TOPIC, 0), dataclasses.replace(two, replicas=(1, 2, 3)))
    world.learn()
    world.settle()
    assert {each.broker for each in world.value.isr} == {1, 2, 3}


def resigned(world, broker=1):
    """Let a broker find damage, and write what it asks for; return the value that it leaves."""
    world[broker].replica.stop("a batch is damaged")
    world[broker].replicas.tick(world.now)
    world.collect()
    world.decide()
    return world.value


def test_a_leader_that_finds_damage_leaves_the_replicas_in_sync_so_that_another_is_elected():
    """Found by simulation: it stopped, stayed named, and nobody was elected in its place."""
    world = ready()
    world[1].append(b"a")
    world.run()
    value = resigned(world)
    assert [each.broker for each in value.isr] == [2, 3]
    assert (value.leader, value.leader_epoch, value.elr) == (1, 1, ())
    world.elect(2)
    world.learn()
    world.run()
    assert world[2].replica.leader is not None
    assert world[2].append(b"b") == []
    world.run()
    assert world[2].machine.high_watermark == 2


def test_who_resigned_asks_again_until_it_is_written_and_then_for_nothing():
    world = ready()
    world[1].replica.stop("a batch is damaged")
    world[1].replicas.tick(world.now)
    world.collect()
    world.decide(Outcome.UNKNOWN, written=False)
    world[1].replicas.tick(world.now)
    world.collect()
    assert not world.proposals, "at once"
    world.now += world.terms.retry_s
    world[1].replicas.tick(world.now)
    world.collect()
    world.decide()
    world.learn()
    world.now += world.terms.retry_s
    world[1].replicas.tick(world.now)
    world.collect()
    assert not world.proposals


def test_a_follower_that_finds_damage_asks_for_nothing_itself():
    world = ready()
    world[2].replica.stop("a batch is damaged")
    world[2].replicas.tick(world.now)
    work = world[2].replicas.take()
    assert not work.proposals
