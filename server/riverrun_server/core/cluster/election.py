"""Who leads after a start: a broker that holds the only replica leads again, in a new epoch.

A process leads only what it was elected for. Whether its data may be trusted is told by the
incarnation that its data directory carries: if that is the one in the partition's in-sync set,
everything that counted is there. If it is not, the topic's `unclean.recovery` decides. Partitions
that others hold too are the controller's (controller.py, partition_changes.py).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.changes import TopicPolicy, find
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import Leader, broker_epoch
from riverrun_server.core.cluster.steps import ABSENT, Guard, Step, Write, guarded
from riverrun_server.core.cluster.topic_config import TopicConfig, UncleanRecovery
from riverrun_server.core.cluster.topic_rules import missing_partition
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    Durability,
    PartitionValue,
    Replica,
    TopicValue,
)
from riverrun_server.core.log.epochs import EPOCHS_LOST_MAX

# A topic's name and a partition's number.
TopicPartition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Election:
    """What an election decided.

    Attributes:
        steps: each insists on the registration that was elected.
        elected: partitions that go on, or begin.
        unclean: those of them that lost data, as their topics accept.
        offline: partitions that wait for an operator; their values stay as they are.
    """

    steps: tuple[Step, ...]
    elected: list[TopicPartition]
    unclean: list[TopicPartition]
    offline: list[TopicPartition]


def register(image: ClusterImage, registration: BrokerRegistration) -> Step:
    """Plan a broker's registration; the revision that it gets is the process's broker epoch."""
    assert registration.broker_epoch == 0, registration
    before = image.brokers.get(registration.broker_id)
    revision = before.mod_revision if before else ABSENT
    return Step((Write(keys.broker(registration.broker_id), registration, revision),))


def elect(image: ClusterImage, leader: Leader, policy: TopicPolicy) -> Election:
    """Elect a broker that has just registered for every partition that only it holds.

    Each gets the next leader epoch, and follows its topic's configuration from there.
    """
    registration = image.brokers[leader.broker_id]
    assert broker_epoch(registration) == leader.broker_epoch, (registration, leader)
    election = Election((), [], [], [])
    writes = []
    for name, topic in sorted(image.topics.items()):
        config = policy.config_of(topic.value)
        partitions = image.partitions.get(topic.value.topic_id, {})
        for number in range(topic.value.partitions):
            here = (name, number)
            partition = partitions.get(number)
            if partition is None:
                election.offline.append(here)
                continue
            value = partition.value
            if value.replicas != (leader.broker_id,):
                continue
            if value.leader_broker_epoch >= leader.broker_epoch:
                continue
            first_free = value.leader_epoch + 1
            if not _has_all_data(value, leader):
                first_free += EPOCHS_LOST_MAX
                if config.unclean_recovery is not UncleanRecovery.ACCEPT:
                    election.offline.append(here)
                    continue
                election.unclean.append(here)
            election.elected.append(here)
            key = keys.partition(topic.value.topic_id, number)
            elected = _elected(value, topic.value, config, leader, first_free)
            writes.append(Write(key, elected, partition.mod_revision))
    guard = Guard(keys.broker(leader.broker_id), registration.mod_revision)
    return dataclasses.replace(election, steps=tuple(guarded(guard, writes)))


def accept_loss(
    image: ClusterImage, leader: Leader, name: str, partition: int, newest_stored_epoch: int
) -> Step:
    """Plan that what a broker still has of a partition is all there is; an operator's decision.

    Positions in what was lost get the truncation error, for the leader epoch rises above every one
    that may have been lost with it.

    Args:
        image: of the metadata; it may be older than what is stored of the partition.
        leader: the broker that has it.
        name: of the topic.
        partition: its number.
        newest_stored_epoch: the largest leader epoch that its log knew before it was cut.

    Raises:
        Refusal: TOPIC_NOT_FOUND, PARTITION_NOT_FOUND.
    """
    topic = find(image, name).value
    found = image.partitions.get(topic.topic_id, {}).get(partition)
    if found is None or partition >= topic.partitions:
        raise missing_partition(name, partition, topic.partitions)
    value = found.value
    here = Replica(leader.broker_id, leader.incarnations.of(value.durability))
    accepted = dataclasses.replace(
        value,
        leader_epoch=max(value.leader_epoch, newest_stored_epoch) + 1 + EPOCHS_LOST_MAX,
        partition_epoch=value.partition_epoch + 1,
        isr=(here,),
        elr=(),
    )
    return Step((Write(keys.partition(topic.topic_id, partition), accepted, found.mod_revision),))


def _has_all_data(value: PartitionValue, leader: Leader) -> bool:
    here = Replica(leader.broker_id, leader.incarnations.of(value.durability))
    return here in value.isr or here in value.elr


def _elected(
    value: PartitionValue,
    topic: TopicValue,
    config: TopicConfig,
    leader: Leader,
    leader_epoch: int,
) -> PartitionValue:
    # Nothing is open yet and what was recovered is durable, so the class may change either way.
    durability = Durability.FSYNC if config.fsync else Durability.RELAXED
    return dataclasses.replace(
        value,
        leader=leader.broker_id,
        leader_epoch=leader_epoch,
        leader_broker_epoch=leader.broker_epoch,
        partition_epoch=value.partition_epoch + 1,
        isr=(Replica(leader.broker_id, leader.incarnations.of(durability)),),
        elr=(),
        min_isr=config.effective_min_isr(topic.replication_factor),
        durability=durability,
    )
