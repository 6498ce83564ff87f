"""Where the replicas of new partitions go: spread over hosts and racks, leaders and replicas even.

What must hold comes before what is nice: two replicas share a host only where no other is free, then
a rack; then every rack, host and broker gets its share. A partition's first replica is its preferred
leader. Ties are broken by the seed, so that the same seed gives the same placement, and different
partitions share their brokers with different others: what one broker leaves to do when it dies is
spread over all.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from riverrun_server.core.cluster.image import Versioned
from riverrun_server.core.cluster.values import BrokerRegistration, PartitionValue

Replicas = tuple[int, ...]


class Site(NamedTuple):
    """Where a broker stands; a broker that names no host is one of its own."""

    broker: int
    host: str
    rack: str


@dataclass(slots=True)
class Load:
    """How many replicas brokers have, and how many of them are first."""

    replicas: Counter[int] = field(default_factory=Counter)
    firsts: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, partitions: Iterable[PartitionValue]) -> Load:
        """Count what there is."""
        load = cls()
        for partition in partitions:
            load.add(partition.replicas)
        return load

    def add(self, replicas: Replicas) -> None:
        """Count one more partition."""
        self.replicas.update(replicas)
        self.firsts[replicas[0]] += 1


def sites(brokers: Mapping[int, Versioned[BrokerRegistration]]) -> list[Site]:
    """Return the brokers that take new replicas: those that serve and are not about to end."""
    return [
        Site(broker, found.value.host or f"broker {broker}", found.value.rack)
        for broker, found in sorted(brokers.items())
        if not found.value.fenced and not found.value.draining
    ]


def place(
    among: Sequence[Site],
    partitions: int,
    replication_factor: int,
    seed: bytes,
    topic: Load | None = None,
    cluster: Load | None = None,
) -> list[Replicas]:
    """Return the replicas of each new partition, preferred leader first.

    Args:
        among: the brokers to choose from, at least as many as replicas.
        partitions: how many are new.
        replication_factor: how many replicas each gets.
        seed: breaks ties.
        topic: what the topic has already.
        cluster: what all topics have; it decides where this topic leaves the choice.
    """
    assert 1 <= replication_factor <= len(among), (replication_factor, len(among))
    topic, cluster = topic or Load(), cluster or Load()
    shares = _Shares(among, topic.replicas, cluster.replicas)
    placed = [shares.take(replication_factor, seed, number) for number in range(partitions)]
    _order(placed, [each.broker for each in among], topic.firsts, cluster.firsts)
    return [tuple(each) for each in placed]


class _Shares:
    """How much every rack, host and broker has of a topic while it is being placed."""

    def __init__(self, among: Sequence[Site], topic: Counter[int], cluster: Counter[int]) -> None:
        self._among = among
        self._cluster = Counter(cluster)
        self._rack_size = Counter(each.rack for each in among)
        self._host_size = Counter(each.host for each in among)
        self._rack: Counter[str] = Counter()
        self._host: Counter[str] = Counter()
        self._broker: Counter[int] = Counter()
        for each in among:
            self._add(each, topic[each.broker])

    def take(self, count: int, seed: bytes, number: int) -> list[int]:
        """Choose the replicas of one partition, and count them."""
        ties = {each.broker: _roll(seed, number, each.broker) for each in self._among}
        hosts: Counter[str] = Counter()
        racks: Counter[str] = Counter()
        chosen: dict[int, Site] = {}

        def cost(site: Site) -> tuple[float, ...]:
            return (
                hosts[site.host],
                racks[site.rack],
                self._rack[site.rack] / self._rack_size[site.rack],
                self._host[site.host] / self._host_size[site.host],
                self._broker[site.broker],
                self._cluster[site.broker],
                ties[site.broker],
            )

        for _ in range(count):
            site = min((each for each in self._among if each.broker not in chosen), key=cost)
            chosen[site.broker] = site
            hosts[site.host] += 1
            racks[site.rack] += 1
            self._add(site, 1)
            self._cluster[site.broker] += 1
        return [*chosen]

    def _add(self, site: Site, count: int) -> None:
        self._rack[site.rack] += count
        self._host[site.host] += count
        self._broker[site.broker] += count


def _order(
    placed: Sequence[list[int]], brokers: Sequence[int], firsts: Counter[int], cluster: Counter[int]
) -> None:
    """Bring each partition's replicas into the order in which they are to lead.

    Every place in the order is spread, so that also those who take over from one leader are several.
    """
    counts: list[Counter[int]] = [Counter(firsts)]
    for replicas in placed:
        rest = [*replicas]
        for rank in range(len(replicas)):
            if rank == len(counts):
                counts.append(Counter())
            replicas[rank] = _least(rest, counts[rank], cluster)
            rest.remove(replicas[rank])
            counts[rank][replicas[rank]] += 1
    while _level(placed, brokers, counts[0]):
        pass


def _least(among: Sequence[int], count: Counter[int], cluster: Counter[int]) -> int:
    return min(among, key=lambda each: (count[each], cluster[each]))


def _level(placed: Sequence[list[int]], brokers: Sequence[int], firsts: Counter[int]) -> bool:
    """Take one partition's lead from who has too many, along a chain to who has too few.

    Each partition on the chain swaps its first replica for another of its own. Where replicas are even
    and nothing was there before, there is such a chain as long as leads differ by more than one.
    """
    fewest = min(firsts[each] for each in brokers)
    led: dict[int, list[list[int]]] = {}
    for replicas in placed:
        led.setdefault(replicas[0], []).append(replicas)
    reached: dict[int, list[int] | None] = {
        each: None for each in brokers if firsts[each] >= fewest + 2
    }
    queue = deque(reached)
    while queue:
        broker = queue.popleft()
        for replicas in led.get(broker, ()):
            for other in replicas[1:]:
                if other in reached:
                    continue
                reached[other] = replicas
                if firsts[other] == fewest:
                    _pass_on(other, reached, firsts)
                    return True
                queue.append(other)
    return False


def _pass_on(broker: int, reached: dict[int, list[int] | None], firsts: Counter[int]) -> None:
    firsts[broker] += 1
    while (replicas := reached[broker]) is not None:
        before, at = replicas[0], replicas.index(broker)
        replicas[0], replicas[at] = broker, before
        broker = before
    firsts[broker] -= 1


def _roll(seed: bytes, number: int, broker: int) -> int:
    text = seed + number.to_bytes(4, "big") + broker.to_bytes(4, "big")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
