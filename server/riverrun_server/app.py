"""The composition root: makes one broker out of its parts, in order, and runs it to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version

import grpc
import structlog
import uvloop

from riverrun_server.config.settings import Settings
from riverrun_server.core.admission import ByteBudget, DiskGate
from riverrun_server.core.cluster.changes import TopicPolicy
from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.cluster.values import BrokerRegistration, Id, Incarnations
from riverrun_server.core.guarded_clock import TimeGap
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.hot_tail import TailBudget
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.http import ProbeServer
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.observe.metrics import Metrics
from riverrun_server.rpc import admin as admin_rpc
from riverrun_server.rpc import consumer as consumer_rpc
from riverrun_server.rpc import metadata as metadata_rpc
from riverrun_server.rpc import producer as producer_rpc
from riverrun_server.rpc import text as text_rpc
from riverrun_server.rpc.admin import AdminService
from riverrun_server.rpc.admission import Admission, Caps
from riverrun_server.rpc.appends import AppendRules
from riverrun_server.rpc.consumer import ConsumerService
from riverrun_server.rpc.errors import to_proto
from riverrun_server.rpc.metadata import MetadataService, ServerDescription
from riverrun_server.rpc.producer import ProducerService
from riverrun_server.rpc.server import (
    ListenerServer,
    ServerOptions,
    Service,
    ServingStatus,
    stop_all,
)
from riverrun_server.rpc.streams import Streams
from riverrun_server.rpc.text import TextService
from riverrun_server.runtime.broker_clock import BrokerClock
from riverrun_server.runtime.catalog import Catalog, CatalogServices
from riverrun_server.runtime.clock import SystemClock, SystemDice
from riverrun_server.runtime.disk import watch_disk
from riverrun_server.runtime.flusher import Flusher
from riverrun_server.runtime.health import Health, Life, keep_asking
from riverrun_server.runtime.in_flight import InFlightBytes
from riverrun_server.runtime.loop_lag import LoopLag
from riverrun_server.runtime.offsets import GroupOffsets, GroupOffsetsSettings
from riverrun_server.runtime.partition import LocalPartition, PartitionServices
from riverrun_server.runtime.producer_ids import ProducerIds
from riverrun_server.runtime.reader import ReadingServices
from riverrun_server.runtime.retention import Retention, last_persisted_ms
from riverrun_server.runtime.supervisor import CannotStart, Stage, Supervisor
from riverrun_server.runtime.threads import PoolThreads
from riverrun_server.runtime.upkeep import keep_up
from riverrun_server.storage.store import RocksStore, open_store
from riverrun_server.wire.stored import scan_batch, stored_batch

_log = structlog.stdlib.get_logger(__name__)

# Short reads of the disk; more threads only wait for the same lock of the interpreter.
_READ_THREADS = 4
# A loop or a disk that has not answered for this long is not coming back.
_LOOP_ALLOWED_S = 15.0
_DISK_ALLOWED_S = 60.0
_ASK_EVERY_S = 5.0


def serve(settings: Settings) -> int:
    """Run a broker until it is told to stop; return the process's exit code.

    Raises:
        CannotStart, StorageError, Refusal: for reasons that its operator can change.
    """
    return uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    broker = Broker(settings)
    try:
        await broker.start()
    except BaseException:
        broker.supervisor.stop("could not start")
        await broker.supervisor.run()
        raise
    return await broker.supervisor.run()


@dataclass
class Broker:
    """Everything that one broker process consists of.

    What is made registers its own end with the supervisor at once, so that a start that fails half
    way is taken down in the same order as a broker that has served.
    """

    settings: Settings
    clock: SystemClock = field(default_factory=SystemClock)
    dice: SystemDice = field(default_factory=SystemDice)
    metrics: Metrics = field(default_factory=Metrics)
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    servers: list[ListenerServer] = field(default_factory=list)
    _catalog: Catalog | None = None

    def __post_init__(self) -> None:
        """Make what needs no disk and no port."""
        settings = self.settings
        self.limits = settings.core_limits()
        self.health = Health(self.clock)
        self.threads = PoolThreads(_READ_THREADS, "reads")
        self.tails = TailBudget(settings.storage.hot_tail_bytes)
        self.gate = DiskGate(
            settings.storage.disk_low_water_bytes,
            max(settings.storage.disk_low_water_bytes, settings.storage.disk_high_water_bytes),
        )
        self.in_flight = InFlightBytes(
            ByteBudget(
                settings.limits.max_in_flight_bytes,
                settings.limits.max_in_flight_bytes_per_connection,
            )
        )
        caps = Caps(
            settings.limits.max_streams_per_connection,
            settings.limits.max_streams_per_principal,
            settings.limits.max_calls,
        )
        self.admission = Admission(caps, self.metrics)
        self.supervisor = Supervisor(
            self.clock,
            drain_timeout_s=settings.drain_timeout_s,
            crashed=self.metrics.task_crashes.inc,
        )
        self.supervisor.watch_signals()

    async def start(self) -> None:
        """Open the store, the metadata and the ports, in this order, and say that it serves."""
        probes = self._open_probes()
        store = await self._open_store()
        self._watch_loop()  # opening a store keeps the interpreter busy, and nobody waits yet
        now_ms = BrokerClock(self.clock)
        metadata = await self._open_metadata(store)
        catalog = self._make_catalog(store, metadata, now_ms)
        offsets = GroupOffsets(
            catalog,
            catalog,
            now_ms,
            self.threads,
            GroupOffsetsSettings(partitions=self.settings.offsets.partitions),
        )
        # Ports are bound before the broker registers, for it registers with their numbers; nobody
        # is answered before it has.
        status = self._bind(self._services(catalog, offsets, metadata, now_ms))
        self.health.life = Life.REGISTERING
        await status.starting()
        await catalog.start(self._registration(store))
        self.supervisor.spawn("catalog", catalog.run())
        self.supervisor.spawn("group offsets", offsets.run())
        self.supervisor.spawn("retention", self._retention(catalog, store, now_ms).run())
        for server in self.servers:
            await server.start()
        await status.serving()
        self.health.life = Life.SERVING
        addresses = " ".join(f"{s.listener.name}={s.listener.advertised}" for s in self.servers)
        print(f"ready {addresses} http={probes.address}", flush=True)  # noqa: T201 - the contract

    # What must be there before anything can be served.

    def _watch_loop(self) -> None:
        lag = LoopLag(
            self.clock,
            observe=self.metrics.loop_lag_seconds.set,
            beat=self.health.heart("loop", _LOOP_ALLOWED_S).beat,
        )
        lag.start()
        self.supervisor.on_stop(Stage.CLOSE_STORE, "loop lag", _quietly(lag.stop))

    def _open_probes(self) -> ProbeServer:
        address = self.settings.http_address
        try:
            probes = ProbeServer(address, self.health, self.metrics.registry, self.clock)
        except OSError as error:
            raise CannotStart(f"http.listen {address}: {error.strerror}") from error
        probes.start()
        self.supervisor.on_stop(Stage.CLOSE_STORE, "probes", _quietly(probes.close))
        return probes

    async def _open_store(self) -> RocksStore:
        settings = self.settings
        store = await self.threads.run(
            partial(
                open_store,
                settings.data_dir,
                slots=settings.storage.slots,
                broker_id=settings.broker_id,
                parse=stored_batch,
                scan=scan_batch,
                dice=self.dice,
            )
        )
        self.flusher = Flusher(
            store,
            self.clock,
            PoolThreads(1, "flusher"),
            observe_sync=self.metrics.sync_seconds.observe,
        )
        self.supervisor.spawn("flusher", self.flusher.run(), until=Stage.CLOSE_STORE)
        self.supervisor.on_stop(Stage.CLOSE_STORE, "store", partial(self._close_store, store))
        self.gate.observe(store.free_bytes())
        self.supervisor.spawn(
            "disk",
            watch_disk(self.gate, store.free_bytes, self.threads, self.metrics.disk_free_bytes.set),
        )
        self.upkeep_thread = PoolThreads(1, "upkeep")
        self.supervisor.spawn("upkeep", keep_up(store, self.upkeep_thread))
        heart = self.health.heart("disk", _DISK_ALLOWED_S)
        self.supervisor.spawn("disk heart", keep_asking(self.flusher.answers, heart, _ASK_EVERY_S))
        return store

    async def _close_store(self, store: RocksStore, _: float) -> None:
        for thread in (self.flusher, self.upkeep_thread, self.threads):
            thread.close()
        store.close(clean=self.supervisor.failure is None)

    async def _open_metadata(self, store: RocksStore) -> EmbeddedStore:
        metadata = EmbeddedStore(
            store.table(b"metadata"), self.flusher.durable, self.clock, self.dice
        )
        opened = contextlib.AsyncExitStack()
        await opened.enter_async_context(metadata)

        async def close(_: float) -> None:
            if self._catalog is not None:
                await self._catalog.close()
            await opened.aclose()
            await self.flusher.durable()

        self.supervisor.on_stop(Stage.FLUSH, "partitions and metadata", close)
        return metadata

    def _make_catalog(
        self, store: RocksStore, metadata: EmbeddedStore, now_ms: BrokerClock
    ) -> Catalog:
        services = PartitionServices(
            store,
            self.flusher,
            now_ms,
            self.tails,
            self.threads,
            self.gate.refusal,
            producer_retention_ms=self.settings.producers.expiry_ms,
        )

        def open_partition(
            topic: str, partition: PartitionId, config: TopicConfig, leader_epoch: int
        ) -> LocalPartition:
            return LocalPartition(topic, partition, config, leader_epoch, services)

        policy = TopicPolicy(
            self.limits,
            default_partitions=self.settings.topic_defaults.partitions,
            default_configs=self.settings.topic_configs(),
        )
        self._catalog = Catalog(
            CatalogServices(
                metadata,
                JsonDocuments(),
                store,
                open_partition,
                self.flusher.durable,
                self.clock,
                self.dice,
                policy,
                self.settings.broker_id,
                str(self.settings.data_dir),
            )
        )
        return self._catalog

    def _registration(self, store: RocksStore) -> BrokerRegistration:
        identity = store.identity
        return BrokerRegistration(
            broker_id=self.settings.broker_id,
            incarnations=Incarnations(Id(identity.fsync), Id(identity.relaxed)),
            endpoints={each.listener.name: str(each.listener.advertised) for each in self.servers},
            rack=self.settings.rack,
            host=self.settings.host,
            start_time_ms=self.clock.wall_ms(),
        )

    def _retention(self, catalog: Catalog, store: RocksStore, now_ms: BrokerClock) -> Retention:
        table, wall_ms = store.table(b"clock"), self.clock.wall_ms()
        confirmed_ms = wall_ms if self.settings.confirm_clock else None
        return Retention(
            partial(_local_partitions, catalog),
            now_ms,
            TimeGap(last_persisted_ms(table), wall_ms, confirmed_ms),
            table,
            self.settings.retention.check_interval_s,
        )

    # What serves.

    def _services(
        self,
        catalog: Catalog,
        offsets: GroupOffsets,
        metadata: EmbeddedStore,
        now_ms: BrokerClock,
    ) -> list[Service]:
        producer_ids = ProducerIds(metadata, JsonDocuments(), self.dice, self.settings.broker_id)
        producer = ProducerService(
            AppendRules(catalog, self.limits, now_ms),
            self.in_flight,
            producer_ids.next,
            self.draining,
            self.dice,
        )
        limits = self.limits
        reading = ReadingServices(
            catalog,
            offsets,
            self.threads,
            ReadingLimits(
                partitions_per_call=limits.max_partitions_per_call,
                fetch_wait_s_max=limits.max_fetch_wait_ms / 1000,
            ),
            to_proto,
        )
        streams = Streams(reading, self.draining)
        consumer = ConsumerService(streams)
        text = TextService(streams, producer.append)
        admin = AdminService(catalog)
        told = MetadataService(
            catalog, ServerDescription(version("riverrun")), self.clock, self.draining
        )
        return [
            _generic(producer_rpc.SERVICE, producer.handler()),
            _generic(consumer_rpc.SERVICE, consumer.handler()),
            _generic(text_rpc.SERVICE, text.handler()),
            _generic(admin_rpc.SERVICE, admin.handler()),
            _generic(metadata_rpc.SERVICE, told.handler()),
        ]

    def _bind(self, services: Sequence[Service]) -> ServingStatus:
        settings = self.settings
        status = ServingStatus(services)
        options = ServerOptions(
            self.limits.max_request_bytes,
            self.limits.max_frame_bytes,
            settings.limits.max_streams_per_connection,
            settings.grpc.keepalive_time_s,
            settings.grpc.keepalive_timeout_s,
            settings.grpc.min_client_ping_interval_s,
        )
        self.servers = [
            ListenerServer(
                listener,
                services,
                options=options,
                admission=self.admission,
                status=status,
                reflects=settings.reflects(listener),
            )
            for listener in settings.listeners
        ]

        async def stop_accepting(_: float) -> None:
            self.health.life = Life.DRAINING
            self.admission.drain()
            await status.draining()
            self.draining.set()

        self.supervisor.on_stop(Stage.STOP_ACCEPTING, "admission", stop_accepting)
        self.supervisor.on_stop(Stage.DRAIN_STREAMS, "streams", partial(stop_all, self.servers))
        return status


def _generic(name: str, handler: grpc.GenericRpcHandler) -> Service:
    return Service(name, lambda server: server.add_generic_rpc_handlers((handler,)))


def _local_partitions(catalog: Catalog) -> Iterator[LocalPartition]:
    """Yield the partitions that are stored here and could be opened."""
    for name in catalog.topics.names:
        topic = catalog.topics.get(name)
        for partition in () if topic is None else topic.partitions:
            if isinstance(partition, LocalPartition):
                yield partition


def _quietly(close: Callable[[], None]) -> Callable[[float], Awaitable[None]]:
    """Make a step of the shutdown from what returns at once."""

    async def step(_: float) -> None:
        close()

    return step
