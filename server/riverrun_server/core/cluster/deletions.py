"""How a topic goes, and what was left of one that was never finished: tombstones, in steps that may end anywhere.

A topic is gone from one moment to the next; what is stored of it goes afterwards, a broker at a time,
each in its own time. Data is deleted for a tombstone and for nothing else.
"""

from __future__ import annotations

import dataclasses

from riverrun_server.core.cluster import keys, topic_rules
from riverrun_server.core.cluster.changes import TopicPlan, find
from riverrun_server.core.cluster.image import ClusterImage, Versioned
from riverrun_server.core.cluster.standing import Standing, broker_epoch
from riverrun_server.core.cluster.steps import ABSENT, Erase, Guard, Step, Write, guarded
from riverrun_server.core.cluster.values import Id, Tombstone, TombstoneState


def delete(image: ClusterImage, name: str, topic_id: bytes = b"") -> TopicPlan:
    """Plan that a topic is gone: from one moment to the next it is a tombstone.

    Raises:
        Refusal: TOPIC_NOT_FOUND, TOPIC_ID_MISMATCH.
    """
    found = find(image, name)
    topic = found.value
    if topic_id and topic_id != topic.topic_id:
        raise topic_rules.wrong_topic_id(name, topic.topic_id, topic_id)
    held_by = {
        broker
        for partition in image.partitions.get(topic.topic_id, {}).values()
        for broker in partition.value.replicas
    }
    tombstone = Tombstone(
        topic=name,
        topic_id=topic.topic_id,
        state=TombstoneState.DELETING,
        pending=tuple(sorted(held_by)),
    )
    step = Step(
        (
            Write(keys.tombstone(topic.topic_id), tombstone, ABSENT),
            Erase(keys.topic(name), found.mod_revision),
        )
    )
    return TopicPlan(topic, (step,))


def is_abandoned(image: ClusterImage, tombstone: Tombstone, broker_id: int) -> bool:
    """Return whether a broker finds a topic half made and nobody who is at it.

    Args:
        image: the metadata.
        tombstone: of a topic that this broker is not making itself just now.
        broker_id: the one that asks; what an earlier process of it began, nobody goes on with.
    """
    maker = image.brokers.get(tombstone.maker)
    if tombstone.maker == broker_id or maker is None or maker.value.fenced:
        return True
    return broker_epoch(maker) != tombstone.maker_epoch


def give_up_creation(tombstone: Versioned[Tombstone]) -> tuple[Step, ...]:
    """Plan that a topic whose making was interrupted is deleted."""
    value = tombstone.value
    assert value.state is TombstoneState.CREATING, value
    deleting = dataclasses.replace(value, state=TombstoneState.DELETING)
    return (Step((Write(keys.tombstone(value.topic_id), deleting, tombstone.mod_revision),)),)


def is_being_deleted(image: ClusterImage, topic_id: Id) -> bool:
    """Return whether a broker that is there may still store something of a deleted topic."""
    found = image.tombstones.get(topic_id)
    if found is None:
        return False
    standing = Standing(image.brokers)
    pending = found.value.pending
    return not pending or any(standing.serves(broker) for broker in pending)


def confirm_deletion(
    image: ClusterImage, tombstone: Versioned[Tombstone], broker_id: int
) -> tuple[Step, ...]:
    """Plan what follows once a broker stores nothing of a deleted topic any more.

    The last broker to confirm takes the partitions' values away, then the tombstone.
    """
    value = tombstone.value
    assert value.state is TombstoneState.DELETING, value
    key = keys.tombstone(value.topic_id)
    pending = tuple(each for each in value.pending if each != broker_id)
    if pending:
        confirmed = dataclasses.replace(value, pending=pending)
        return (Step((Write(key, confirmed, tombstone.mod_revision),)),)
    erasures = [
        Erase(keys.partition(value.topic_id, number), partition.mod_revision)
        for number, partition in sorted(image.partitions.get(value.topic_id, {}).items())
    ]
    guard = Guard(key, tombstone.mod_revision)
    return (*guarded(guard, erasures), Step((Erase(key, tombstone.mod_revision),)))
