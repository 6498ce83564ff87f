"""Makes the larger parts of a broker out of the smaller ones; when each begins and ends is app's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version

import grpc

from riverrun_server.config.settings import Settings
from riverrun_server.core.admission import ByteBudget, DiskGate
from riverrun_server.core.cluster.changes import TopicPolicy
from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.cluster.values import BrokerRegistration, Id, Incarnations
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.guarded_clock import TimeGap
from riverrun_server.core.limits import Limits
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.hot_tail import TailBudget
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.observe.metrics import Metrics
from riverrun_server.ports.metadata import MetadataStore
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.rpc import admin, consumer, groups, metadata, producer, text
from riverrun_server.rpc.admission import Admission, Caps
from riverrun_server.rpc.appends import AppendRules
from riverrun_server.rpc.call_log import CallLog, CallLogRules
from riverrun_server.rpc.caller import origin
from riverrun_server.rpc.errors import to_proto
from riverrun_server.rpc.server import (
    ListenerServer,
    ServerOptions,
    Service,
    ServingStatus,
    connection_shares,
)
from riverrun_server.rpc.streams import Streams
from riverrun_server.runtime.alone import Alone
from riverrun_server.runtime.assignable_topics import CatalogTopics
from riverrun_server.runtime.broker_clock import BrokerClock
from riverrun_server.runtime.catalog import Catalog, CatalogServices
from riverrun_server.runtime.clock import SystemClock, SystemDice
from riverrun_server.runtime.flusher import Flusher
from riverrun_server.runtime.found_coordinators import FoundCoordinators
from riverrun_server.runtime.found_groups import FoundGroups
from riverrun_server.runtime.hosting import Hosting
from riverrun_server.runtime.in_flight import InFlightBytes
from riverrun_server.runtime.members import Members
from riverrun_server.runtime.offline_partition import OfflinePartition
from riverrun_server.runtime.offsets import (
    GroupOffsets,
    GroupOffsetsSettings,
)
from riverrun_server.runtime.offsets_log import OffsetsLogSettings
from riverrun_server.runtime.partition import LocalPartition
from riverrun_server.runtime.partition_services import PartitionServices
from riverrun_server.runtime.reader import ReadingServices
from riverrun_server.runtime.replication.partition import ReplicatedPartition
from riverrun_server.runtime.retention import Look, Retained, Retention, last_persisted_ms
from riverrun_server.runtime.threads import PoolThreads
from riverrun_server.storage.options import connections
from riverrun_server.storage.rocks_store import RocksStore

# Short reads of the disk; more threads only wait for the same lock of the interpreter.
_READ_THREADS = 4
# Each holds one expanded batch, taken apart; expanding runs beside the loop, parsing does not.
_VALIDATION_THREADS = 2
# How long a member may ask for at the most, to finish with a partition.
_REVOCATION_MAX_MS = 86_400_000


@dataclass
class Shared:
    """What needs no disk and no port, and what nearly every part is given."""

    settings: Settings
    clock: SystemClock = field(default_factory=SystemClock)
    dice: SystemDice = field(default_factory=SystemDice)
    metrics: Metrics = field(default_factory=Metrics)
    draining: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Make the budgets and bounds that the settings speak of."""
        storage, limits = self.settings.storage, self.settings.limits
        self.limits: Limits = self.settings.core_limits()
        self.now_ms = BrokerClock(self.clock)
        self.threads = PoolThreads(_READ_THREADS, "reads")
        self.validation = PoolThreads(_VALIDATION_THREADS, "validation")
        self.tails = TailBudget(storage.hot_tail_bytes)
        high = max(storage.disk_low_water_bytes, storage.disk_high_water_bytes)
        self.gate = DiskGate(storage.disk_low_water_bytes, high)
        self.in_flight = InFlightBytes(
            ByteBudget(limits.max_in_flight_bytes, limits.max_in_flight_bytes_per_connection),
            self.metrics.limit_reached.labels("max_in_flight_bytes").inc,
        )
        log = self.settings.log
        slow_s = None if log.slow_call_ms == -1 else log.slow_call_ms / 1000
        rules = CallLogRules(log.calls, log.hot_calls_per_s, slow_s)
        self.admission = Admission(
            Caps(
                limits.max_streams_per_connection,
                limits.max_streams_per_principal,
                limits.max_calls,
                max(1, limits.max_in_flight_bytes // self.limits.max_request_bytes),
                limits.max_delivery_bytes,
            ),
            self.metrics,
            CallLog(rules, self.metrics, self.clock.monotonic),
        )
        self.metrics.info.info(
            {"version": version("riverrun"), "broker_id": str(self.settings.broker_id)}
        )
        metrics = self.metrics
        metrics.in_flight_bytes.set_function(lambda: self.in_flight.budget.used_bytes)
        metrics.hot_tail_bytes.set_function(lambda: self.tails.used_bytes)
        metrics.disk_full.set_function(lambda: not self.gate.is_open)
        metrics.stream_connections.set_function(lambda: self.admission.connections_with_streams)
        metrics.clock_behind_wall_seconds.set_function(lambda: self.now_ms.behind_wall_ms / 1000)

    def retention_looked(self, look: Look) -> None:
        """Count what retention did."""
        metrics = self.metrics
        metrics.retention_trims.inc(look.trimmed)
        metrics.retention_failures.inc(look.failed)
        metrics.retention_paused_partitions.set(look.paused)
        metrics.retention_looked_timestamp.set(look.ended_ms / 1000)


def make_alone(shared: Shared, store: RocksStore, flusher: Flusher) -> Hosting:
    """Return how a broker without others holds its partitions, which are opened in `store`."""
    settings, services = shared.settings, partition_services(shared, store, flusher)

    def open_partition(
        topic: str, partition: PartitionId, config: TopicConfig, leader_epoch: int
    ) -> LocalPartition:
        return LocalPartition(topic, partition, config, leader_epoch, services)

    return Alone(open_partition, settings.broker_id, str(settings.data_dir))


def make_catalog(
    shared: Shared,
    store: RocksStore,
    store_of_metadata: MetadataStore,
    flusher: Flusher,
    hosting: Hosting,
) -> Catalog:
    """Return the catalog of topics."""
    settings = shared.settings
    return Catalog(
        CatalogServices(
            store_of_metadata,
            JsonDocuments(),
            store,
            hosting,
            flusher.durable,
            shared.clock,
            shared.dice,
            topic_policy(shared),
            settings.broker_id,
            str(settings.data_dir),
        )
    )


def topic_policy(shared: Shared) -> TopicPolicy:
    settings = shared.settings
    return TopicPolicy(
        shared.limits,
        default_partitions=settings.topic_defaults.partitions,
        default_replication_factor=settings.replication_factor,
        default_configs=settings.topic_configs(),
    )


def partition_services(shared: Shared, store: RocksStore, flusher: Flusher) -> PartitionServices:
    settings = shared.settings
    return PartitionServices(
        store,
        flusher,
        shared.now_ms,
        shared.tails,
        shared.threads,
        shared.gate.refusal,
        producer_retention_ms=settings.producers.expiry_ms,
        data_dir=str(settings.data_dir),
    )


def make_registration(
    shared: Shared,
    store: RocksStore,
    servers: Sequence[ListenerServer],
    peer_endpoint: str,
) -> BrokerRegistration:
    """Return what this process says of itself to the cluster.

    Args:
        shared: what nearly every part is given.
        store: whose incarnations count.
        servers: where clients connect.
        peer_endpoint: where other brokers do; empty where they cannot.
    """
    settings, identity = shared.settings, store.identity
    return BrokerRegistration(
        broker_id=settings.broker_id,
        incarnations=Incarnations(Id(identity.fsync), Id(identity.relaxed)),
        endpoints={each.listener.name: str(each.listener.advertised) for each in servers},
        peer_endpoint=peer_endpoint,
        rack=settings.rack,
        host=settings.host,
        start_time_ms=shared.clock.wall_ms(),
    )


def make_offsets(shared: Shared, catalog: Catalog) -> GroupOffsets:
    """Return the committed offsets of groups."""
    settings = GroupOffsetsSettings(
        partitions=shared.settings.offsets.partitions,
        log=OffsetsLogSettings(groups=_groups_limits(shared)),
    )
    assignable = CatalogTopics(catalog)
    return GroupOffsets(
        catalog, catalog, assignable, shared.now_ms, shared.threads, shared.dice, settings
    )


def _groups_limits(shared: Shared) -> GroupsLimits:
    limits, settings = shared.limits, shared.settings
    return GroupsLimits(
        group_members_max=settings.groups.max_members,
        session_timeout_min_ms=limits.min_session_timeout_ms,
        session_timeout_max_ms=limits.max_session_timeout_ms,
        session_timeout_ms=limits.default_session_timeout_ms,
        revocation_timeout_max_ms=max(_REVOCATION_MAX_MS, limits.max_session_timeout_ms),
        revocation_timeout_ms=limits.default_revocation_timeout_ms,
        retention_ms=settings.offsets.retention_ms,
    )


def make_retention(shared: Shared, catalog: Catalog, store: RocksStore) -> Retention:
    """Return what deletes old records."""
    table, wall_ms = store.table(b"clock"), shared.clock.wall_ms()
    confirmed_ms = wall_ms if shared.settings.confirm_clock else None
    return Retention(
        partial(retained_partitions, catalog),
        shared.now_ms,
        TimeGap(last_persisted_ms(table), wall_ms, confirmed_ms),
        table,
        shared.settings.retention.check_interval_s,
        shared.retention_looked,
    )


def make_members(shared: Shared, offsets: GroupOffsets) -> Members:
    """Return what serves members of groups, wherever those are coordinated."""
    members = Members(FoundCoordinators(offsets, origin), shared.dice)
    metrics = shared.metrics
    # A process learns of the others, and makes its coordinator anew, before it serves.
    metrics.coordinated_groups.set_function(lambda: offsets.coordinator.groups)
    metrics.coordinated_members.set_function(lambda: offsets.coordinator.members)
    metrics.member_streams.set_function(lambda: members.count)
    return members


def make_services(
    shared: Shared, catalog: Catalog, offsets: GroupOffsets, members: Members
) -> list[Service]:
    """Return every public service."""
    limits = shared.limits
    produce = producer.ProducerService(
        AppendRules(catalog, limits, shared.now_ms, shared.validation),
        shared.in_flight,
        catalog.producer_ids.next,
        shared.draining,
        shared.dice,
    )
    reading = ReadingServices(
        catalog,
        offsets,
        shared.threads,
        ReadingLimits(
            partitions_per_call=limits.max_partitions_per_call,
            fetch_wait_s_max=limits.max_fetch_wait_ms / 1000,
            fetches_waiting=max(1, shared.settings.limits.max_calls // 2),
        ),
        to_proto,
        shared.dice,
    )
    streams = Streams(reading, members, shared.draining)
    description = metadata.ServerDescription(version("riverrun"))
    told = metadata.MetadataService(
        catalog, description, shared.clock, shared.draining, gate=shared.gate
    )
    return [
        _service(producer.SERVICE, produce.handler()),
        _service(consumer.SERVICE, consumer.ConsumerService(streams).handler()),
        _service(text.SERVICE, text.TextService(streams, produce.append).handler()),
        _service(admin.SERVICE, admin.AdminService(catalog).handler()),
        _service(
            groups.SERVICE,
            groups.GroupService(
                FoundGroups(offsets, origin, shared.settings.broker_id),
                catalog,
                limits,
                reading.limits,
                shared.now_ms,
            ).handler(),
        ),
        _service(metadata.SERVICE, told.handler()),
    ]


def bind(shared: Shared, services: Sequence[Service]) -> tuple[list[ListenerServer], ServingStatus]:
    """Return a server for each listener, its port bound, and what tells whether they serve.

    Raises:
        CannotStart: a port cannot be bound.
    """
    settings = shared.settings
    status = ServingStatus(services)
    listeners = settings.listeners
    allowed = min(settings.limits.max_connections, connections(settings.storage.slots))
    shares = connection_shares(max(allowed, len(listeners)), len(listeners))
    options = ServerOptions(
        shared.limits.max_request_bytes,
        shared.limits.max_frame_bytes,
        allowed,
        settings.limits.max_streams_per_connection,
        settings.grpc.keepalive_time_s,
        settings.grpc.keepalive_timeout_s,
        settings.grpc.min_client_ping_interval_s,
    )
    servers = [
        ListenerServer(
            listener,
            services,
            options=replace(options, max_connections=share),
            admission=shared.admission,
            status=status,
            reflects=settings.reflects(listener),
        )
        for listener, share in zip(listeners, shares, strict=True)
    ]
    return servers, status


def partitions_here(catalog: Catalog) -> Iterator[PartitionAccess]:
    """Yield every partition of this broker, those that it cannot open included."""
    yield from catalog.held()
    for name in list(catalog.topics.names):
        topic = catalog.topics.get(name)
        if topic is not None:
            yield from (each for each in topic.partitions if isinstance(each, OfflinePartition))


def retained_partitions(catalog: Catalog) -> Iterator[Retained]:
    """Yield the partitions that are stored here and could be opened."""
    held = (LocalPartition, ReplicatedPartition)
    return (each for each in catalog.held() if isinstance(each, held))


def _service(name: str, handler: grpc.GenericRpcHandler) -> Service:
    return Service(name, lambda server: server.add_generic_rpc_handlers((handler,)))
