"""Holds replicas as one broker of several: brings metadata, peers and duties together.

What follows from a change of the metadata is done in one place and one order: replicas get their
roles, streams lead to those that are followed, the controller looks at what is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import structlog

from riverrun_server.core.cluster.changes import NewTopic, TopicPolicy
from riverrun_server.core.cluster.controller import Controller
from riverrun_server.core.cluster.controller_election import ControllerElection, term
from riverrun_server.core.cluster.fencing import Fencing
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.topic_config import TopicConfig, UncleanRecovery
from riverrun_server.core.cluster.values import Id, PartitionValue, TopicValue
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.replication.messages import Envelope
from riverrun_server.core.replication.terms import Terms
from riverrun_server.observe.replication import ReplicationFigures
from riverrun_server.ports.clock import Clock, Dice
from riverrun_server.ports.metadata import Documents, MetadataStore
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.ports.peers import ControlEvents, Links, PeerEvents
from riverrun_server.runtime.broker_liveness import LEASE_S, BrokerLiveness
from riverrun_server.runtime.controlling import Controlling
from riverrun_server.runtime.draining import hand_on
from riverrun_server.runtime.gateway.routing import Routing
from riverrun_server.runtime.hosting import Joined, LocalPartition
from riverrun_server.runtime.offline_partition import OfflinePartition
from riverrun_server.runtime.partition_services import PartitionServices
from riverrun_server.runtime.replication.driver import ReplicationDriver
from riverrun_server.runtime.replication.partition import ReplicatedPartition
from riverrun_server.runtime.replication.replica_log import ReplicaServices
from riverrun_server.runtime.replication.replicas import Replicas

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Connected:
    """What connects a process with the other brokers.

    Attributes:
        links: the streams of replication.
        routing: the partitions that are led elsewhere, and what is led here for others.
        show: takes note that the metadata has changed, and roles with them, of some topics or (None) of
            all and of the brokers.
        close: ends everything, and answers nobody any more.
    """

    links: Links
    routing: Routing
    show: Callable[[Iterable[Id] | None], None]
    close: Callable[[], Awaitable[None]]


# Answers other brokers from now on, and tells what they say.
Connect = Callable[[Joined, PeerEvents, ControlEvents], Awaitable[Connected]]


@dataclass(frozen=True, slots=True)
class MemberServices:
    """What a member stands on.

    Attributes:
        store: of metadata.
        documents: how values stand in it.
        liveness: says whether this process is alive to the others.
        clock: times everything.
        dice: makes nonces.
        policy: limits and defaults of topics.
        partitions: what all partitions share.
        replicas: what all replicas share.
        internal: topics that the brokers need.
    """

    store: MetadataStore
    documents: Documents
    liveness: BrokerLiveness
    clock: Clock
    dice: Dice
    policy: TopicPolicy
    partitions: PartitionServices
    replicas: ReplicaServices
    internal: Sequence[NewTopic] = ()


@dataclass(slots=True)
class _Part:
    """What a process takes up when it has registered."""

    joined: Joined
    driver: ReplicationDriver
    controlling: Controlling
    connected: Connected


class ClusterMember:
    """Implements Hosting.

    Transitions: new -> member (`begin`) -> running (`run`) -> draining (`drain`) -> closed (`close`).

    Args:
        broker_id: of this broker.
        services: what it stands on.
        terms: times and bounds of replication.
    """

    def __init__(
        self, broker_id: int, services: MemberServices, terms: Terms | None = None
    ) -> None:
        self._broker_id = broker_id
        self._services = services
        self._terms = terms or Terms(ttl_s=LEASE_S)
        self._connect: Connect | None = None
        self._making: _Making | None = None
        self._part: _Part | None = None
        self._shown_key = 0

    def connect_by(self, connect: Connect) -> None:
        """Learn, before `begin`, how the other brokers are reached."""
        self._connect = connect

    async def begin(self, joined: Joined) -> int:
        """Answer the other brokers from now on; who leads what is the controller's."""
        services, process = self._services, joined.process
        replicas = Replicas(
            self._broker_id,
            process.broker_epoch,
            services.replicas,
            self._terms,
            self._allows_loss,
        )

        def send(envelope: Envelope) -> None:
            connected.links.send(envelope)

        driver = ReplicationDriver(
            replicas,
            services.partitions.flusher,
            joined.writer,
            send,
            services.clock.monotonic,
            lambda: services.liveness.deadline_with(self._shown_key),
        )
        assert self._connect is not None, "nobody has said how to connect"
        self._making = _Making(joined.make)
        controlling = self._controlling(joined, self._making)
        connected = await self._connect(joined, driver, controlling)
        self._part = _Part(joined, driver, controlling, connected)
        return 0

    def _controlling(self, joined: Joined, making: _Making) -> Controlling:
        services, epoch = self._services, joined.process.broker_epoch
        fencing = Fencing(self._broker_id, LEASE_S)
        return Controlling(
            joined.image,
            ControllerElection(self._broker_id, epoch),
            Controller(self._broker_id, epoch, services.policy, fencing, services.internal),
            fencing,
            services.liveness,
            services.store,
            joined.writer,
            services.documents,
            services.clock,
            services.dice,
            making.make,
        )

    # Partitions.

    def holds(self, state: PartitionValue) -> bool:
        """Return whether a replica of a partition is this broker's."""
        return self._broker_id in state.replicas

    def hold(
        self,
        topic: str,
        partition: PartitionId,
        config: TopicConfig,
        state: PartitionValue,  # noqa: ARG002 - the port's signature
    ) -> LocalPartition:
        """Return the replica of a partition, to be opened.

        Raises:
            StorageError: the disk could not take it just now.
        """
        driver, services = self._joined.driver, self._services
        replica = driver.prepare(partition)
        now = services.clock.monotonic
        return ReplicatedPartition(topic, config, replica, driver, services.partitions, now)

    def shown(
        self,
        local: LocalPartition,
        config: TopicConfig,
        state: PartitionValue,  # noqa: ARG002 - the port's signature
    ) -> PartitionAccess:
        """Return a partition as services see it: led here or elsewhere."""
        assert isinstance(local, ReplicatedPartition), local
        routing = self._joined.connected.routing
        return routing.serve(local.topic, local.id, config.max_batch_bytes, local)

    def elsewhere(
        self,
        topic: str,
        partition: PartitionId,
        config: TopicConfig,
        state: PartitionValue | None,
        why: Refusal | None = None,  # noqa: ARG002 - others may lead it all the same
    ) -> PartitionAccess:
        """Return a partition that another broker leads, or may lead."""
        if state is None:
            text = (
                f"{topic}-{partition.partition} is offline: the metadata does not say who holds it"
            )
            return OfflinePartition(
                topic, partition, config.max_batch_bytes, Refusal(Reason.PARTITION_OFFLINE, text)
            )
        routing = self._joined.connected.routing
        return routing.serve(topic, partition, config.max_batch_bytes, None)

    def show(self, topic_ids: Iterable[Id] | None) -> None:
        """Bring roles, streams and duties in line with the image."""
        part = self._joined
        image, connected = part.joined.image, part.connected
        topic_ids = None if topic_ids is None else list(topic_ids)
        part.driver.update(image, topic_ids)
        # Only now: a lease must not be counted for roles from before its key was put.
        found = image.live.get(self._broker_id)
        self._shown_key = 0 if found is None else found.mod_revision
        connected.links.follow(_followed(image, part.driver.leaders()))
        connected.show(topic_ids)
        part.controlling.wake()

    # Life.

    async def run(self) -> None:
        """Replicate, and do the controller's duties where they fall to this process."""
        part, making = self._joined, self._making
        assert making is not None
        async with asyncio.TaskGroup() as group:
            group.create_task(part.driver.run(), name="replication")
            group.create_task(part.controlling.run(), name="controlling")
            group.create_task(making.run(), name="internal topics")

    def figures(self) -> ReplicationFigures | None:
        """Return how replication stands; None before the process is a member, and after."""
        if self._part is None:
            return None
        driver, counts = self._part.driver, self._part.controlling.counts
        image, process = self._part.joined.image, self._part.joined.process
        controls = term(image, process.broker_id, process.broker_epoch) is not None
        return ReplicationFigures(
            **asdict(driver.figures()),
            isr_shrinks=driver.isr_shrinks,
            isr_expands=driver.isr_expands,
            is_controller=controls,
            elections=counts.elections,
            unclean_elections=counts.unclean_elections,
            fenced=counts.fenced,
            offline=counts.offline if controls else 0,
        )

    async def drain(self, timeout_s: float) -> None:
        """Hand on what is led here, as far as others can take it, within a time."""
        if self._part is None:
            return
        joined = self._part.joined
        await hand_on(joined.image, joined.applied, joined.writer, joined.process, timeout_s)

    async def close(self) -> None:
        """End all streams, and ask for nothing any more."""
        part, self._part = self._part, None
        if part is not None:
            await part.connected.close()
            await part.driver.close()

    @property
    def _joined(self) -> _Part:
        assert self._part is not None, "not a member"
        return self._part

    def _allows_loss(self, topic: TopicValue) -> bool:
        return self._services.policy.config_of(topic).unclean_recovery is UncleanRecovery.ACCEPT


class _Making:
    """Makes the topics that brokers need, beside the duties that ask for them again and again."""

    def __init__(self, make: Callable[[NewTopic], Awaitable[None]]) -> None:
        self._make = make
        self._wanted: list[NewTopic] = []
        self._woken = asyncio.Event()

    async def make(self, topics: Sequence[NewTopic]) -> None:
        """Have them made, unless others are being made."""
        if not self._wanted:
            self._wanted = list(topics)
            self._woken.set()

    async def run(self) -> None:
        """Make what is wanted until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            for new in self._wanted:
                try:
                    await self._make(new)
                except Refusal as refusal:
                    _log.warning(
                        "a topic of the brokers is missing", topic=new.topic, why=str(refusal)
                    )
            self._wanted = []


def _followed(image: ClusterImage, leaders: Iterable[int]) -> Mapping[int, str]:
    """Return where the brokers listen that are followed here."""
    found = ((each, image.brokers.get(each)) for each in leaders)
    return {
        broker: registration.value.peer_endpoint
        for broker, registration in found
        if registration is not None and registration.value.peer_endpoint
    }
