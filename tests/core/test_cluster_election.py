"""Who leads after a start, and who waits for an operator."""

from __future__ import annotations

import pytest

from riverrun_server.core.cluster import changes, election
from riverrun_server.core.cluster.changes import Leader, TopicPolicy
from riverrun_server.core.cluster.election import accept_loss, broker_epoch, elect
from riverrun_server.core.cluster.image import Versioned
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    Durability,
    Incarnations,
    Replica,
)
from riverrun_server.core.errors import Reason, Refusal
from tests.core.cluster_world import LIVES, Outdated, World, make_id

CRASHED = Incarnations(LIVES.fsync, make_id(1))  # no clean shutdown: relaxed data may be gone
REPLACED = Incarnations(make_id(2), make_id(3))  # another disk
# Epochs that had been used, and are lost with what was written in them.
MORE_THAN_LIVES_LOST = 999


@pytest.fixture
def world():
    return World()


def restart(world, lives=LIVES):
    world.register(lives)
    decided = elect(world.image, world.leader, world.policy)
    world.run(decided.steps)
    return decided


def test_a_restart_raises_every_leader_epoch_and_leads_as_the_new_process(world):
    world.create("a", 2)
    world.create("b")
    decided = restart(world)
    assert decided.elected == [("a", 0), ("a", 1), ("b", 0)]
    assert not decided.unclean
    assert not decided.offline
    for name, number in decided.elected:
        partition = world.partition(name, number)
        assert (partition.leader_epoch, partition.partition_epoch) == (1, 1)
        assert partition.leader_broker_epoch == world.leader.broker_epoch
        assert partition.isr == (Replica(1, LIVES.fsync),)


def test_what_this_process_was_elected_for_is_not_elected_again(world):
    world.create("a", 2)
    restart(world)
    world.create("b")
    assert not elect(world.image, world.leader, world.policy).steps


@pytest.mark.parametrize("partitions", [99, 100, 400])
def test_many_partitions_are_elected_in_steps_that_may_stop_anywhere(partitions):
    for stop in range(1, 6):
        world = World()
        world.create("t", partitions)
        world.register(LIVES)
        steps = elect(world.image, world.leader, world.policy).steps
        world.run(steps, stop_after=stop)
        # The process died and another one begins.
        restart(world)
        for number in range(partitions):
            partition = world.partition("t", number)
            assert partition.leader_broker_epoch == world.leader.broker_epoch
            assert partition.leader_epoch == (2 if number < stop * 99 else 1)


def test_an_election_for_an_older_process_changes_nothing(world):
    world.create("t")
    world.register(LIVES)
    steps = elect(world.image, world.leader, world.policy).steps
    world.register(LIVES)
    with pytest.raises(Outdated):
        world.run(steps)


def test_a_crash_takes_nothing_from_fsync_topics(world):
    world.create("t")
    assert restart(world, CRASHED).elected == [("t", 0)]


@pytest.mark.parametrize("lives", [CRASHED, REPLACED])
def test_a_relaxed_topic_waits_for_an_operator_after_a_crash(world, lives):
    world.create("t", fsync="relaxed")
    before = world.partition("t", 0)
    decided = restart(world, lives)
    assert (decided.elected, decided.offline) == ([], [("t", 0)])
    assert world.partition("t", 0) == before


def test_a_topic_that_accepts_loss_goes_on_and_the_loss_is_told(world):
    world.create("t", fsync="relaxed", unclean_recovery="accept")
    decided = restart(world, CRASHED)
    assert decided.elected == decided.unclean == [("t", 0)]
    assert world.partition("t", 0).isr == (Replica(1, CRASHED.relaxed),)
    assert world.partition("t", 0).leader_epoch > MORE_THAN_LIVES_LOST
    assert not restart(world, CRASHED).unclean


def test_another_disk_leads_nothing_by_itself(world):
    world.create("t", 3)
    decided = restart(world, REPLACED)
    assert decided.offline == [("t", 0), ("t", 1), ("t", 2)]


def test_a_clean_restart_keeps_relaxed_topics(world):
    world.create("t", fsync="relaxed")
    assert restart(world).elected == [("t", 0)]


def test_a_replica_that_left_the_isr_with_everything_may_lead(world):
    world.create("t")
    partition = world.partition("t", 0)
    assert election._has_all_data(partition, world.leader)
    left = type(partition)(
        leader=1, leader_broker_epoch=1, replicas=(1,), isr=(), elr=partition.isr
    )
    assert election._has_all_data(left, world.leader)
    other = Leader(1, 9, REPLACED)
    assert not election._has_all_data(left, other)


def test_a_partition_follows_its_topic_when_it_is_elected(world):
    world.create("t")
    world.run(changes.alter(world.image, "t", {"fsync": "relaxed"}, (), world.policy).steps)
    # The process died before the partition followed, and it was not a clean end.
    assert restart(world, CRASHED).elected == [("t", 0)]
    partition = world.partition("t", 0)
    assert partition.durability is Durability.RELAXED
    assert partition.isr == (Replica(1, CRASHED.relaxed),)


def test_an_accepted_loss_raises_the_epoch_and_lets_the_next_start_lead(world):
    world.create("t", 2)
    assert restart(world, REPLACED).offline == [("t", 0), ("t", 1)]
    world.run([accept_loss(world.image, world.leader, "t", 1, 0)])
    accepted = world.partition("t", 1).leader_epoch
    assert accepted > MORE_THAN_LIVES_LOST
    decided = restart(world, REPLACED)
    assert (decided.elected, decided.offline) == ([("t", 1)], [("t", 0)])
    assert world.partition("t", 1).leader_epoch == accepted + 1
    assert not decided.unclean


def test_an_accepted_loss_raises_the_epoch_above_all_that_the_log_knows(world):
    # The metadata was put back from a backup, the log was not.
    world.create("t")
    world.run([accept_loss(world.image, world.leader, "t", 0, 5_000)])
    assert world.partition("t", 0).leader_epoch > 5_000 + MORE_THAN_LIVES_LOST


@pytest.mark.parametrize(
    ("name", "number", "reason"),
    [
        ("u", 0, Reason.TOPIC_NOT_FOUND),
        ("t", 2, Reason.PARTITION_NOT_FOUND),
        ("t", -1, Reason.PARTITION_NOT_FOUND),
    ],
)
def test_a_loss_is_accepted_of_what_there_is(world, name, number, reason):
    world.create("t", 2)
    with pytest.raises(Refusal) as refusal:
        accept_loss(world.image, world.leader, name, number, 0)
    assert refusal.value.reason is reason


def test_a_broker_epoch_survives_a_rewrite_of_the_registration():
    value = BrokerRegistration(broker_id=1, incarnations=LIVES, endpoints={})
    assert broker_epoch(Versioned(value, 9)) == 9
    rewritten = BrokerRegistration(broker_id=1, incarnations=LIVES, endpoints={}, broker_epoch=9)
    assert broker_epoch(Versioned(rewritten, 12)) == 9


def test_a_partition_that_others_hold_too_is_left_to_a_controller():
    world = World(TopicPolicy())
    world.create("t")
    topic_id = world.image.topics["t"].value.topic_id
    found = world.image.partitions[topic_id][0]
    shared = type(found.value)(
        leader=1, leader_broker_epoch=1, replicas=(1, 2), isr=found.value.isr
    )
    world.image.partitions[topic_id][0] = Versioned(shared, found.mod_revision)
    decided = restart(world)
    assert not decided.elected
    assert not decided.offline
