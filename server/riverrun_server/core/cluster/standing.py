"""What each registered broker counts for: who serves, who may lead, whose data is the same life's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.image import Versioned
from riverrun_server.core.cluster.steps import ABSENT, Guard
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    Durability,
    Incarnations,
    PartitionValue,
    Replica,
)


@dataclass(frozen=True, slots=True)
class Leader:
    """A process that shall lead partitions, or hold them."""

    broker_id: int
    broker_epoch: int
    incarnations: Incarnations


def broker_epoch(registration: Versioned[BrokerRegistration]) -> int:
    """Return which process a registration is of."""
    return registration.value.broker_epoch or registration.mod_revision


class Standing:
    """The brokers of a cluster as their registrations say.

    Args:
        brokers: registrations by broker id, as in `ClusterImage.brokers`.
    """

    def __init__(self, brokers: Mapping[int, Versioned[BrokerRegistration]]) -> None:
        self._brokers = brokers
        self._serving = {each for each, found in brokers.items() if not found.value.fenced}
        self._epochs = {each: broker_epoch(found) for each, found in brokers.items()}
        # Every partition asks for these.
        self._lives = {
            (each, durability): Replica(each, found.value.incarnations.of(durability))
            for each, found in brokers.items()
            for durability in Durability
        }

    def epoch(self, broker: int) -> int:
        """Return the process that a registered broker is now."""
        return self._epochs[broker]

    def process(self, broker: int) -> Leader:
        """Return a registered broker as it would be made leader."""
        return Leader(broker, self.epoch(broker), self._brokers[broker].value.incarnations)

    def replica(self, broker: int, durability: Durability) -> Replica:
        """Return a registered broker as the life of its data that it is now."""
        return self._lives[broker, durability]

    def guard(self, broker: int) -> Guard:
        """Return what insists that a broker is what this says of it."""
        found = self._brokers.get(broker)
        return Guard(keys.broker(broker), found.mod_revision if found else ABSENT)

    def registered(self, broker: int) -> bool:
        """Return whether a broker is known, whatever has become of it."""
        return broker in self._brokers

    def serves(self, broker: int) -> bool:
        """Return whether a broker is registered and not fenced."""
        return broker in self._serving

    def stays(self, broker: int) -> bool:
        """Return whether a broker serves and is not about to end."""
        return broker in self._serving and not self._brokers[broker].value.draining

    def same_life(self, replica: Replica, durability: Durability) -> bool:
        """Return whether a broker is registered with the data that it had as this replica."""
        return replica == self._lives.get((replica.broker, durability))

    def replaced(self, replica: Replica, durability: Durability) -> bool:
        """Return whether a broker is registered with other data than it had as this replica."""
        return replica.broker in self._brokers and not self.same_life(replica, durability)

    def may_lead(self, replica: Replica, durability: Durability) -> bool:
        """Return whether a replica that has all data may be made leader."""
        return self.stays(replica.broker) and self.same_life(replica, durability)

    def leads(self, partition: PartitionValue) -> bool:
        """Return whether a partition's leader is there, as the process that was elected."""
        leader = partition.leader
        return (
            leader in self._serving
            and self._epochs[leader] == partition.leader_broker_epoch
            and leader in partition.replicas
            and self._lives[leader, partition.durability] in partition.isr
        )
