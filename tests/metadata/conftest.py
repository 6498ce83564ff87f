"""The metadata stores that the conformance suite runs on."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.ports.metadata import MetadataStore, Put, Transaction
from riverrun_server.runtime.flusher import Flusher
from riverrun_server.runtime.threads import PoolThreads
from riverrun_server.storage.store import open_store
from riverrun_server.wire.stored import scan_batch, stored_batch
from tests.e2e.conftest import ended
from tests.metadata.etcd_process import EtcdProcess
from tests.metadata.etcd_world import EtcdWorld
from tests.metadata.fakes import FakeDisk, ManualClock, SeededDice
from tests.polyglot import toolchain


class EmbeddedWorld:
    """One embedded store that can be restarted.

    Attributes:
        history: so many revisions it keeps.
        ttl_s: of leases that a test waits for.
    """

    history = 20
    ttl_s = 10

    def __init__(self, stack: AsyncExitStack, _tmp_path) -> None:
        self._stack = stack
        self.clock = ManualClock()
        self.dice = SeededDice()
        self.store: EmbeddedStore | None = None
        self.disk = FakeDisk()

    async def table(self):
        """Return a table, and what makes it durable."""
        return self.disk, self.disk.durable

    async def open(self) -> MetadataStore:
        table, durable = await self.table()
        store = EmbeddedStore(table, durable, self.clock, self.dice, history_revisions=self.history)
        self.store = await self._stack.enter_async_context(store)
        return self.store

    async def restart(self) -> MetadataStore:
        await self._stack.aclose()
        self.disk = self.disk.after_kill()
        return await self.open()

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        assert self.store is not None
        self.store.expire()

    async def forget(self) -> None:
        """Change something until nothing older is kept."""
        assert self.store is not None
        for _ in range(self.history + 1):
            await self.store.transact(Transaction((), (Put("forgetting", b""),)))


class RocksWorld(EmbeddedWorld):
    """The embedded store as a broker has it: on RocksDB, synced by the broker's flusher."""

    def __init__(self, stack: AsyncExitStack, tmp_path) -> None:
        super().__init__(stack, tmp_path)
        self._folder = tmp_path / "data"

    async def table(self):
        return await self._stack.enter_async_context(self._opened())

    async def restart(self) -> MetadataStore:
        await self._stack.aclose()
        return await self.open()

    @asynccontextmanager
    async def _opened(self):
        store = open_store(
            self._folder,
            broker_id=1,
            parse=stored_batch,
            scan=scan_batch,
            dice=self.dice,
            slots=1,
        )
        flusher = Flusher(store, self.clock, PoolThreads(1, "flusher"))
        flushing = asyncio.create_task(flusher.run())
        try:
            yield store.table(b"metadata"), flusher.durable
        finally:
            flushing.cancel()
            with suppress(asyncio.CancelledError):
                await flushing
            await flusher.close(within_s=30.0)
            store.close(clean=False)


WORLDS = {"in memory": EmbeddedWorld, "on RocksDB": RocksWorld}


@pytest.fixture(scope="session")
def etcd(tmp_path_factory):
    """An etcd that all tests share; it may be restarted, and keeps its data and its port."""
    with ended(EtcdProcess(tmp_path_factory.mktemp("etcd"))) as process:
        process.start()
        yield process


@asynccontextmanager
async def on_etcd(process):
    world = EtcdWorld(process)
    try:
        yield world
    finally:
        await world.end()


@pytest.fixture
async def etcd_world(etcd):
    """A store on etcd, under a prefix of its own."""
    async with on_etcd(etcd) as world:
        yield world


@pytest.fixture(params=[*sorted(WORLDS), pytest.param("on etcd", marks=toolchain.BUILDS)])
async def world(request, tmp_path):
    if request.param == "on etcd":
        async with on_etcd(request.getfixturevalue("etcd")) as world:
            yield world
        return
    async with AsyncExitStack() as stack:
        yield WORLDS[request.param](stack, tmp_path)


@pytest.fixture
async def store(world):
    return await world.open()
