"""Topics in a cluster of several brokers: placed, in sync from the start, refused where too few are there."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from riverrun_server.core.cluster import changes, deletions, keys
from riverrun_server.core.cluster.changes import NewTopic, TopicPolicy
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.cluster.steps import ABSENT, MAX_CHANGES, Guard, Write, packed
from riverrun_server.core.cluster.values import Durability, Replica
from riverrun_server.core.errors import Reason, Refusal
from tests.core.cluster_world import Outdated, make_id
from tests.core.control_world import ControlWorld, lives_of


@pytest.fixture
def world():
    return ControlWorld(3)


def plan(world, *args, **fields):
    new = NewTopic(*args, **fields)
    return changes.create(world.image, new, world.policy, world.leader, make_id(77), 7)


def refused(call, *args):
    with pytest.raises(Refusal) as refusal:
        call(*args)
    return refusal.value


def counts(world, name):
    numbers = range(world.image.topics[name].value.partitions)
    values = [world.partition(name, number) for number in numbers]
    return (
        Counter(itertools.chain(*(each.replicas for each in values))),
        Counter(each.leader for each in values),
    )


@pytest.mark.parametrize("partitions", [1, 5, 95, 96, 97, 300])
@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_a_new_partition_has_all_its_replicas_in_sync_and_the_first_leads(
    world, partitions, replicas
):
    topic = world.make("t", partitions, replicas)
    assert topic.replication_factor == replicas
    standing = Standing(world.image.brokers)
    for number in range(partitions):
        value = world.partition("t", number)
        assert len(set(value.replicas)) == replicas
        assert value.leader == value.replicas[0]
        assert value.leader_broker_epoch == standing.epoch(value.leader)
        assert value.isr == tuple(
            Replica(broker, lives_of(broker).fsync) for broker in value.replicas
        )
        assert value.min_isr == (2 if replicas == 3 else 1)
        assert (value.leader_epoch, value.partition_epoch, value.elr) == (0, 0, ())
    assert not world.image.tombstones
    for count in counts(world, "t"):
        assert max(count.values()) - min(count[broker] for broker in (1, 2, 3)) <= 1


def test_a_relaxed_topic_names_the_relaxed_lives(world):
    world.make("t", fsync="relaxed")
    value = world.partition("t", 0)
    assert value.durability is Durability.RELAXED
    assert set(value.isr) == {Replica(broker, lives_of(broker).relaxed) for broker in (1, 2, 3)}


@pytest.mark.parametrize("partitions", [1, 300])
@pytest.mark.parametrize("what", ["fenced", "draining", "anew"])
def test_a_topic_that_was_placed_on_brokers_that_changed_since_is_not_shown(
    world, partitions, what
):
    steps = plan(world, "t", partitions, 3).steps
    match what:
        case "fenced":
            world.change(2, fenced=True)
        case "draining":
            world.change(2, draining=True)
        case "anew":
            world.start(2, life=1)
    with pytest.raises(Outdated):
        world.run(steps)
    assert not world.image.topics
    assert not world.image.partitions


def test_steps_stay_within_what_a_store_takes_with_any_number_of_brokers():
    world = ControlWorld(120)
    steps = plan(world, "t", 200, 5).steps
    assert all(len(step.changes) <= MAX_CHANGES for step in steps)
    world.run(steps)
    assert world.image.topics["t"].value.partitions == 200
    assert max(counts(world, "t")[0].values()) <= 9


def test_replicas_avoid_a_host_that_they_have_already():
    world = ControlWorld(1)
    for broker, host in ((1, "a"), (2, "a"), (3, "b")):
        world.start(broker, host=host)
    world.make("t", 20, 2)
    for number in range(20):
        assert 3 in world.partition("t", number).replicas


def test_too_few_brokers_are_refused_naming_flag_and_setting(world):
    refusal = refused(plan, world, "t", 1, 4)
    assert refusal.reason is Reason.NOT_ENOUGH_BROKERS
    for part in (
        "replication factor 4 needs 4 brokers, 3 are registered;",
        "--replication-factor",
        "topic_defaults.replication_factor",
    ):
        assert part in refusal.message


def test_brokers_that_take_no_replicas_do_not_count(world):
    world.change(1, fenced=True)
    world.change(3, draining=True)
    refusal = refused(plan, world, "t", 1, 2)
    assert "3 are registered and 2 of them fenced or draining;" in refusal.message
    assert world.make("t", 3, 1)
    assert counts(world, "t") == (Counter({2: 3}), Counter({2: 3}))


def test_the_default_replication_factor_counts_where_a_request_does_not_say():
    world = ControlWorld(3, TopicPolicy(default_replication_factor=3))
    assert plan(world, "t").topic.replication_factor == 3
    assert refused(plan, ControlWorld(2, world.policy), "t").reason is Reason.NOT_ENOUGH_BROKERS


@pytest.mark.parametrize("more", [1, 95, 250])
def test_a_topic_grows_evenly_on_what_it_has(world, more):
    world.make("t", 4)
    world.run(changes.add_partitions(world.image, "t", 4 + more, world.policy, world.leader).steps)
    assert world.image.topics["t"].value.partitions == 4 + more
    replicas, leaders = counts(world, "t")
    assert set(replicas.values()) == {4 + more}
    assert max(leaders.values()) - min(leaders.values()) <= 1


def test_a_topic_that_grows_bit_by_bit_is_even_whatever_other_topics_are(world):
    world.make("other", 12, 1)
    for number in range(12):
        world.put("other", number, replicas=(1,), isr=(world.replica(1),), leader=1)
    world.make("t", 1, 1)
    for partitions in range(2, 10):
        plan = changes.add_partitions(world.image, "t", partitions, world.policy, world.leader)
        world.run(plan.steps)
        replicas, _ = counts(world, "t")
        assert max(replicas.values()) - min(replicas[broker] for broker in (1, 2, 3)) <= 1


def test_growing_needs_as_many_brokers_as_making(world):
    world.make("t")
    world.change(2, fenced=True)
    grow = changes.add_partitions
    refusal = refused(grow, world.image, "t", 2, world.policy, world.leader)
    assert refusal.reason is Reason.NOT_ENOUGH_BROKERS
    # What it has already is no growth.
    assert not grow(world.image, "t", 1, world.policy, world.leader).steps


def test_what_an_interrupted_growth_left_is_replaced_in_higher_epochs(world):
    world.make("t", 1)
    steps = changes.add_partitions(world.image, "t", 300, world.policy, world.leader).steps
    world.run(steps, stop_after=1)
    before = world.partition("t", 1)
    world.run(changes.add_partitions(world.image, "t", 2, world.policy, world.leader).steps)
    after = world.partition("t", 1)
    assert (after.leader_epoch, after.partition_epoch) == (
        before.leader_epoch + 1,
        before.partition_epoch + 1,
    )


def test_growth_that_was_placed_on_brokers_that_changed_since_is_not_seen(world):
    world.make("t", 1)
    steps = changes.add_partitions(world.image, "t", 2, world.policy, world.leader).steps
    world.change(2, draining=True)
    with pytest.raises(Outdated):
        world.run(steps)
    assert world.image.topics["t"].value.partitions == 1


def test_a_deleted_topic_waits_for_every_broker_that_held_it(world):
    topic = world.make("t", 2)
    world.run(deletions.delete(world.image, "t").steps)
    for broker in (1, 2, 3):
        tombstone = world.image.tombstones[topic.topic_id]
        assert broker in tombstone.value.pending
        world.run(deletions.confirm_deletion(world.image, tombstone, broker))
    assert not world.image.tombstones
    assert not world.image.partitions


def test_a_partition_whose_leader_is_away_does_not_follow_its_topic(world):
    world.make("t")
    world.put("t", isr=(world.replica(1),), elr=(world.replica(2),), leader=1)
    world.run(changes.alter(world.image, "t", {"min.insync.replicas": "3"}, (), world.policy).steps)
    world.change(1, fenced=True)
    assert not changes.follow_config(world.image, "t", world.policy)
    world.change(1, fenced=False)
    world.put("t", leader_broker_epoch=Standing(world.image.brokers).epoch(1))
    world.run(changes.follow_config(world.image, "t", world.policy))
    assert (world.partition("t", 0).min_isr, world.partition("t", 0).elr) == (3, ())


# --- steps


def pieces(world, count, brokers):
    for number in range(count):
        guards = tuple(Guard(keys.broker(1 + (number + shift) % brokers), 7) for shift in range(3))
        yield guards, Write(f"k{number}", world.image.brokers[1].value, ABSENT)


@pytest.mark.parametrize(
    ("count", "brokers", "writes_max"), [(300, 3, 100), (300, 90, 100), (7, 3, 1)]
)
def test_packed_steps_hold_every_write_in_order_with_its_guards(world, count, brokers, writes_max):
    always = Guard(keys.CONTROLLER, 3)
    steps = list(packed(pieces(world, count, brokers), (always,), writes_max))
    wanted = {write.key: guards for guards, write in pieces(world, count, brokers)}
    seen = []
    for step in steps:
        writes = [each for each in step.changes if isinstance(each, Write)]
        assert 1 <= len(writes) <= writes_max
        assert step.changes[0] == always
        for write in writes:
            assert all(guard in step.changes for guard in wanted[write.key])
        seen += [write.key for write in writes]
    assert seen == list(wanted)
    # As few as can be: each is full.
    assert all(len(step.changes) >= MAX_CHANGES - 3 or writes_max == 1 for step in steps[:-1])


def test_nothing_to_write_is_no_step(world):
    assert not list(packed([], (Guard(keys.CONTROLLER, 3),)))


def test_a_deletion_is_over_for_its_caller_once_every_broker_that_is_there_has_deleted(world):
    topic_id = world.make("t", 1, 3).topic_id
    world.run(deletions.delete(world.image, "t").steps)
    for broker in (1, 2):
        assert deletions.is_being_deleted(world.image, topic_id)
        tombstone = world.image.tombstones[topic_id]
        world.run(deletions.confirm_deletion(world.image, tombstone, broker))
    assert deletions.is_being_deleted(world.image, topic_id)
    world.change(3, fenced=True)
    assert not deletions.is_being_deleted(world.image, topic_id)
    assert topic_id in world.image.tombstones
