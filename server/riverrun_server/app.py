"""The composition root: makes one broker out of its parts, in order, and runs it to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

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
from riverrun_server.rpc.admin import AdminService
from riverrun_server.rpc.admission import Admission, Caps
from riverrun_server.rpc.appends import AppendRules
from riverrun_server.rpc.consumer import ConsumerService
from riverrun_server.rpc.errors import to_proto
from riverrun_server.rpc.metadata import MetadataService
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
        self._watch_loop()
        probes = self._open_probes()
        store = await self._open_store()
        now_ms = BrokerClock(self.clock)
        services = PartitionServices(
            store,
            self.flusher,
            now_ms,
            self.tails,
            self.threads,
            self.gate.refusal,
            producer_retention_ms=self.settings.producers.expiry_ms,
        )
        self.health.life = Life.REGISTERING
        catalog = await self._open_catalog(store, services)
        offsets = GroupOffsets(
            catalog,
            catalog,
            now_ms,
            self.threads,
            GroupOffsetsSettings(partitions=self.settings.offsets.partitions),
        )
        self.supervisor.spawn("group offsets", offsets.run())
        table = store.table(b"clock")
        gap = TimeGap(
            last_persisted_ms(table),
            self.clock.wall_ms(),
            self.clock.wall_ms() if self.settings.confirm_clock else None,
        )
        retention = Retention(
            partial(_local_partitions, catalog),
            now_ms,
            gap,
            table,
            self.settings.retention.check_interval_s,
        )
        self.supervisor.spawn("retention", retention.run())
        await self._listen(self._services(catalog, offsets, now_ms))
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
        heart = self.health.heart("disk", _DISK_ALLOWED_S)
        self.supervisor.spawn("disk heart", keep_asking(self.flusher.answers, heart, _ASK_EVERY_S))
        return store

    async def _close_store(self, store: RocksStore, _: float) -> None:
        self.flusher.close()
        self.threads.close()
        store.close(clean=self.supervisor.failure is None)

    async def _open_catalog(self, store: RocksStore, services: PartitionServices) -> Catalog:
        documents = JsonDocuments()
        metadata = EmbeddedStore(
            store.table(b"metadata"), self.flusher.durable, self.clock, self.dice
        )
        opened = contextlib.AsyncExitStack()
        await opened.enter_async_context(metadata)

        def open_partition(
            topic: str, partition: PartitionId, config: TopicConfig, leader_epoch: int
        ) -> LocalPartition:
            return LocalPartition(topic, partition, config, leader_epoch, services)

        defaults = self.settings.topic_defaults
        catalog = Catalog(
            CatalogServices(
                metadata,
                documents,
                store,
                open_partition,
                self.flusher.durable,
                self.clock,
                self.dice,
                TopicPolicy(
                    self.limits,
                    default_partitions=defaults.partitions,
                    default_configs=self.settings.topic_configs(),
                ),
                self.settings.broker_id,
                str(self.settings.data_dir),
            )
        )

        async def close(_: float) -> None:
            await catalog.close()
            await opened.aclose()
            await self.flusher.durable()

        self.supervisor.on_stop(Stage.FLUSH, "partitions", close)
        self.producer_ids = ProducerIds(metadata, documents, self.dice, self.settings.broker_id)
        identity = store.identity
        await catalog.start(
            BrokerRegistration(
                broker_id=self.settings.broker_id,
                incarnations=Incarnations(Id(identity.fsync), Id(identity.relaxed)),
                endpoints={each.name: str(each.advertised) for each in self.settings.listeners},
                rack=self.settings.rack,
                host=self.settings.host,
                start_time_ms=self.clock.wall_ms(),
            )
        )
        self.supervisor.spawn("catalog", catalog.run())
        return catalog

    # What serves.

    def _services(
        self, catalog: Catalog, offsets: GroupOffsets, now_ms: BrokerClock
    ) -> list[Service]:
        rules = AppendRules(catalog, self.limits, now_ms)
        producer = ProducerService(
            rules, self.in_flight, self.producer_ids.next, self.draining, self.dice
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
        return [
            _service(part)
            for part in (
                producer,
                ConsumerService(streams),
                TextService(streams, producer.append),
                AdminService(catalog),
                MetadataService(catalog, self.limits),
            )
        ]

    async def _listen(self, services: Sequence[Service]) -> None:
        settings = self.settings
        status = ServingStatus(services)
        await status.starting()
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
        for server in self.servers:
            await server.start()
        await status.serving()


def _local_partitions(catalog: Catalog) -> Iterator[LocalPartition]:
    """Yield the partitions that are stored here and could be opened."""
    for name in catalog.topics.names:
        topic = catalog.topics.get(name)
        for partition in () if topic is None else topic.partitions:
            if isinstance(partition, LocalPartition):
                yield partition


class _Serves(Protocol):
    """A service of ours: its full name, and its methods."""

    name: str

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the methods."""
        ...


def _service(part: _Serves) -> Service:
    handlers = (part.handler(),)
    return Service(part.name, lambda server: server.add_generic_rpc_handlers(handlers))


def _quietly(close: Callable[[], None]) -> Callable[[float], Awaitable[None]]:
    """Make a step of the shutdown from what returns at once."""

    async def step(_: float) -> None:
        close()

    return step
