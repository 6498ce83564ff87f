"""Makes what a broker has only as one of several: its lease, its port for the others, its membership."""

from __future__ import annotations

from collections.abc import Iterable

from riverrun_server.assembly import Shared, partition_services, topic_policy
from riverrun_server.config.settings import Settings
from riverrun_server.core.cluster.changes import NewTopic
from riverrun_server.core.cluster.topic_config import canonical
from riverrun_server.core.cluster.values import Id, LiveProcess
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.peer.control import ControlLinks, ControlService
from riverrun_server.peer.coordination import CoordinationService
from riverrun_server.peer.coordinators import CoordinatorLinks
from riverrun_server.peer.gateway_links import GatewayLinks
from riverrun_server.peer.gateway_service import GatewayService
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.links import PeerLinks
from riverrun_server.peer.server import PeerServer
from riverrun_server.ports.metadata import MetadataStore
from riverrun_server.ports.peers import ControlEvents, PeerEvents
from riverrun_server.rpc.caller import origin
from riverrun_server.rpc.listener import Listener
from riverrun_server.rpc.server import check_free
from riverrun_server.runtime.broker_liveness import BrokerLiveness
from riverrun_server.runtime.cluster_member import (
    ClusterMember,
    Connect,
    Connected,
    MemberServices,
)
from riverrun_server.runtime.coordination_peers import Peers
from riverrun_server.runtime.flusher import Flusher
from riverrun_server.runtime.gateway.routing import Routing
from riverrun_server.runtime.hosting import Joined
from riverrun_server.runtime.led_partitions import LedPartitions
from riverrun_server.runtime.offsets import OFFSETS_TOPIC, OFFSETS_TOPIC_CONFIGS, GroupOffsets
from riverrun_server.runtime.replication.replica_log import ReplicaServices
from riverrun_server.runtime.supervisor import CannotStart
from riverrun_server.runtime.topics_caught_up import TopicsCaughtUp
from riverrun_server.runtime.witness import Witness
from riverrun_server.storage.rocks_store import RocksStore
from riverrun_server.wire.stored import scan_batch


def make_member(
    shared: Shared,
    store: RocksStore,
    store_of_metadata: MetadataStore,
    flusher: Flusher,
    liveness: BrokerLiveness,
) -> ClusterMember:
    """Return how one broker of several holds replicas, and what it owes the others."""
    settings = shared.settings
    replicas = ReplicaServices(
        store,
        shared.tails,
        scan_batch,
        shared.now_ms,
        flusher.fail,
        producer_retention_ms=settings.producers.expiry_ms,
    )

    services = MemberServices(
        store_of_metadata,
        JsonDocuments(),
        liveness,
        shared.clock,
        shared.dice,
        topic_policy(shared),
        partition_services(shared, store, flusher),
        replicas,
        (
            NewTopic(
                OFFSETS_TOPIC, settings.offsets.partitions, 0, canonical(OFFSETS_TOPIC_CONFIGS)
            ),
        ),
    )
    return ClusterMember(settings.broker_id, services)


def make_connect(
    shared: Shared, store_of_metadata: MetadataStore, peers: PeerServer, offsets: GroupOffsets
) -> Connect:
    """Return what opens every stream to and from other brokers, each kind with its own connection."""
    broker_id = shared.settings.broker_id

    async def connect(joined: Joined, events: PeerEvents, control: ControlEvents) -> Connected:
        image, epoch = joined.image, joined.process.broker_epoch
        assert image.cluster is not None, "a broker registers in a cluster"
        myself = Myself(image.cluster.value.cluster_id, broker_id, epoch, shared.now_ms)
        reports = ControlLinks(myself)
        witness = Witness(broker_id, image, control, reports)
        links = PeerLinks(myself, events, shared.dice, witness)
        leaders = GatewayLinks(myself, shared.dice)
        routing = Routing(broker_id, leaders, origin)
        gateways = GatewayService(myself, routing)
        coordinators = CoordinatorLinks(myself)
        led = LedPartitions(image, broker_id, epoch, routing.held)
        caught_up = TopicsCaughtUp(store_of_metadata, joined.applied)
        offsets.join(
            Peers(
                leaderships=led,
                coordinators=coordinators,
                caught_up=caught_up,
                broker_id=broker_id,
                origin=origin,
            )
        )
        coordination = CoordinationService(myself, offsets.coordinator)
        services = (links.service, gateways, coordination, ControlService(myself, control))
        await peers.start([each.handler() for each in services])

        def show(topic_ids: Iterable[Id] | None) -> None:
            routing.show(image, topic_ids)
            led.show(topic_ids)
            if topic_ids is None:
                reached = {each: found.value.peer_endpoint for each, found in image.brokers.items()}
                coordinators.reach(reached)
                reports.reach(reached)

        async def close() -> None:
            routing.close()
            gateways.close()
            coordination.close()
            await leaders.close()
            await coordinators.close()
            await reports.close()
            await links.close()
            await peers.stop()

        return Connected(links, routing, show, close)

    return connect


def peer_endpoint(settings: Settings, peers: PeerServer) -> str:
    """Return where other brokers connect."""
    advertised = settings.peer_advertised
    return str(advertised if advertised.port else advertised._replace(port=peers.port))


def bind_peers(settings: Settings) -> PeerServer:
    """Return what other brokers connect to, its port bound.

    Raises:
        CannotStart: the port cannot be bound.
    """
    address = settings.peer_address
    check_free(Listener(name="peers", bind=address, advertised=address))
    try:
        return PeerServer(str(address))
    except RuntimeError as error:
        raise CannotStart(f"peer.listen {address}: {error}") from error


def make_liveness(shared: Shared, store: RocksStore, metadata: MetadataStore) -> BrokerLiveness:
    """Return what keeps other processes from being this broker."""
    settings = shared.settings
    process = LiveProcess(
        incarnation=Id(store.identity.fsync),
        host=settings.host,
        start_time_ms=shared.clock.wall_ms(),
    )
    return BrokerLiveness(
        metadata, JsonDocuments(), shared.clock, shared.dice, settings.broker_id, process
    )
