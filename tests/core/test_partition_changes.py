"""Who may lead a partition, and what its ISR and those eligible outside it become."""

from __future__ import annotations

import pytest

from riverrun_server.core.cluster import partition_changes as pc
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.cluster.values import PartitionValue, Replica
from tests.core.control_world import ControlWorld, lives_of


@pytest.fixture
def world():
    return ControlWorld(4)


def members(brokers, life=0):
    return tuple(Replica(broker, lives_of(broker, life).fsync) for broker in brokers)


def value(world, isr, elr=(), min_isr=2, replicas=(1, 2, 3), leader=1):
    return PartitionValue(
        leader=leader,
        leader_epoch=4,
        leader_broker_epoch=Standing(world.image.brokers).epoch(leader),
        partition_epoch=6,
        replicas=replicas,
        isr=members(isr),
        elr=members(elr),
        min_isr=min_isr,
    )


def standing(world):
    return Standing(world.image.brokers)


def test_the_candidate_is_of_the_isr_before_all_others_whatever_the_order(world):
    partition = value(world, isr=[3], elr=[1, 2], replicas=(1, 2, 3))
    assert pc.candidate(partition, standing(world)) == 3
    world.change(3, fenced=True)
    assert pc.candidate(partition, standing(world)) == 1


@pytest.mark.parametrize("why", ["fenced", "draining", "lost", "gone", "not a replica"])
def test_who_is_no_candidate(world, why):
    partition = value(world, isr=[2, 3], replicas=(2, 3))
    match why:
        case "fenced":
            world.change(2, fenced=True)
        case "draining":
            world.change(2, draining=True)
        case "lost":
            world.start(2, life=1)
        case "gone":
            del world.image.brokers[2]
        case "not a replica":
            partition = value(world, isr=[2, 3], replicas=(3,))
    assert pc.candidate(partition, standing(world)) == 3


def test_a_restart_with_the_same_data_keeps_a_replica_a_candidate(world):
    world.start(1)
    assert pc.candidate(value(world, isr=[1, 2]), standing(world)) == 1


def test_an_election_from_those_that_left_keeps_in_sync_who_is_and_serves(world):
    # 2 has everything and drains; 3 left with everything, and may lead.
    partition = value(world, isr=[1, 2], elr=[3], min_isr=3)
    world.change(1, fenced=True)
    world.change(2, draining=True)
    after = pc.elected(partition, 3, standing(world))
    assert (after.isr, after.elr) == (members([2, 3]), members([1]))
    assert (after.leader, after.leader_epoch, after.partition_epoch) == (3, 5, 7)


def test_nobody_is_eligible_beside_an_isr_that_is_large_enough(world):
    partition = value(world, isr=[1, 2, 3])
    world.change(1, fenced=True)
    after = pc.elected(partition, 2, standing(world))
    assert (after.isr, after.elr) == (members([2, 3]), ())


def test_who_left_earlier_stays_eligible_until_its_data_is_another(world):
    partition = value(world, isr=[1, 2], elr=[3, 4], min_isr=3, replicas=(1, 2, 3, 4))
    world.change(2, fenced=True)
    world.start(3, life=1)
    after = pc.shrunk(partition, standing(world))
    assert (after.isr, after.elr) == (members([1]), members([4, 2]))


def test_only_a_broker_that_has_all_data_is_elected_cleanly(world):
    with pytest.raises(AssertionError):
        pc.elected(value(world, isr=[1], elr=[2]), 3, standing(world))


def test_a_leader_that_drains_hands_on_to_the_isr_alone(world):
    world.change(1, draining=True)
    assert pc.successor(value(world, isr=[1, 3], elr=[2], min_isr=3), standing(world)) == 3
    assert pc.successor(value(world, isr=[1], elr=[2]), standing(world)) is None


def test_a_leader_never_leaves_the_isr_by_shrinking(world):
    world.change(1, draining=True)
    partition = value(world, isr=[1])
    assert pc.shrunk(partition, standing(world)) is partition


def test_what_is_lost_for_certain_and_what_is_merely_away(world):
    partition = value(world, isr=[1], elr=[2])
    world.start(1, life=1)
    world.change(2, fenced=True)
    assert not pc.is_lost(partition, standing(world))
    world.start(2, life=1)
    assert pc.is_lost(partition, standing(world))
    # Who is registered no more comes back with nothing.
    del world.image.brokers[2]
    assert pc.is_lost(partition, standing(world))


def test_the_last_resort_is_who_was_in_sync_then_who_left_then_the_order(world):
    partition = value(world, isr=[3], elr=[2], replicas=(1, 2, 3))
    for broker in (1, 2, 3):
        world.start(broker, life=1)
    for expected in (3, 2, 1, None):
        assert pc.last_resort(partition, standing(world)) == expected
        if expected:
            world.change(expected, fenced=True)


def test_a_loss_raises_the_epoch_above_all_that_may_be_lost(world):
    world.start(3, life=1)
    after = pc.elected_with_loss(value(world, isr=[1], elr=[2]), 3, standing(world))
    assert (after.isr, after.elr) == (members([3], 1), ())
    assert (after.leader, after.leader_epoch, after.partition_epoch) == (3, 1_005, 7)


def test_the_first_replica_is_preferred_once_it_is_in_sync_and_stays(world):
    partition = value(world, isr=[2, 3], leader=2)
    assert pc.preferred(partition, standing(world)) is None
    partition = value(world, isr=[2, 3, 1], leader=2)
    assert pc.preferred(partition, standing(world)) == 1
    world.change(1, draining=True)
    assert pc.preferred(partition, standing(world)) is None
    assert pc.preferred(value(world, isr=[1, 2]), standing(world)) is None
