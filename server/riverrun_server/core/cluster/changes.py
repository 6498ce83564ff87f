"""How topics are made, changed and deleted: the current state and a request give a plan or a Refusal.

A topic of many partitions takes several steps. What must be all or nothing for a reader is in the
last one: the topic's own key, which partitions without it do not count. A topic id that has no
topic, or no more, has a tombstone for as long as anything of it may be stored, so whatever a crash
leaves behind is found by it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from riverrun_server.core.cluster import (
    keys,
    new_partitions,
    placement,
    topic_config,
    topic_rules,
)
from riverrun_server.core.cluster.image import ClusterImage, Versioned
from riverrun_server.core.cluster.naming import quoted
from riverrun_server.core.cluster.standing import Leader, Standing
from riverrun_server.core.cluster.steps import (
    ABSENT,
    EARLIER,
    Erase,
    Guard,
    Piece,
    Step,
    Write,
    guarded,
    packed,
)
from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.cluster.values import (
    Durability,
    Id,
    PartitionValue,
    Replica,
    Tombstone,
    TombstoneState,
    TopicValue,
)
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.limits import Limits


@dataclass(frozen=True, slots=True)
class TopicPolicy:
    """What the broker adds to requests, and what it holds them against.

    Attributes:
        limits: of the broker.
        default_partitions: of a topic that does not say.
        default_replication_factor: of a topic that does not say.
        default_configs: canonical; what holds where a topic does not say.
    """

    limits: Limits = field(default_factory=Limits)
    default_partitions: int = 1
    default_replication_factor: int = 1
    default_configs: Mapping[str, str] = field(default_factory=dict)

    def config_of(self, topic: TopicValue) -> TopicConfig:
        """Return what holds for a topic, within what the broker allows now."""
        config = topic_config.resolve(topic.configs, self.default_configs, topic.replication_factor)
        if config.max_batch_bytes <= self.limits.max_batch_bytes:
            return config
        return dataclasses.replace(config, max_batch_bytes=self.limits.max_batch_bytes)

    def canonical(self, configs: Mapping[str, str]) -> dict[str, str]:
        """Return configuration from a request in canonical form.

        Raises:
            Refusal: INVALID_CONFIG.
        """
        found = topic_config.canonical(configs)
        largest = found.get("max.batch.bytes")
        if largest is not None and int(largest) > self.limits.max_batch_bytes:
            raise Refusal(
                Reason.INVALID_CONFIG,
                f"config max.batch.bytes is {largest}, this broker allows at most "
                f"{self.limits.max_batch_bytes} (setting limits.max_batch_bytes)",
            )
        return found


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A request to make a topic; 0 stands for the broker's default."""

    topic: str
    partitions: int = 0
    replication_factor: int = 0
    configs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic as it will be, and the steps that make it so; none where it is so already."""

    topic: TopicValue
    steps: tuple[Step, ...] = ()


def find(image: ClusterImage, name: str) -> Versioned[TopicValue]:
    """Return a topic.

    Raises:
        Refusal: TOPIC_NOT_FOUND.
    """
    found = image.topics.get(name)
    if found is None:
        raise topic_rules.missing_topic(name, sorted(image.topics), to_change=True)
    return found


def create(
    image: ClusterImage,
    new: NewTopic,
    policy: TopicPolicy,
    leader: Leader,
    topic_id: Id,
    now_ms: int,
) -> TopicPlan:
    """Plan a topic; whether its name is reserved is the caller's business.

    Args:
        image: the metadata; it says where replicas may go.
        new: what is asked for.
        policy: defaults and limits.
        leader: the broker that plans; it leads every partition where it is the only one.
        topic_id: of the topic; random, it also decides where placement has a choice.
        now_ms: the time, in ms since 1970.

    Raises:
        Refusal: INVALID_NAME, INVALID_CONFIG, INVALID_REQUEST, LIMIT_EXCEEDED, NOT_ENOUGH_BROKERS,
            TOPIC_EXISTS.
    """
    topic_rules.check_name(new.topic)
    if new.topic in image.topics:
        raise Refusal(
            Reason.TOPIC_EXISTS,
            f"there is a topic {quoted(new.topic)} already; with if_not_exists it is accepted as it is",
        )
    partitions = new.partitions or policy.default_partitions
    topic_rules.check_partitions(partitions, policy.limits, image.partition_count)
    replication_factor = new.replication_factor or policy.default_replication_factor
    _check_replicas(image, replication_factor)
    topic = TopicValue(
        topic=new.topic,
        topic_id=topic_id,
        partitions=partitions,
        replication_factor=replication_factor,
        configs=policy.canonical(new.configs),
        internal=topic_rules.is_internal(new.topic),
        create_time_ms=now_ms,
    )
    config = policy.config_of(topic)
    pieces = list(new_partitions.plan(image, topic, range(partitions), config, leader))
    return TopicPlan(topic, tuple(_creation(topic, pieces, leader)))


def _creation(topic: TopicValue, pieces: Sequence[Piece], maker: Leader) -> Iterator[Step]:
    last = Write(keys.topic(topic.topic), topic, ABSENT)
    at_once = (*pieces, ((), last))
    if len(steps := list(packed(at_once))) == 1:
        yield from steps
        return
    tombstone = Tombstone(
        topic=topic.topic,
        topic_id=topic.topic_id,
        state=TombstoneState.CREATING,
        maker=maker.broker_id,
        maker_epoch=maker.broker_epoch,
    )
    key = keys.tombstone(topic.topic_id)
    yield Step((Write(key, tombstone, ABSENT),))
    yield from packed(pieces, (Guard(key, EARLIER),))
    yield Step((Erase(key, EARLIER), last))


def _check_replicas(image: ClusterImage, replication_factor: int) -> None:
    usable = len(placement.sites(image.brokers))
    topic_rules.check_replication_factor(replication_factor, usable, len(image.brokers))


def add_partitions(
    image: ClusterImage, name: str, partitions: int, policy: TopicPolicy, leader: Leader
) -> TopicPlan:
    """Plan more partitions of a topic; as many as it has is no change.

    The arguments are those of `create`.

    Raises:
        Refusal: TOPIC_NOT_FOUND, INVALID_REQUEST, LIMIT_EXCEEDED, NOT_ENOUGH_BROKERS.
    """
    found = find(image, name)
    topic = found.value
    if partitions < topic.partitions:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"topic {quoted(name)} has {topic.partitions} partitions and cannot have {partitions}: "
            "partitions are never taken away, for their records would be lost",
        )
    others = image.partition_count - topic.partitions
    topic_rules.check_partitions(partitions, policy.limits, others)
    if partitions == topic.partitions:
        return TopicPlan(topic)
    _check_replicas(image, topic.replication_factor)
    changed = dataclasses.replace(topic, partitions=partitions)
    config = policy.config_of(topic)
    more = range(topic.partitions, partitions)
    pieces = new_partitions.plan(image, topic, more, config, leader)
    key = keys.topic(name)
    *steps, last = packed(pieces, (Guard(key, found.mod_revision),))
    # The one that shows them takes the place of the guard.
    growing = Write(key, changed, found.mod_revision)
    return TopicPlan(changed, (*steps, Step((*last.changes[1:], growing))))


def alter(
    image: ClusterImage,
    name: str,
    to_set: Mapping[str, str],
    to_unset: Sequence[str],
    policy: TopicPolicy,
) -> TopicPlan:
    """Plan another configuration; partitions follow by `follow_config` once it is applied.

    Raises:
        Refusal: TOPIC_NOT_FOUND, INVALID_CONFIG.
    """
    found = find(image, name)
    changes = policy.canonical(to_set)
    topic_config.check_keys(to_unset)
    both = sorted(set(changes) & set(to_unset))
    if both:
        raise Refusal(
            Reason.INVALID_CONFIG, f"{', '.join(both)} cannot be set and unset in one request"
        )
    configs = {**found.value.configs, **changes}
    for key in to_unset:
        configs.pop(key, None)
    if configs == found.value.configs:
        return TopicPlan(found.value)
    changed = dataclasses.replace(found.value, configs=configs)
    step = Step((Write(keys.topic(name), changed, found.mod_revision),))
    return TopicPlan(changed, (step,))


def follow_config(image: ClusterImage, name: str, policy: TopicPolicy) -> tuple[Step, ...]:
    """Plan that a topic's partitions follow its configuration, in steps that may end anywhere.

    The durability class is followed here where a broker holds all partitions alone: it counts appends by
    the configuration, and by the stricter of both. An in-sync replica changes its class by naming the
    incarnation that counts for the new one. That it is the same life of its data is known only where the
    value names the broker's present incarnation of the old class; a partition for which it does not waits
    for an election. So does one whose leader is away: those eligible in its place would be so no more.
    Of brokers that replicate, the controller and the leader change the class (partition_changes.py).
    """
    found = image.topics.get(name)
    if found is None:
        return ()
    topic = found.value
    config = policy.config_of(topic)
    writes = []
    for number, partition in sorted(image.partitions.get(topic.topic_id, {}).items()):
        followed = _following(image, partition.value, config, topic.replication_factor)
        if number < topic.partitions and followed != partition.value:
            key = keys.partition(topic.topic_id, number)
            writes.append(Write(key, followed, partition.mod_revision))
    return tuple(guarded(Guard(keys.topic(name), found.mod_revision), writes))


def counts_as_configured(image: ClusterImage, name: str, policy: TopicPolicy) -> bool:
    """Return whether no partition that is led counts appends as durable that are not, by its topic."""
    found = image.topics.get(name)
    if found is None or not policy.config_of(found.value).fsync:
        return True
    standing = Standing(image.brokers)
    partitions = image.partitions.get(found.value.topic_id, {})
    return not any(
        partitions[number].value.durability is Durability.RELAXED
        and standing.leads(partitions[number].value)
        for number in range(found.value.partitions)
        if number in partitions
    )


def _is_alone(image: ClusterImage, broker: int) -> bool:
    """Return whether a broker is the only one, and of a kind that no other could join."""
    found = image.brokers.get(broker)
    return found is not None and len(image.brokers) == 1 and not found.value.peer_endpoint


def _following(
    image: ClusterImage, value: PartitionValue, config: TopicConfig, replication_factor: int
) -> PartitionValue:
    durability = value.durability
    if _is_alone(image, value.leader):
        durability = Durability.FSYNC if config.fsync else Durability.RELAXED
    min_isr = config.effective_min_isr(replication_factor)
    if (value.durability, value.min_isr) == (durability, min_isr):
        return value
    if not Standing(image.brokers).leads(value):
        return value
    lives = {each: broker.value.incarnations for each, broker in image.brokers.items()}
    isr = []
    for replica in value.isr:
        life = lives.get(replica.broker)
        if life is None or life.of(value.durability) != replica.incarnation:
            return value
        isr.append(Replica(replica.broker, life.of(durability)))
    return dataclasses.replace(
        value,
        partition_epoch=value.partition_epoch + 1,
        isr=tuple(isr),
        # Who left while another number counted may lack what was committed under the new one.
        elr=(),
        min_isr=min_isr,
        durability=durability,
    )
