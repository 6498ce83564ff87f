"""The composition root: opens one broker's parts in order, and runs it to its end."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog
import uvloop

from riverrun_server.assembly import (
    Shared,
    bind,
    make_alone,
    make_catalog,
    make_members,
    make_offsets,
    make_registration,
    make_retention,
    make_services,
    partitions_here,
)
from riverrun_server.cluster_assembly import (
    bind_peers,
    make_connect,
    make_liveness,
    make_member,
    peer_endpoint,
)
from riverrun_server.config.settings import Settings
from riverrun_server.config.show import changed
from riverrun_server.http import ProbeServer
from riverrun_server.metadata_opening import open_metadata, without_metadata_no_start
from riverrun_server.ports.metadata import MetadataStore
from riverrun_server.rpc.server import ListenerServer, ServingStatus, check_free, stop_all
from riverrun_server.runtime.broker_liveness import BrokerLiveness
from riverrun_server.runtime.catalog import Catalog
from riverrun_server.runtime.cluster_member import ClusterMember
from riverrun_server.runtime.disk import look, watch_disk
from riverrun_server.runtime.flusher import Flusher
from riverrun_server.runtime.health import Health, Life, keep_asking
from riverrun_server.runtime.hosting import Hosting
from riverrun_server.runtime.loop_lag import LoopLag
from riverrun_server.runtime.process_memory import keep_memory, settle
from riverrun_server.runtime.sampling import keep_measuring, keep_publishing, keep_sampling
from riverrun_server.runtime.supervisor import CannotStart, Stage, Supervisor
from riverrun_server.runtime.threads import OneThread, PoolThreads
from riverrun_server.runtime.upkeep import keep_up
from riverrun_server.storage import identity
from riverrun_server.storage.rocks_store import RocksStore
from riverrun_server.storage.store import open_store
from riverrun_server.wire.stored import scan_batch, stored_batch

# A loop or a disk that has not answered for this long is not coming back.
_LOOP_ALLOWED_S = 15.0
_DISK_ALLOWED_S = 60.0
_ASK_EVERY_S = 5.0

_log = structlog.stdlib.get_logger(__name__)


def serve(settings: Settings) -> int:
    """Run a broker until it is told to stop; return the process's exit code.

    Raises:
        CannotStart, StorageError, Refusal: for reasons that its operator can change.
    """
    _use_all_descriptors()
    keep_memory()
    return uvloop.run(_serve(settings))


def _use_all_descriptors() -> None:
    """Raise the soft limit of open files to the hard one: tables and connections each take one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # a container may forbid it; the store adapts
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(settings: Settings) -> int:
    _log.info("starting", version=version("riverrun"), settings=changed(settings))
    broker = Broker(settings)
    try:
        await broker.start()
    except BaseException:
        broker.supervisor.stop("could not start")
        await broker.supervisor.run(started=False)
        raise
    return await broker.supervisor.run()


