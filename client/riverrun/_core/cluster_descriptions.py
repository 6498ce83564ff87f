"""What brokers tell about the cluster as a whole, and of what operators do to it, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from riverrun.errors import Reason


@dataclass(frozen=True, slots=True)
class BrokerDescription:
    """Everything about one broker.

    Attributes:
        broker_id: its id.
        endpoint: where clients reach it, as host:port, on the listener that was asked.
        endpoints: the same for each listener, by its name.
        peer_endpoint: where other brokers reach it; empty where it has no such listener.
        rack: where it stands.
        host: the machine it runs on.
        broker_epoch: names its process; one that is started anew has a higher one.
        start_time_ms: when its process began, in ms since 1970.
        controller: it elects leaders and fences brokers.
        alive: its process is seen alive; it is fenced soon after that has ended.
        fenced: it leads nothing, and joins no set of replicas in sync.
        draining: it hands on what it leads, and leaves the sets of replicas in sync.
        leaders: how many partitions it leads.
        preferred_leaders: how many it is the preferred leader of.
        replicas: how many it holds.
        in_sync_replicas: in how many of them it is in sync.

    Example:
        for broker in (await admin.describe_cluster()).brokers:
            print(broker.broker_id, broker.leaders, "draining" if broker.draining else "")
    """

    broker_id: int
    endpoint: str
    endpoints: Mapping[str, str] = field(default_factory=dict)
    peer_endpoint: str = ""
    rack: str = ""
    host: str = ""
    broker_epoch: int = 0
    start_time_ms: int = 0
    controller: bool = False
    alive: bool = True
    fenced: bool = False
    draining: bool = False
    leaders: int = 0
    preferred_leaders: int = 0
    replicas: int = 0
    in_sync_replicas: int = 0


@dataclass(frozen=True, slots=True)
class LackingPartition:
    """A partition that lacks a leader or replicas.

    Attributes:
        topic: its topic.
        partition: its number.
        leader: the broker that leads it; -1 where nobody does.
        leader_epoch: of its leadership.
        partition_epoch: grows with every change of leader and replicas in sync.
        replicas: the brokers that hold it.
        in_sync_replicas: those of them that are in sync.
        eligible_leader_replicas: those that are not, and may lead all the same.
        min_in_sync_replicas: with fewer in sync nothing is committed.
        lags: by how many offsets each replica that is not in sync is behind, by its broker; without those
            of which the leader could not tell at once.

    Example:
        for partition in (await admin.describe_cluster()).lacking:
            print(partition.topic, partition.partition, "offline:", partition.offline)
    """

    topic: str
    partition: int
    leader: int
    leader_epoch: int = 0
    partition_epoch: int = 0
    replicas: tuple[int, ...] = ()
    in_sync_replicas: tuple[int, ...] = ()
    eligible_leader_replicas: tuple[int, ...] = ()
    min_in_sync_replicas: int = 0
    lags: Mapping[int, int] = field(default_factory=dict)

    @property
    def offline(self) -> bool:
        """Nobody leads it."""
        return self.leader < 0

    @property
    def under_min_isr(self) -> bool:
        """Too few replicas are in sync for anything to be committed."""
        return len(self.in_sync_replicas) < self.min_in_sync_replicas

    @property
    def under_replicated(self) -> bool:
        """Some of its replicas are not in sync."""
        return len(self.in_sync_replicas) < len(self.replicas)


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """A cluster at one revision of its metadata: its brokers, and which partitions lack something.

    Attributes:
        cluster_id: of the cluster.
        revision: of the metadata; it only grows.
        served_by: the broker that answered.
        controller: the broker that elects leaders; -1 where none does just now, or where the cluster is
            one broker that keeps the metadata itself.
        brokers: by id.
        topics: how many there are, those of the brokers included, as in all that follows.
        partitions: how many they have.
        offline_partitions: how many have no leader.
        under_min_isr_partitions: how many have too few replicas in sync to be written.
        under_replicated_partitions: how many have replicas that are not in sync.
        lacking: those that are counted above, the worst first; at most 1000.

    Example:
        cluster = await admin.describe_cluster()
        print(len(cluster.brokers), cluster.under_replicated_partitions)
    """

    cluster_id: str
    revision: int
    served_by: int
    controller: int
    brokers: tuple[BrokerDescription, ...]
    topics: int = 0
    partitions: int = 0
    offline_partitions: int = 0
    under_min_isr_partitions: int = 0
    under_replicated_partitions: int = 0
    lacking: tuple[LackingPartition, ...] = ()

    def broker(self, broker_id: int) -> BrokerDescription | None:
        """Return a broker by its id; None where there is none.

        Example:
            cluster = await admin.describe_cluster()
            print(cluster.broker(cluster.served_by).endpoint)
        """
        return next((each for each in self.brokers if each.broker_id == broker_id), None)


@dataclass(frozen=True, slots=True)
class ElectionResult:
    """What became of the election of one partition's preferred leader.

    Attributes:
        topic: its topic.
        partition: its number; None where the topic is not there and no partition was named.
        outcome: "elected", "unchanged" where its preferred leader led it already, or "failed".
        leader: the broker that leads it now; -1 where nobody does.
        leader_epoch: of its leadership.
        error: why it failed; empty where it did not.
        reason: the same, to program against.
        outcome_known: False where it may have been elected all the same.

    Example:
        for result in await admin.elect_leaders(["orders"]):
            print(result.partition, result.outcome, result.leader, result.error)
    """

    topic: str
    partition: int | None
    outcome: Literal["elected", "unchanged", "failed"]
    leader: int = -1
    leader_epoch: int = 0
    error: str = ""
    reason: Reason | None = None
    outcome_known: bool = True


@dataclass(frozen=True, slots=True)
class DrainResult:
    """A broker that drains, or serves again.

    Attributes:
        broker: as it was right after that; what is left to be moved are its leaders and
            in_sync_replicas.
        changed: False where it drained, or served, already.
        stranded_partitions: how many partitions nobody else may lead; those that it leads stay with it.
        short_partitions: how many cannot be written because it drains.

    Example:
        try:
            drained = await admin.drain_broker(3)
            print(drained.broker.leaders, "partitions are left to be handed on")
        except riverrun.UsageError as error:
            print(error.reason, error.message)
    """

    broker: BrokerDescription
    changed: bool
    stranded_partitions: int = 0
    short_partitions: int = 0
