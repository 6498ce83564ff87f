"""How a cluster is: what each broker leads and holds, and which partitions lack a leader or replicas."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.cluster.values import PartitionValue


class Lack(enum.IntEnum):
    """What a partition lacks, the worst first."""

    LEADER = 1
    MIN_ISR = 2
    REPLICAS = 3


@dataclass(slots=True)
class Share:
    """What one broker has of all partitions.

    Attributes:
        leaders: how many it leads.
        preferred: how many it is the first replica of.
        replicas: how many it holds.
        in_sync: in how many of them it counts as in sync, as the life of its data that it is now.
    """

    leaders: int = 0
    preferred: int = 0
    replicas: int = 0
    in_sync: int = 0


class LackingPartition(NamedTuple):
    """A partition that is not as it should be.

    Attributes:
        lacks: all that it lacks, the worst first.
        topic: its topic's name.
        partition: its number.
        value: what the metadata says of it; None where that is nothing.
    """

    lacks: tuple[Lack, ...]
    topic: str
    partition: int
    value: PartitionValue | None


@dataclass(slots=True)
class ClusterHealth:
    """Everything that was counted.

    Attributes:
        shares: by broker, also of one that only partitions still name.
        topics: how many there are, those of the brokers too.
        partitions: how many they have.
        lacks: how many partitions lack what; one may lack several things.
        lacking: those partitions, the worst first, then by name.
    """

    shares: dict[int, Share] = field(default_factory=dict)
    topics: int = 0
    partitions: int = 0
    lacks: Counter[Lack] = field(default_factory=Counter)
    lacking: list[LackingPartition] = field(default_factory=list)


def health(image: ClusterImage) -> ClusterHealth:
    """Look at every partition."""
    found = ClusterHealth(shares={broker: Share() for broker in image.brokers})
    standing = Standing(image.brokers)
    for name, topic in sorted(image.topics.items()):
        found.topics += 1
        partitions = image.partitions.get(topic.value.topic_id, {})
        for number in range(topic.value.partitions):
            found.partitions += 1
            versioned = partitions.get(number)
            value = versioned.value if versioned else None
            lacks = tuple(_lacks(value, standing))
            if value is not None:
                _share(found.shares, value, standing)
            if lacks:
                found.lacks.update(lacks)
                found.lacking.append(LackingPartition(lacks, name, number, value))
    found.lacking.sort(key=lambda each: each.lacks[0])
    return found


def _lacks(value: PartitionValue | None, standing: Standing) -> Iterator[Lack]:
    if value is None:
        yield Lack.LEADER
        return
    if not standing.leads(value):
        yield Lack.LEADER
    if len(value.isr) < value.min_isr:
        yield Lack.MIN_ISR
    if len(value.isr) < len(value.replicas):
        yield Lack.REPLICAS


def _share(shares: dict[int, Share], value: PartitionValue, standing: Standing) -> None:
    for broker in value.replicas:
        shares.setdefault(broker, Share()).replicas += 1
    for replica in value.isr:
        # A partition that is offline may name a life that is over.
        if not standing.replaced(replica, value.durability):
            shares.setdefault(replica.broker, Share()).in_sync += 1
    shares[value.replicas[0]].preferred += 1
    if standing.leads(value):
        shares[value.leader].leaders += 1
