"""Preferred leaders are elected where they are in sync and serve; of the others it is said why not."""

from __future__ import annotations

import pytest

from riverrun_server.core.cluster import keys, partition_changes
from riverrun_server.core.cluster.preferred_elections import Target, elect, look
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.errors import Reason
from tests.core.cluster_world import Outdated
from tests.core.control_world import ControlWorld


@pytest.fixture
def world():
    world = ControlWorld(3)
    world.make("t", 4)
    return world


def moved(world, *numbers, topic="t"):
    """Let another of the ISR lead, as after a restart of the preferred leader."""
    for number in numbers:
        value = world.partition(topic, number)
        changed = partition_changes.elected(value, value.replicas[1], Standing(world.image.brokers))
        topic_id = world.image.topics[topic].value.topic_id
        world._store({keys.partition(topic_id, number): changed})


def run(world, *targets, alone=False):
    due = [each.here for each in look(world.image, targets) if each.due]
    world.run(elect(world.image, due, alone=alone))


def test_preferred_leaders_lead_again_in_the_next_epoch(world):
    moved(world, 0, 2)
    before = [world.partition("t", number) for number in range(4)]
    assert [each.due for each in look(world.image, [])] == [True, False, True, False]
    run(world)
    for number in range(4):
        after = world.partition("t", number)
        assert after.leader == after.replicas[0]
        assert after.isr == before[number].isr
        rise = number in (0, 2)
        assert after.leader_epoch == before[number].leader_epoch + rise
        assert after.partition_epoch == before[number].partition_epoch + rise
        assert after.leader_broker_epoch == Standing(world.image.brokers).epoch(after.leader)


def test_only_what_is_asked_for_is_elected_each_once_and_in_its_order(world):
    world.make("u", 2)
    moved(world, 0, 1, 2)
    moved(world, 0, 1, topic="u")
    targets = (Target("t", 2), Target("u"), Target("t", 0), Target("u", 1))
    assert [(each.topic, each.partition) for each in look(world.image, targets)] == [
        ("t", 2),
        ("u", 0),
        ("u", 1),
        ("t", 0),
    ]
    run(world, *targets)
    assert [each.due for each in look(world.image, [Target("t")])] == [False, True, False, False]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("fenced", "is fenced"),
        ("draining", "drains; let it serve again with: riverrun cluster drain"),
        ("gone", "is not registered"),
        ("behind", "is not in sync, "),
        ("another life", "is not in sync, "),
    ],
)
def test_a_preferred_leader_that_does_not_serve_in_sync_is_not_elected(world, how, said):
    moved(world, 0)
    value = world.partition("t", 0)
    first = value.replicas[0]
    match how:
        case "fenced" | "draining":
            world.change(first, **{how: True})
        case "gone":
            world._store({keys.broker(first): None})
        case "behind":
            world.put("t", isr=tuple(each for each in value.isr if each.broker != first))
        case "another life":
            world.start(first, life=1)
    [prospect] = look(world.image, [Target("t", 0)])
    assert not prospect.due
    assert prospect.obstacle.reason is Reason.PREFERRED_LEADER_NOT_AVAILABLE
    assert prospect.obstacle.message.startswith(
        f"t[0] stays with broker {value.leader}: its preferred leader, broker {first}, "
    )
    assert said in prospect.obstacle.message
    assert not list(elect(world.image, [("t", 0)], alone=False))


def test_a_partition_without_a_leader_is_left_to_the_controller(world):
    moved(world, 0)
    leader = world.partition("t", 0).leader
    world.change(leader, fenced=True)
    [prospect] = look(world.image, [Target("t", 0)])
    assert prospect.obstacle.reason is Reason.PARTITION_OFFLINE
    assert not list(elect(world.image, [("t", 0)], alone=False))


def test_what_is_not_there_is_told_and_the_rest_goes_on(world):
    moved(world, 0)
    targets = [Target("tt"), Target("tt", 3), Target("t", 4), Target("t", -1), Target("t", 0)]
    found = look(world.image, targets)
    assert [each.obstacle and each.obstacle.reason for each in found] == [
        Reason.TOPIC_NOT_FOUND,
        Reason.TOPIC_NOT_FOUND,
        Reason.PARTITION_NOT_FOUND,
        Reason.PARTITION_NOT_FOUND,
        None,
    ]
    assert found[0].partition is None
    assert "did you mean 't'" in found[0].obstacle.message
    world.run(elect(world.image, [("tt", 0), ("t", 4), ("t", 0)], alone=False))
    assert world.partition("t", 0).leader == world.partition("t", 0).replicas[0]


@pytest.mark.parametrize("what", ["partition", "leader", "preferred", "other", "topic"])
def test_an_election_insists_on_everything_that_it_was_decided_on(world, what):
    moved(world, 0)
    value = world.partition("t", 0)
    steps = list(elect(world.image, [("t", 0)], alone=False))
    match what:
        case "partition":
            world.put("t")
        case "topic":
            topic = world.image.topics["t"].value
            world._store({keys.topic("t"): topic})
        case _:
            [other] = set(value.replicas) - {value.leader, value.replicas[0]}
            broker = {"leader": value.leader, "preferred": value.replicas[0], "other": other}[what]
            world.change(broker)
    with pytest.raises(Outdated):
        world.run(steps)


def test_alone_each_partition_has_a_step_of_its_own(world):
    moved(world, 0, 1, 2)
    where = [("t", number) for number in range(4)]
    assert len(list(elect(world.image, where, alone=False))) == 1
    steps = list(elect(world.image, where, alone=True))
    assert len(steps) == 3
    world.put("t", 1)
    world.run([steps[0], steps[2]])
    with pytest.raises(Outdated):
        world.run([steps[1]])
    assert [each.due for each in look(world.image, [])] == [False, True, False, False]
