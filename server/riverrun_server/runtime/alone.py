"""Holds every partition of a broker that is the only one of its cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.cluster.values import Id, PartitionValue
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.runtime.hosting import Joined, LocalPartition
from riverrun_server.runtime.offline_partition import OfflinePartition, way_back

OpenPartition = Callable[[str, PartitionId, TopicConfig, int], LocalPartition]


class Alone:
    """Implements Hosting for a broker that holds everything there is.

    Args:
        open_partition: makes a partition of (topic, id, config, leader epoch).
        broker_id: of this broker.
        data_dir: as the operator knows it, for commands in error texts.
    """

    def __init__(self, open_partition: OpenPartition, broker_id: int, data_dir: str) -> None:
        self._open_partition = open_partition
        self._broker_id = broker_id
        self._data_dir = data_dir
        self._broker_epoch = 0

    async def begin(self, joined: Joined) -> int:
        """Have the process lead what it may."""
        self._broker_epoch = joined.process.broker_epoch
        return len((await joined.start.elect(joined.process)).unclean)

    def holds(self, state: PartitionValue) -> bool:
        """Return whether this process leads a partition."""
        return (state.leader, state.leader_broker_epoch) == (self._broker_id, self._broker_epoch)

    def hold(
        self, topic: str, partition: PartitionId, config: TopicConfig, state: PartitionValue
    ) -> LocalPartition:
        """Return a partition that this process leads, to be opened."""
        return self._open_partition(topic, partition, config, state.leader_epoch)

    def shown(
        self,
        local: LocalPartition,
        config: TopicConfig,  # noqa: ARG002 - the port's signature
        state: PartitionValue,  # noqa: ARG002 - as above
    ) -> PartitionAccess:
        """Return a partition as services see it."""
        return local

    def elsewhere(
        self,
        topic: str,
        partition: PartitionId,
        config: TopicConfig,
        state: PartitionValue | None,  # noqa: ARG002 - the port's signature
        why: Refusal | None = None,
    ) -> PartitionAccess:
        """Return a partition that nobody leads, for there is nobody else."""
        why = why or self._not_elected(topic, partition)
        return OfflinePartition(topic, partition, config.max_batch_bytes, why)

    def _not_elected(self, topic: str, partition: PartitionId) -> Refusal:
        name = f"{topic}-{partition.partition}"
        return Refusal(
            Reason.PARTITION_OFFLINE,
            f"{name} is offline: no replica is left that is known to have all of its data (the "
            "store was found damaged, replaced, or for a topic with fsync=relaxed not shut down "
            f"cleanly). {way_back(self._data_dir, topic, partition.partition)}, or set the topic's "
            "unclean.recovery=accept and restart the broker",
        )

    def show(self, topic_ids: Iterable[Id] | None) -> None:
        """Nothing else follows: who leads does not change while the process runs."""

    async def run(self) -> None:
        """Owe nobody anything."""

    async def close(self) -> None:
        """Nothing was begun."""
