"""Plans for topics, run whole and stopped after any step."""

from __future__ import annotations

import pytest

from riverrun_server.core.cluster import changes, deletions, keys
from riverrun_server.core.cluster.changes import NewTopic, TopicPolicy
from riverrun_server.core.cluster.image import ClusterImage, KeyChange
from riverrun_server.core.cluster.values import (
    Durability,
    Incarnations,
    Replica,
    TombstoneState,
)
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.limits import Limits
from tests.core.cluster_world import LIVES, Outdated, World, make_id

SIZES = [1, 2, 98, 99, 100, 101, 198, 199, 350]


@pytest.fixture
def world():
    return World()


def refused(plan, *arguments):
    with pytest.raises(Refusal) as refusal:
        plan(*arguments)
    return refusal.value


def plan_create(world, new, topic_id=None):
    return changes.create(world.image, new, world.policy, world.leader, topic_id or make_id(77), 7)


# --- create


def test_a_topic_is_made_with_everything_it_did_not_say(world):
    topic = world.create("t")
    assert (topic.partitions, topic.replication_factor, topic.internal) == (1, 1, False)
    assert topic.create_time_ms == 7
    partition = world.partition("t", 0)
    assert (partition.leader, partition.leader_epoch) == (1, 0)
    assert partition.leader_broker_epoch == world.leader.broker_epoch
    assert partition.replicas == (1,)
    assert partition.isr == (Replica(1, LIVES.fsync),)
    assert (partition.min_isr, partition.durability) == (1, Durability.FSYNC)


def test_the_brokers_defaults_count_where_a_request_does_not_say():
    world = World(TopicPolicy(default_partitions=3, default_configs={"fsync": "relaxed"}))
    topic = world.create("t", 0)
    assert topic.partitions == 3
    assert topic.configs == {}
    partition = world.partition("t", 2)
    assert partition.durability is Durability.RELAXED
    assert partition.isr == (Replica(1, LIVES.relaxed),)


def test_a_topic_of_the_brokers_is_marked(world):
    assert world.create("__consumer_offsets").internal


@pytest.mark.parametrize("partitions", SIZES)
def test_a_topic_of_any_size_is_made_in_steps_that_a_store_takes(world, partitions):
    world.create("t", partitions)
    topic_id = world.image.topics["t"].value.topic_id
    assert sorted(world.image.partitions[topic_id]) == list(range(partitions))
    assert not world.image.tombstones


@pytest.mark.parametrize("partitions", [100, 350])
def test_a_making_that_stops_anywhere_shows_no_topic_and_leaves_a_tombstone(partitions):
    steps = plan_create(World(), NewTopic("t", partitions)).steps
    for stop in range(1, len(steps)):
        world = World()
        world.run(steps, stop_after=stop)
        assert "t" not in world.image.topics
        (tombstone,) = world.image.tombstones.values()
        assert tombstone.value.state is TombstoneState.CREATING
        # What a later start does with it:
        world.run(deletions.give_up_creation(tombstone))
        world.run(deletions.confirm_deletion(world.image, world.image.tombstones[make_id(77)], 1))
        assert set(world.stored) == {keys.broker(1)}


def test_a_small_topic_is_made_in_one_step(world):
    assert len(plan_create(world, NewTopic("t", 99)).steps) == 1


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (NewTopic("taken"), Reason.TOPIC_EXISTS),
        (NewTopic("../x"), Reason.INVALID_NAME),
        (NewTopic("a\r\nb"), Reason.INVALID_NAME),
        (NewTopic("t", -1), Reason.INVALID_REQUEST),
        (NewTopic("t", 2**31 - 1), Reason.LIMIT_EXCEEDED),
        (NewTopic("t", 1, 3), Reason.NOT_ENOUGH_BROKERS),
        (NewTopic("t", 1, -1), Reason.INVALID_REQUEST),
        (NewTopic("t", configs={"x": "y"}), Reason.INVALID_CONFIG),
    ],
)
def test_what_cannot_be_made_is_refused(world, new, reason):
    world.create("taken")
    assert refused(plan_create, world, new).reason is reason


def test_all_topics_together_have_a_bounded_number_of_partitions():
    world = World(TopicPolicy(limits=Limits(max_partitions=5)))
    world.create("a", 3)
    assert refused(plan_create, world, NewTopic("b", 3)).reason is Reason.LIMIT_EXCEEDED
    world.create("b", 2)


def test_of_two_makers_of_one_name_the_second_changes_nothing(world):
    first = plan_create(world, NewTopic("t", 150), make_id(50))
    second = plan_create(world, NewTopic("t", 150), make_id(51))
    world.run(first.steps)
    with pytest.raises(Outdated):
        world.run(second.steps)
    assert world.image.topics["t"].value.topic_id == make_id(50)
    assert set(world.image.tombstones) == {make_id(51)}


