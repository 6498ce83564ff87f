"""Writes of partitions that hold only while every broker that they were decided on is as it was."""

from __future__ import annotations

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.image import Versioned
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.cluster.steps import Guard, Piece, Write
from riverrun_server.core.cluster.values import PartitionValue, TopicValue


def guarded_partition(
    topic: Versioned[TopicValue],
    number: int,
    found: Versioned[PartitionValue],
    changed: PartitionValue,
    standing: Standing,
    *,
    by_topic: bool,
) -> Piece:
    """Return the write of a partition, and insist on everything that it was decided on.

    Args:
        topic: of the partition.
        number: the partition's.
        found: as it stands.
        changed: as it shall stand.
        standing: of the brokers, by which that was decided.
        by_topic: it was decided by the topic, too.
    """
    brokers = {
        *found.value.replicas,
        *(each.broker for each in (*found.value.isr, *found.value.elr)),
    }
    guards = [standing.guard(each) for each in sorted(brokers)]
    if by_topic:
        guards.append(Guard(keys.topic(topic.value.topic), topic.mod_revision))
    key = keys.partition(topic.value.topic_id, number)
    return tuple(guards), Write(key, changed, found.mod_revision)
