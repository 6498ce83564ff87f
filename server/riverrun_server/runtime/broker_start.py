"""What a broker does in the metadata before it serves: join the cluster, register, be elected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.changes import TopicPolicy
from riverrun_server.core.cluster.election import (
    Election,
    TopicPartition,
    accept_loss,
    elect,
    register,
)
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import Leader
from riverrun_server.core.cluster.steps import ABSENT, Step, Write
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    ClusterValue,
    Id,
    Incarnations,
)
from riverrun_server.ports.clock import Clock, Dice
from riverrun_server.ports.metadata import Documents, MetadataStore
from riverrun_server.runtime.metadata_feed import MetadataFeed
from riverrun_server.runtime.metadata_writer import MetadataWriter, PlanOutdated

# Names in a line of the log; describing the topics shows the rest.
_SHOWN: Final = 10

_log = structlog.stdlib.get_logger(__name__)


class BrokerStart:
    """Takes one process from nothing to leading.

    Transitions: new -> joined (`join`) -> registered (`register`) -> elected (`elect`).
    """

    def __init__(
        self, feed: MetadataFeed, image: ClusterImage, writer: MetadataWriter, policy: TopicPolicy
    ) -> None:
        self._feed = feed
        self._image = image
        self._writer = writer
        self._policy = policy

    async def join(self, clock: Clock, dice: Dice) -> None:
        """Read everything; make the cluster where there is none.

        Raises:
            MetadataError: the store does not do it, or its content makes no sense.
        """
        await self._feed.load()
        cluster = ClusterValue(cluster_id=dice.token(Id.SIZE).hex(), create_time_ms=clock.wall_ms())
        while self._image.cluster is None:
            # Of several that begin together one makes it.
            await self._try([Step((Write(keys.CLUSTER, cluster, ABSENT),))])

    def lost_data(self, registration: BrokerRegistration) -> bool:
        """Return whether this process comes with less than what an earlier one had on its disk."""
        before = self._image.brokers.get(registration.broker_id)
        return (
            before is not None
            and before.value.incarnations.fsync != registration.incarnations.fsync
        )

    async def register(self, registration: BrokerRegistration) -> Leader:
        """Register this process; the revision of that is its broker epoch.

        Raises:
            MetadataError: as `join`.
        """
        revision = None
        while revision is None:
            # The controller may be fencing the process before this one.
            revision = await self._try([register(self._image, registration)])
        return Leader(registration.broker_id, revision, registration.incarnations)

    async def elect(self, leader: Leader) -> Election:
        """Have the process lead what it may.

        Raises:
            MetadataError: as `join`.
        """
        election = elect(self._image, leader, self._policy)
        if election.steps:
            await self._commit(election.steps)
        if election.unclean:
            _log.warning(
                "partitions lost data, accepted by unclean.recovery of their topics",
                count=len(election.unclean),
                first=_shown(election.unclean),
            )
        if election.offline:
            _log.error(
                "partitions stay offline until an operator decides",
                count=len(election.offline),
                first=_shown(election.offline),
            )
        return election

    async def _commit(self, steps: Iterable[Step]) -> int:
        revision = await self._writer.commit(steps)
        await self._see(revision)
        return revision

    async def _try(self, steps: Iterable[Step]) -> int | None:
        """Commit; return None where others were first, and the image shows what they wrote."""
        try:
            return await self._commit(steps)
        except PlanOutdated as outdated:
            await self._see(outdated.revision)
            return None

    async def _see(self, revision: int) -> None:
        while self._image.revision < revision:
            await self._feed.next()


def _shown(partitions: list[TopicPartition]) -> list[str]:
    return [f"{topic}-{number}" for topic, number in partitions[:_SHOWN]]


async def accept_partition_loss(
    store: MetadataStore,
    documents: Documents,
    dice: Dice,
    broker_id: int,
    incarnations: Incarnations,
    topic: str,
    partition: int,
    newest_stored_epoch: int,
) -> None:
    """Write down, while no broker runs, that what is left of a partition is all there is.

    The arguments are those of `election.accept_loss`.

    Raises:
        Refusal: TOPIC_NOT_FOUND, PARTITION_NOT_FOUND.
        MetadataError: the store did not confirm it.
    """
    image = ClusterImage()
    feed = MetadataFeed(store, documents, image, dice)
    await feed.load()
    await feed.close()
    leader = Leader(broker_id, 0, incarnations)
    step = accept_loss(image, leader, topic, partition, newest_stored_epoch)
    await MetadataWriter(store, documents, dice).commit([step])
