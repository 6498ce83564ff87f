"""The topics of this broker: what the metadata says, opened, and served by name.

A topic is served from the moment that all its partitions are open, and no longer than its key
stands in the metadata. What the outside sees, the revision included, never runs ahead of that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from riverrun_server.core.cluster.changes import NewTopic, TopicPolicy
from riverrun_server.core.cluster.image import ClusterImage, Touched
from riverrun_server.core.cluster.standing import broker_epoch
from riverrun_server.core.cluster.topic_config import canonical
from riverrun_server.core.cluster.values import BrokerRegistration, Id, PartitionValue
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.clock import Clock, Dice
from riverrun_server.ports.log import LogStore
from riverrun_server.ports.metadata import Documents, MetadataStore
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.runtime.broker_start import BrokerStart
from riverrun_server.runtime.hosting import Hosting, Joined, LocalPartition
from riverrun_server.runtime.local_partitions import LocalPartitions
from riverrun_server.runtime.metadata_feed import Applied, MetadataFeed
from riverrun_server.runtime.metadata_watch import MetadataWatcher, MetadataWatchers
from riverrun_server.runtime.metadata_writer import MetadataWriter
from riverrun_server.runtime.producer_ids import ProducerIds
from riverrun_server.runtime.served_topics import NO_LEADER, ServedTopic, ServedTopics
from riverrun_server.runtime.topic_changes import TopicChanges
from riverrun_server.runtime.topic_deletions import TopicDeletions

_RETRY_S: Final = 1.0
_SHOWN_ORPHANS: Final = 10

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CatalogServices:
    """What a catalog stands on.

    Attributes:
        store: of metadata.
        documents: how values stand in it.
        logs: where partitions are stored.
        hosting: which partitions are held here, and how.
        durable: returns once everything written to `logs` before is on the disk.
        clock: stamps what is made.
        dice: makes ids and nonces.
        policy: limits and defaults of topics.
        broker_id: of this broker.
        data_dir: as the operator knows it, for commands in error texts.
        pause: waits, in seconds, before the disk is asked again for what it refused.
    """

    store: MetadataStore
    documents: Documents
    logs: LogStore
    hosting: Hosting
    durable: Callable[[], Awaitable[None]]
    clock: Clock
    dice: Dice
    policy: TopicPolicy
    broker_id: int
    data_dir: str
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


class Catalog:
    """Implements ports.partitions.Directory.

    Transitions: new -> started (`start`: registered, everything that is held open) -> running (`run`)
    -> stopped (`run` was cancelled or failed) -> closed (`close`).

    Attributes:
        topics: what can be used now.
        changes: makes and changes topics.
        producer_ids: hands out ids that nobody had.
        policy: limits and defaults of topics.
        broker_id: of this broker.
        unclean_recoveries: partitions that this start served although data was lost.
        orphans: stored partitions that the metadata knows nothing of; never deleted by themselves.
    """

    def __init__(self, services: CatalogServices) -> None:
        self._services = services
        self._image = ClusterImage()
        self._feed = MetadataFeed(
            services.store, services.documents, self._image, services.dice, services.pause
        )
        self._writer = MetadataWriter(services.store, services.documents, services.dice)
        self._applied = Applied()
        self._hosting = services.hosting
        self._local = LocalPartitions(services.hosting, services.logs, services.data_dir)
        self._watchers = MetadataWatchers(services.policy.limits.max_metadata_watchers)
        self._deletions = TopicDeletions(
            self._image,
            self._applied,
            self._local,
            self._writer,
            services.broker_id,
            services.durable,
            services.pause,
        )
        # One pass at a time brings what is open in line with the image.
        self._aligning = asyncio.Lock()
        self._postponed = asyncio.Event()
        self.topics = ServedTopics()
        self.policy = services.policy
        self.changes = TopicChanges(
            self._image,
            self._applied,
            self._writer,
            services.policy,
            services.clock,
            services.dice,
            self._deletions,
        )
        self.producer_ids = ProducerIds(
            services.store, services.documents, services.dice, services.broker_id
        )
        self.broker_id = services.broker_id
        self.unclean_recoveries = 0
        self.orphans: list[PartitionId] = []

    # --- life ------------------------------------------------------------------------------------

    async def start(self, registration: BrokerRegistration) -> None:
        """Register this process, take up its part in the cluster, and open everything that it holds.

        Raises:
            MetadataError, Refusal: the store does not answer, or its content makes no sense.
            StorageFailed: the disk does not.
        """
        assert registration.broker_id == self.broker_id, registration
        services = self._services
        start = BrokerStart(self._feed, self._image, self._writer, services.policy)
        await start.join(services.clock, services.dice)
        if start.lost_data(registration):
            await self.producer_ids.skip()
        process = await start.register(registration)
        self.changes.leader = process
        joined = Joined(
            process, self._image, self._applied, self._writer, start, self.changes.ensure_internal
        )
        self.unclean_recoveries = await self._hosting.begin(joined)
        self._find_orphans()
        topic_ids = {topic.value.topic_id for topic in self._image.topics.values()}
        everything = Touched(topic_ids, brokers=True)
        await self._align(everything)
        self._publish(everything)
        self.topics.ready = True

    async def run(self) -> None:
        """Follow the metadata and carry out changes until cancelled.

        Raises:
            ExceptionGroup: of StorageFailed, MetadataError or a bug; end the process.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(), name="catalog-follow")
                group.create_task(self._reopen(), name="catalog-reopen")
                group.create_task(self._hosting.run(), name="hosting")
                group.create_task(self.changes.run(), name="topic-changes")
                group.create_task(self._deletions.run(), name="topic-deletions")
        finally:
            self._applied.stop()
            self.changes.stop()
            self._watchers.close()

    async def close(self) -> None:
        """Close every partition, after `run` has ended.

        Raises:
            StorageError: one could not be closed well; the others are.
        """
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(self._local.close)
            closing.push_async_callback(self._hosting.close)
            await self._feed.close()

    # --- what it shows ---------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """The revision of the metadata up to which everything has taken effect here."""
        return self._applied.revision

    @property
    def follows_metadata(self) -> bool:
        """Whether changes of the metadata are seen as they come."""
        return self._feed.following

    @property
    def cluster_id(self) -> str:
        """The cluster's id; empty before `start`."""
        return self._image.cluster.value.cluster_id if self._image.cluster else ""

    def brokers(self) -> list[BrokerRegistration]:
        """Return every broker, by id."""
        return [self._image.brokers[each].value for each in sorted(self._image.brokers)]

    def held(self) -> Iterator[LocalPartition]:
        """Yield the partitions that are open on this broker, whether it leads them or not."""
        return self._local.held()

    def watch(self, names: Iterable[str]) -> MetadataWatcher:
        """Watch topics by name; none is all that do not belong to the brokers.

        Raises:
            Refusal: OVERLOADED.
        """
        return self._watchers.watch(names)

    async def ensure_internal_topic(
        self, name: str, partitions: int, configs: Mapping[str, str]
    ) -> None:
        """Make a topic of the brokers where there is none; return once it can be used.

        Raises:
            Refusal: as TopicChanges.create.
        """
        if self.topics.get(name) is None:
            await self.changes.ensure_internal(NewTopic(name, partitions, 0, canonical(configs)))

    # --- ports.partitions.Directory --------------------------------------------------------------

    def partition(self, topic: str, topic_id: bytes, partition: int) -> PartitionAccess:
        """Return one partition; `topic` or `topic_id` may be empty, not both."""
        return self.topics.partition(topic, topic_id, partition)

    def partitions(self, topic: str, topic_id: bytes = b"") -> list[PartitionAccess]:
        """Return all partitions of a topic in order."""
        return self.topics.partitions(topic, topic_id)

    def is_internal(self, topic: str) -> bool:
        """Return whether a topic belongs to the brokers."""
        return self.topics.is_internal(topic)

    # --- following the metadata ------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            touched = await self._feed.next()
            await self._align(touched)
            self._publish(touched)

    async def _reopen(self) -> None:
        """Try again to open what the disk refused."""
        while True:
            await self._postponed.wait()
            self._postponed.clear()
            await self._services.pause(_RETRY_S)
            await self._align(Touched(set(self._local.postponed)))

    async def _align(self, touched: Touched) -> None:
        """Bring what is served in line with the image."""
        async with self._aligning:
            for topic_id in touched.topic_ids:
                await self._align_topic(topic_id)
            if self._local.postponed:
                self._postponed.set()
            self._hosting.show(None if touched.brokers else touched.topic_ids)

    def _publish(self, touched: Touched) -> None:
        """Tell everyone that all of the image has taken effect."""
        self._applied.publish(self._image.revision)
        self._deletions.wake()
        self._watchers.note(touched.topics, brokers=touched.brokers)

    async def _align_topic(self, topic_id: Id) -> None:
        found = self._image.topic_by_id(topic_id)
        if found is None:
            # Before anything is deleted nobody can find it any more.
            self.topics.remove(topic_id)
            self._local.retire(topic_id)
            return
        topic, config = found.value, self.policy.config_of(found.value)
        states = {
            number: partition.value
            for number, partition in self._image.partitions.get(topic_id, {}).items()
        }
        partitions = await self._local.serve(topic, config, states)
        in_order = tuple(states.get(number) for number in range(topic.partitions))
        leaders = tuple(map(self._leader_of, in_order))
        self.topics.put(ServedTopic(topic, config, in_order, leaders, partitions))

    def _leader_of(self, state: PartitionValue | None) -> int:
        registration = None if state is None else self._image.brokers.get(state.leader)
        if state is None or registration is None:
            return NO_LEADER
        leads = broker_epoch(registration) == state.leader_broker_epoch
        return state.leader if leads else NO_LEADER

    def _find_orphans(self) -> None:
        known = {*self._image.tombstones, *(t.value.topic_id for t in self._image.topics.values())}
        stored = self._services.logs.partitions()
        self.orphans = [each for each in stored if each.topic_id not in known]
        if self.orphans:
            _log.warning(
                "stored partitions without a topic are kept but not served",
                count=len(self.orphans),
                first=[str(each) for each in self.orphans[:_SHOWN_ORPHANS]],
            )
