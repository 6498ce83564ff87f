"""What new partitions of a topic begin with: their replicas, all of them in sync, and a leader."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from riverrun_server.core.cluster import keys, placement
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import Leader, Standing
from riverrun_server.core.cluster.steps import ABSENT, Guard, Piece, Write
from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.cluster.values import (
    Durability,
    PartitionValue,
    Replica,
    TopicValue,
)


def plan(
    image: ClusterImage, topic: TopicValue, numbers: range, config: TopicConfig, leader: Leader
) -> Iterator[Piece]:
    """Plan the values of partitions that a topic does not show yet.

    Args:
        image: the metadata.
        topic: as it is, or as it will be made.
        numbers: of the new partitions.
        config: what holds for the topic.
        leader: the broker that plans; it leads every partition where it is the only broker.
    """
    for number, replicas in zip(numbers, _homes(image, topic, numbers, leader), strict=True):
        value = _first_value(topic, config, replicas)
        # A crash in the middle of an earlier attempt leaves partitions that nobody could see.
        before = image.partitions.get(topic.topic_id, {}).get(number)
        if before is not None:
            value = _after(before.value, value)
        revision = before.mod_revision if before else ABSENT
        write = Write(keys.partition(topic.topic_id, number), value, revision)
        yield _guards(image, replicas), write


def _homes(
    image: ClusterImage, topic: TopicValue, numbers: range, leader: Leader
) -> list[tuple[Leader, ...]]:
    """Return the processes that hold each new partition, the first as its leader."""
    if set(image.brokers) <= {leader.broker_id}:
        return [(leader,)] * len(numbers)
    there = image.partitions.get(topic.topic_id, {})
    visible = [each.value for number, each in there.items() if number < numbers.start]
    everywhere = (each.value for of in image.partitions.values() for each in of.values())
    placed = placement.place(
        placement.sites(image.brokers),
        len(numbers),
        topic.replication_factor,
        topic.topic_id + numbers.start.to_bytes(4, "big"),
        placement.Load.of(visible),
        placement.Load.of(everywhere),
    )
    standing = Standing(image.brokers)
    return [tuple(standing.process(broker) for broker in replicas) for replicas in placed]


def _guards(image: ClusterImage, replicas: Sequence[Leader]) -> tuple[Guard, ...]:
    """Insist that nobody is fenced, drains or begins anew before the partition is there.

    A broker that is alone plans for itself and does nothing of that meanwhile.
    """
    if len(image.brokers) == 1:
        return ()
    standing = Standing(image.brokers)
    return tuple(standing.guard(each.broker_id) for each in replicas)


def _first_value(
    topic: TopicValue, config: TopicConfig, replicas: Sequence[Leader]
) -> PartitionValue:
    """Return a partition that begins empty, and therefore with every replica in sync."""
    assert len(replicas) == topic.replication_factor, (topic, replicas)
    durability = Durability.FSYNC if config.fsync else Durability.RELAXED
    return PartitionValue(
        leader=replicas[0].broker_id,
        leader_broker_epoch=replicas[0].broker_epoch,
        replicas=tuple(each.broker_id for each in replicas),
        isr=tuple(Replica(each.broker_id, each.incarnations.of(durability)) for each in replicas),
        min_isr=config.effective_min_isr(topic.replication_factor),
        durability=durability,
    )


def _after(before: PartitionValue, value: PartitionValue) -> PartitionValue:
    """Return a first value whose epochs are above those of one that it replaces."""
    return dataclasses.replace(
        value,
        leader_epoch=before.leader_epoch + 1,
        partition_epoch=before.partition_epoch + 1,
    )