# --- add partitions


@pytest.mark.parametrize("more", SIZES)
def test_a_topic_grows_by_any_number_in_steps_that_a_store_takes(world, more):
    world.create("t", 2)
    plan = changes.add_partitions(world.image, "t", 2 + more, world.policy, world.leader)
    world.run(plan.steps)
    assert world.image.topics["t"].value.partitions == 2 + more
    assert len(world.image.partitions[plan.topic.topic_id]) == 2 + more


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_growing_that_stops_anywhere_is_not_seen_and_can_be_done_again(world, stop):
    world.create("t", 1)
    plan = changes.add_partitions(world.image, "t", 350, world.policy, world.leader)
    world.run(plan.steps, stop_after=stop)
    assert world.image.topics["t"].value.partitions == 1
    world.run(changes.add_partitions(world.image, "t", 200, world.policy, world.leader).steps)
    assert world.image.topics["t"].value.partitions == 200
    # Nothing that a process might have seen of the leftovers comes back in the same epoch.
    assert world.partition("t", 1).leader_epoch == 1
    assert world.partition("t", 199).leader_epoch == (1 if stop * 99 >= 199 else 0)


def test_as_many_partitions_as_there_are_is_no_change(world):
    world.create("t", 3)
    assert not changes.add_partitions(world.image, "t", 3, world.policy, world.leader).steps


@pytest.mark.parametrize(
    ("name", "count", "reason"),
    [
        ("t", 2, Reason.INVALID_REQUEST),
        ("t", -1, Reason.INVALID_REQUEST),
        ("t", 2**31 - 1, Reason.LIMIT_EXCEEDED),
        ("missing", 2, Reason.TOPIC_NOT_FOUND),
    ],
)
def test_growth_that_cannot_be_is_refused(world, name, count, reason):
    world.create("t", 3)
    refusal = refused(changes.add_partitions, world.image, name, count, world.policy, world.leader)
    assert refusal.reason is reason


def test_a_topic_that_was_deleted_meanwhile_does_not_grow(world):
    world.create("t")
    plan = changes.add_partitions(world.image, "t", 300, world.policy, world.leader)
    world.run(deletions.delete(world.image, "t").steps)
    with pytest.raises(Outdated):
        world.run(plan.steps)


# --- alter


def test_a_configuration_is_set_and_unset(world):
    world.create("t", retention_ms="7d", fsync="true")
    world.run(
        changes.alter(
            world.image,
            "t",
            {"retention.ms": "1h", "max.batch.bytes": "1KiB"},
            ["fsync"],
            world.policy,
        ).steps
    )
    assert world.image.topics["t"].value.configs == {
        "retention.ms": "3600000",
        "max.batch.bytes": "1024",
    }


def test_an_alteration_that_changes_nothing_takes_no_step(world):
    world.create("t", retention_ms="7d")
    plan = changes.alter(world.image, "t", {"retention.ms": "604800000"}, ["fsync"], world.policy)
    assert not plan.steps


def test_an_alteration_is_checked_like_a_creation(world):
    world.create("t")
    for to_set, to_unset in (({"x": "1"}, ()), ({}, ("x",)), ({"fsync": "true"}, ("fsync",))):
        refusal = refused(changes.alter, world.image, "t", to_set, to_unset, world.policy)
        assert refusal.reason is Reason.INVALID_CONFIG
    assert (
        refused(changes.alter, world.image, "u", {}, (), world.policy).reason
        is Reason.TOPIC_NOT_FOUND
    )


@pytest.mark.parametrize("partitions", [1, 250])
def test_partitions_follow_the_durability_of_their_topic(world, partitions):
    world.create("t", partitions)
    for value, durability, life in (
        ("relaxed", Durability.RELAXED, LIVES.relaxed),
        ("true", Durability.FSYNC, LIVES.fsync),
    ):
        world.run(changes.alter(world.image, "t", {"fsync": value}, (), world.policy).steps)
        before = world.partition("t", partitions - 1)
        world.run(changes.follow_config(world.image, "t", world.policy))
        partition = world.partition("t", partitions - 1)
        assert partition.durability is durability
        assert partition.isr == (Replica(1, life),)
        assert partition.partition_epoch == before.partition_epoch + 1
        assert partition.leader_epoch == before.leader_epoch
        assert not changes.follow_config(world.image, "t", world.policy)


def test_a_partition_whose_data_is_in_doubt_does_not_follow(world):
    world.create("t")
    world.run(changes.alter(world.image, "t", {"fsync": "relaxed"}, (), world.policy).steps)
    world.register(Incarnations(make_id(1), make_id(2)))
    assert not changes.follow_config(world.image, "t", world.policy)


