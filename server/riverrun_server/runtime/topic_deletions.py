"""Deletes what is stored of topics that have a tombstone, and then the tombstone.

It works off the tombstones in the metadata, not a list of its own, so it goes on after a crash where
it was. The order is what keeps it safe: data first, then proof that it is gone from the disk, then
the last trace in the metadata.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import structlog

from riverrun_server.core.cluster import deletions
from riverrun_server.core.cluster.image import ClusterImage, Versioned
from riverrun_server.core.cluster.steps import Step
from riverrun_server.core.cluster.values import Id, Tombstone, TombstoneState
from riverrun_server.ports.log import StorageFull, StorageStalled
from riverrun_server.ports.metadata import MetadataUnavailable, UnknownOutcome
from riverrun_server.runtime.local_partitions import LocalPartitions
from riverrun_server.runtime.metadata_feed import Applied
from riverrun_server.runtime.metadata_writer import MetadataWriter, PlanOutdated

_RETRY_S: Final = 1.0

_log = structlog.stdlib.get_logger(__name__)


class TopicDeletions:
    """One task that works off tombstones.

    Args:
        image: where the tombstones are.
        applied: moves on with the image.
        partitions: of this broker.
        writer: of metadata.
        broker_id: of this broker.
        durable: returns once everything written before is on the disk.
        pause: waits, in seconds, before the store is asked again.
    """

    def __init__(
        self,
        image: ClusterImage,
        applied: Applied,
        partitions: LocalPartitions,
        writer: MetadataWriter,
        broker_id: int,
        durable: Callable[[], Awaitable[None]],
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self._image = image
        self._applied = applied
        self._partitions = partitions
        self._writer = writer
        self._broker_id = broker_id
        self._durable = durable
        self._held: set[Id] = set()
        self._pause = pause
        self._work = asyncio.Event()
        self._work.set()

    def wake(self) -> None:
        """Look at the tombstones again."""
        self._work.set()

    @contextlib.contextmanager
    def holding(self, topic_id: Id) -> Iterator[None]:
        """Leave a topic id alone: it has a tombstone because this process is making its topic.

        A tombstone that is still there afterwards is one whose topic was given up.
        """
        self._held.add(topic_id)
        try:
            yield
        finally:
            self._held.discard(topic_id)
            self.wake()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            for topic_id in list(self._image.tombstones):
                try:
                    await self._finish(topic_id)
                except (
                    StorageStalled,
                    StorageFull,
                    MetadataUnavailable,
                    UnknownOutcome,
                    PlanOutdated,
                ) as error:
                    _log.warning("topic is not deleted yet", topic_id=topic_id, error=str(error))
                    await self._pause(_RETRY_S)
                    self._work.set()

    async def _finish(self, topic_id: Id) -> None:
        tombstone = self._mine(topic_id)
        if tombstone is None:
            return
        if tombstone.value.state is TombstoneState.CREATING:
            await self._commit(deletions.give_up_creation(tombstone))
            tombstone = self._mine(topic_id)
            if tombstone is None:
                return
        await self._partitions.drop(topic_id)
        await self._durable()
        await self._commit(deletions.confirm_deletion(self._image, tombstone, self._broker_id))
        _log.info("topic deleted", topic=tombstone.value.topic, topic_id=str(topic_id))

    def _mine(self, topic_id: Id) -> Versioned[Tombstone] | None:
        """Return a tombstone that this broker has something to do with."""
        found = self._image.tombstones.get(topic_id)
        if found is None or topic_id in self._held:
            return None
        if found.mod_revision > self._applied.revision:
            return None  # it is still served; the wake-up comes when it is not
        if found.value.state is TombstoneState.CREATING:
            mine = deletions.is_abandoned(self._image, found.value, self._broker_id)
            return found if mine else None
        pending = found.value.pending
        return found if not pending or self._broker_id in pending else None

    async def _commit(self, steps: tuple[Step, ...]) -> None:
        await self._applied.reached(await self._writer.commit(steps))
