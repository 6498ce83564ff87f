"""Electing preferred leaders at once, because somebody asks for it: which partitions, and why not others.

The controller does the same by itself, a few partitions at a time and only where nothing else is due.
It does no harm that both do it: each election insists on the partition and on its brokers as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from riverrun_server.core.cluster import partition_changes, topic_rules
from riverrun_server.core.cluster.election import TopicPartition
from riverrun_server.core.cluster.guarded_partitions import guarded_partition
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.cluster.steps import Step, packed
from riverrun_server.core.cluster.values import PartitionValue
from riverrun_server.core.errors import Reason, Refusal

# A step that does not apply holds up all partitions in it.
_PARTITIONS_IN_STEP: Final = 32


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for: one partition of a topic, or with None all of them."""

    topic: str
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Prospect:
    """A partition that is looked at.

    Attributes:
        topic: its name.
        partition: its number; None where the topic is not there.
        value: as it stands; None where the metadata does not say.
        led: the leader that it names is there.
        due: its preferred leader may be elected and does not lead.
        obstacle: why it does not lead and cannot be elected.
    """

    topic: str
    partition: int | None
    value: PartitionValue | None = None
    led: bool = False
    due: bool = False
    obstacle: Refusal | None = None

    @property
    def here(self) -> TopicPartition:
        """Where it is.

        A topic that is not there has no such place.
        """
        assert self.partition is not None, self
        return self.topic, self.partition


def look(image: ClusterImage, targets: Sequence[Target]) -> list[Prospect]:
    """Look at what is asked for, each partition once and in that order; no target is all topics."""
    standing = Standing(image.brokers)
    wanted = targets or [Target(name) for name in sorted(image.topics)]
    found: dict[tuple[str, int | None], Prospect] = {}
    for target in wanted:
        for prospect in _looked(image, target, standing):
            found.setdefault((prospect.topic, prospect.partition), prospect)
    return list(found.values())


def elect(image: ClusterImage, where: Iterable[TopicPartition], *, alone: bool) -> Iterator[Step]:
    """Plan the elections of preferred leaders that are due as the image shows.

    Args:
        image: the metadata.
        where: the partitions; those where nothing is due are left as they are.
        alone: each in a step of its own, after a step did not apply.
    """
    standing = Standing(image.brokers)
    pieces = []
    for name, number in where:
        topic = image.topics.get(name)
        if topic is None or number >= topic.value.partitions:
            continue
        found = image.partitions.get(topic.value.topic_id, {}).get(number)
        if found is None or not _is_due(found.value, standing):
            continue
        elected = partition_changes.elected(found.value, found.value.replicas[0], standing)
        piece = guarded_partition(topic, number, found, elected, standing, by_topic=True)
        pieces.append(piece)
    return packed(pieces, writes_max=1 if alone else _PARTITIONS_IN_STEP)


def _looked(image: ClusterImage, target: Target, standing: Standing) -> Iterator[Prospect]:
    topic = image.topics.get(target.topic)
    if topic is None:
        missing = topic_rules.missing_topic(target.topic, sorted(image.topics), to_change=True)
        yield Prospect(target.topic, target.partition, obstacle=missing)
        return
    count = topic.value.partitions
    if target.partition is not None and not 0 <= target.partition < count:
        missing = topic_rules.missing_partition(target.topic, target.partition, count)
        yield Prospect(target.topic, target.partition, obstacle=missing)
        return
    partitions = image.partitions.get(topic.value.topic_id, {})
    numbers = range(count) if target.partition is None else (target.partition,)
    for number in numbers:
        found = partitions.get(number)
        value = found.value if found else None
        led = value is not None and standing.leads(value)
        due = value is not None and _is_due(value, standing)
        obstacle = None if due else _obstacle(f"{target.topic}[{number}]", value, standing)
        yield Prospect(target.topic, number, value, led, due, obstacle)


def _is_due(value: PartitionValue, standing: Standing) -> bool:
    # Where nobody leads the controller elects whoever may; that is not for others to choose.
    return standing.leads(value) and partition_changes.preferred(value, standing) is not None


def _obstacle(name: str, value: PartitionValue | None, standing: Standing) -> Refusal | None:
    if value is None or not standing.leads(value):
        return Refusal(
            Reason.PARTITION_OFFLINE,
            f"{name} has no leader; the controller elects one by itself as soon as a replica that "
            "has all data serves",
        )
    first = value.replicas[0]
    if value.leader == first:
        return None
    if not standing.registered(first):
        why = "is not registered; start it"
    elif not standing.serves(first):
        why = "is fenced, because it is not seen alive; start it, or see its log"
    elif not standing.stays(first):
        why = f"drains; let it serve again with: riverrun cluster drain {first} --undo"
    else:
        in_sync = ", ".join(str(each.broker) for each in value.isr)
        why = f"is not in sync, {in_sync} is; it joins by itself once it has caught up"
    return Refusal(
        Reason.PREFERRED_LEADER_NOT_AVAILABLE,
        f"{name} stays with broker {value.leader}: its preferred leader, broker {first}, {why}",
    )