class Broker:
    """One broker process.

    What is opened registers its own end with the supervisor at once, so that a start that fails
    half way is taken down in the same order as a broker that has served.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.shared = Shared(settings)
        self.health = Health(self.shared.clock)
        self.supervisor = Supervisor(
            self.shared.clock,
            drain_timeout_s=settings.drain_timeout_s,
            crashed=self.shared.metrics.task_crashes.inc,
        )
        self.supervisor.watch_signals()

    async def start(self) -> None:
        """Open the probes, the store, the metadata and the ports, and say that it serves."""
        shared, spawn = self.shared, self.supervisor.spawn
        self._check_alone()
        probes = self._open_probes()
        store, flusher = await self._open_store()
        self._watch_loop()  # opening a store keeps the interpreter busy, and nobody waits yet
        metadata, liveness = await self._open_metadata(store, flusher)
        hosting = self._hosting(store, flusher, metadata, liveness)
        catalog = self._open_catalog(store, flusher, metadata, hosting)
        offsets = make_offsets(shared, catalog)
        reached = ""
        if isinstance(hosting, ClusterMember):
            peers = bind_peers(shared.settings)
            reached = peer_endpoint(shared.settings, peers)
            hosting.connect_by(make_connect(shared, metadata, peers, offsets))
        # Ports are bound before the broker registers, for it registers with their numbers; nobody
        # is answered before it has.
        members = make_members(shared, offsets)
        servers, status = bind(shared, make_services(shared, catalog, offsets, members))
        self._stop_in_order(servers, status)
        self.health.life = Life.REGISTERING
        await status.starting()
        with without_metadata_no_start():
            await catalog.start(make_registration(shared, store, servers, reached))
        spawn("catalog", catalog.run())
        spawn("group offsets", offsets.run())
        spawn("members", members.run())
        spawn("retention", make_retention(shared, catalog, store).run())
        self._watch_figures(catalog, store)
        for server in servers:
            await server.start()
        await status.serving()
        self.health.life = Life.SERVING
        settle()
        addresses = " ".join(f"{s.listener.name}={s.listener.advertised}" for s in servers)
        print(f"ready {addresses} http={probes.address}", flush=True)  # noqa: T201 - the contract

    def _check_alone(self) -> None:
        """Fail with a word about the other broker, where one runs here already.

        All of this is found out later anyway, but first for the probes' port, which says little.
        """
        identity.check_free(Path(self.settings.data_dir))
        for listener in self.settings.listeners:
            check_free(listener)

    def _open_probes(self) -> ProbeServer:
        address, shared = self.settings.http_address, self.shared
        try:
            probes = ProbeServer(address, self.health, shared.metrics.registry, shared.clock)
        except OSError as error:
            raise CannotStart(
                f"http.listen {address}: {error.strerror}; choose another with --http-listen "
                "HOST:PORT"
            ) from error
        probes.start()
        self.supervisor.on_stop(Stage.CLOSE_STORE, "probes", _quietly(probes.close))
        return probes

    def _watch_loop(self) -> None:
        lag = LoopLag(
            self.shared.clock,
            observe=self.shared.metrics.loop_lag_seconds.set,
            beat=self.health.heart("loop", _LOOP_ALLOWED_S).beat,
        )
        lag.start()
        self.supervisor.on_stop(Stage.CLOSE_STORE, "loop lag", _quietly(lag.stop))

    async def _open_store(self) -> tuple[RocksStore, Flusher]:
        settings, shared, spawn = self.settings, self.shared, self.supervisor.spawn
        store = await shared.threads.run(
            partial(
                open_store,
                settings.data_dir,
                slots=settings.storage.slots,
                broker_id=settings.broker_id,
                parse=stored_batch,
                scan=scan_batch,
                dice=shared.dice,
            )
        )
        flusher = Flusher(
            store,
            shared.clock,
            OneThread("flusher"),
            observe_sync=shared.metrics.sync_seconds.observe,
            observe_wait=shared.metrics.sync_wait_seconds.observe,
        )
        upkeep, closing = PoolThreads(1, "upkeep"), PoolThreads(1, "closing")

        async def close(_: float) -> None:
            # In a thread: it waits for the disk, and the loop goes on to cut it short.
            await closing.run(partial(store.close, clean=self.supervisor.failure is None))

        on_stop = self.supervisor.on_stop
        on_stop(Stage.STOP_THREADS, "flusher's thread", flusher.close)
        on_stop(Stage.STOP_THREADS, "upkeep's thread", upkeep.close)
        on_stop(Stage.STOP_THREADS, "reading threads", shared.threads.close)
        on_stop(Stage.STOP_THREADS, "validating threads", shared.validation.close)
        on_stop(Stage.CLOSE_STORE, "store", close)
        spawn("flusher", flusher.run(), until=Stage.STOP_THREADS)
        spawn("upkeep", keep_up(store, upkeep))
        look(shared.gate, store.free_bytes(), store.total_bytes())
        observe = shared.metrics.disk_free_bytes.set
        spawn("disk", watch_disk(shared.gate, store, shared.threads, observe))
        heart = self.health.heart("disk", _DISK_ALLOWED_S)
        spawn("disk heart", keep_asking(flusher.answers, heart, _ASK_EVERY_S))
        return store, flusher

    async def _open_metadata(
        self, store: RocksStore, flusher: Flusher
    ) -> tuple[MetadataStore, BrokerLiveness | None]:
        """Open the metadata store, and in one that others reach too be the only process of its name."""
        shared = self.shared
        table = store.table(b"metadata")
        opened = contextlib.AsyncExitStack()

        async def close_metadata(_: float) -> None:
            try:
                await opened.aclose()
            finally:
                await flusher.durable()

        self.supervisor.on_stop(Stage.CLOSE_METADATA, "metadata", close_metadata)
        metadata = await opened.enter_async_context(
            open_metadata(self.settings, table, flusher.durable, shared.clock, shared.dice)
        )
        if self.settings.metadata is None:
            return metadata, None
        liveness = make_liveness(shared, store, metadata)
        opened.push_async_callback(liveness.end)
        with without_metadata_no_start():
            await liveness.begin()
        self.supervisor.spawn("liveness", liveness.run(), until=Stage.CLOSE_METADATA)
        return metadata, liveness

    def _hosting(
        self,
        store: RocksStore,
        flusher: Flusher,
        metadata: MetadataStore,
        liveness: BrokerLiveness | None,
    ) -> Hosting:
        if liveness is None:
            return make_alone(self.shared, store, flusher)
        member = make_member(self.shared, store, metadata, flusher, liveness)
        self.supervisor.on_stop(Stage.HAND_ON, "leaderships", member.drain)
        publish = self.shared.metrics.replication.publish
        figures = keep_publishing(member.figures, publish)
        self.supervisor.spawn("figures of replication", figures, critical=False)
        return member

    def _open_catalog(
        self, store: RocksStore, flusher: Flusher, metadata: MetadataStore, hosting: Hosting
    ) -> Catalog:
        catalog = make_catalog(self.shared, store, metadata, flusher, hosting)

        async def close_partitions(_: float) -> None:
            await catalog.close()

        self.supervisor.on_stop(Stage.FLUSH, "partitions", close_partitions)
        return catalog

    def _watch_figures(self, catalog: Catalog, store: RocksStore) -> None:
        """Feed the metrics page with what nothing else comes by."""
        metrics, spawn = self.shared.metrics, self.supervisor.spawn
        metrics.unclean_recoveries.set(catalog.unclean_recoveries)
        metrics.orphan_partitions.set(len(catalog.orphans))
        metrics.metadata_followed.set_function(lambda: catalog.follows_metadata)
        topics = keep_sampling(partial(partitions_here, catalog), metrics.topics.publish)
        spawn("figures of topics", topics, critical=False)
        figures = keep_measuring(store, self.shared.threads, metrics.store.publish)
        spawn("figures of the store", figures, critical=False)

    def _stop_in_order(self, servers: list[ListenerServer], status: ServingStatus) -> None:
        async def tell_probes(_: float) -> None:
            self.health.life = Life.DRAINING

        async def stop_accepting(_: float) -> None:
            self.shared.admission.drain()
            await status.draining()
            self.shared.draining.set()

        self.supervisor.on_stop(Stage.HAND_ON, "probes", tell_probes)
        self.supervisor.on_stop(Stage.STOP_ACCEPTING, "admission", stop_accepting)
        self.supervisor.on_stop(Stage.DRAIN_STREAMS, "streams", partial(stop_all, servers))


def _quietly(close: Callable[[], None]) -> Callable[[float], Awaitable[None]]:
    """Make a step of the shutdown from what returns at once."""

    async def step(_: float) -> None:
        close()

    return step
