"""Who leads which partition, out of the metadata as applied, for a broker of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import broker_epoch
from riverrun_server.core.cluster.values import Id
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.leadership import Leadership
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.runtime.coordination_peers import NOBODY


class LedPartitions:
    """Implements ports.leadership.Leaderships.

    Args:
        image: the metadata as applied.
        me: this broker.
        my_epoch: the epoch of this process.
        held: returns the replica of a partition that is open here, as services see it, or None.
    """

    def __init__(
        self,
        image: ClusterImage,
        me: int,
        my_epoch: int,
        held: Callable[[PartitionId], PartitionAccess | None],
    ) -> None:
        self._image = image
        self._me = me
        self._my_epoch = my_epoch
        self._held = held
        self._watchers: dict[PartitionId, list[Callable[[], None]]] = {}

    def of(self, partition: PartitionId) -> Leadership:
        """Return who leads a partition."""
        found = self._image.partitions.get(Id(partition.topic_id), {}).get(partition.partition)
        if found is None:
            return NOBODY
        value = found.value
        registration = self._image.brokers.get(value.leader)
        if registration is None or broker_epoch(registration) != value.leader_broker_epoch:
            # The process that was elected is gone, and nobody has been elected in its place.
            return Leadership(None, value.leader_epoch)
        is_mine = (value.leader, value.leader_broker_epoch) == (self._me, self._my_epoch)
        here = self._held(partition) if is_mine else None
        return Leadership(value.leader, value.leader_epoch, here)

    def watch(self, partition: PartitionId, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` whenever `of` may return something else; return what ends that."""
        self._watchers.setdefault(partition, []).append(changed)

        def unwatch() -> None:
            self._watchers[partition].remove(changed)
            if not self._watchers[partition]:
                del self._watchers[partition]

        return unwatch

    def show(self, topic_ids: Iterable[Id] | None = None) -> None:
        """Take note that the image has changed, or what is open here; None is all topics.

        To be called behind whatever brings the replicas in line with it.
        """
        topics = None if topic_ids is None else set(topic_ids)
        for partition, watchers in [*self._watchers.items()]:
            if topics is None or partition.topic_id in topics:
                for changed in [*watchers]:
                    changed()