def test_a_batch_limit_of_the_broker_bounds_what_a_topic_may_allow():
    world = World(TopicPolicy(limits=Limits(max_batch_bytes=2_000_000)))
    new = NewTopic("t", configs={"max.batch.bytes": "3MiB"})
    refusal = refused(plan_create, world, new)
    assert refusal.reason is Reason.INVALID_CONFIG
    assert "at most 2000000 (setting limits.max_batch_bytes)" in refusal.message
    topic = world.create("t", max_batch_bytes="1900000")
    refusal = refused(
        changes.alter, world.image, "t", {"max.batch.bytes": "3MiB"}, (), world.policy
    )
    assert refusal.reason is Reason.INVALID_CONFIG
    # A limit that was lowered later counts at once.
    assert (
        TopicPolicy(limits=Limits(max_batch_bytes=5_000)).config_of(topic).max_batch_bytes == 5_000
    )


# --- delete


def test_a_topic_becomes_a_tombstone_in_one_step(world):
    topic = world.create("t", 250)
    plan = deletions.delete(world.image, "t")
    assert len(plan.steps) == 1
    world.run(plan.steps)
    assert "t" not in world.image.topics
    tombstone = world.image.tombstones[topic.topic_id].value
    assert (tombstone.state, tombstone.pending) == (TombstoneState.DELETING, (1,))
    assert tombstone.topic == "t"


def test_a_name_is_free_while_what_had_it_is_still_being_deleted(world):
    first = world.create("t", 2)
    world.run(deletions.delete(world.image, "t").steps)
    second = world.create("t", 1)
    assert first.topic_id != second.topic_id
    world.run(deletions.confirm_deletion(world.image, world.image.tombstones[first.topic_id], 1))
    assert list(world.image.partitions) == [second.topic_id]


@pytest.mark.parametrize("partitions", SIZES)
def test_a_confirmed_deletion_leaves_nothing_wherever_it_was_interrupted(partitions):
    for stop in range(6):
        world = World()
        topic = world.create("t", partitions)
        world.run(deletions.delete(world.image, "t").steps)
        tombstone = world.image.tombstones[topic.topic_id]
        world.run(deletions.confirm_deletion(world.image, tombstone, 1), stop_after=stop)
        tombstone = world.image.tombstones.get(topic.topic_id)
        if tombstone:
            world.run(deletions.confirm_deletion(world.image, tombstone, 1))
        assert set(world.stored) == {keys.broker(1)}


def test_a_tombstone_waits_for_every_broker_that_held_the_topic(world):
    topic = world.create("t")
    world.run(deletions.delete(world.image, "t").steps)
    tombstone = world.image.tombstones[topic.topic_id]
    world.run(deletions.confirm_deletion(world.image, tombstone, 9))
    assert world.image.tombstones[topic.topic_id].value.pending == (1,)


def test_a_topic_made_anew_is_not_deleted_by_the_id_of_the_old_one(world):
    topic = world.create("t")
    refusal = refused(deletions.delete, world.image, "t", make_id(9))
    assert refusal.reason is Reason.TOPIC_ID_MISMATCH
    assert topic.topic_id.hex() in refusal.message
    world.run(deletions.delete(world.image, "t", topic.topic_id).steps)
    assert refused(deletions.delete, world.image, "t").reason is Reason.TOPIC_NOT_FOUND


# --- the image


def test_a_revision_that_was_applied_before_changes_nothing(world):
    world.create("t")
    revision = world.image.revision
    touched = world.image.apply(revision, [KeyChange(keys.TopicKey("t"), None)])
    assert not touched.topics
    assert "t" in world.image.topics
    assert world.image.revision == revision


def test_what_a_change_touches_is_told(world):
    topic = world.create("t")
    partition = keys.PartitionKey(topic.topic_id, 0)
    touched = world.image.apply(
        world.revision + 1, [KeyChange(partition, world.stored[keys.partition(*partition)])]
    )
    assert (touched.topics, touched.topic_ids, touched.brokers) == ({"t"}, {topic.topic_id}, False)
    touched = world.image.apply(world.revision + 2, [KeyChange(keys.TopicKey("t"), None)])
    assert (touched.topics, touched.topic_ids) == ({"t"}, {topic.topic_id})
    assert world.image.topic_by_id(topic.topic_id) is None


def test_loading_again_after_a_gap_gives_the_same_as_applying_everything(world):
    gone = world.create("gone", 3)
    image = ClusterImage()

    def load():
        return image.load(
            world.revision,
            [KeyChange(keys.parse(key), value) for key, value in world.stored.items()],
        )

    load()
    world.create("t", 120)
    world.run(deletions.delete(world.image, "gone").steps)
    touched = load()
    assert gone.topic_id in touched.topic_ids
    assert "gone" in touched.topics
    for part in ("revision", "brokers", "topics", "partitions", "tombstones", "_names"):
        assert getattr(image, part) == getattr(world.image, part)
    assert image.partition_count == 120
