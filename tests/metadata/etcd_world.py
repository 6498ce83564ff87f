"""The store on a real etcd, as the conformance suite opens and restarts it."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack

from riverrun_server.metadata.etcd.options import EtcdOptions
from riverrun_server.metadata.etcd.store import EtcdStore
from riverrun_server.ports.metadata import MAX_OPERATIONS, Delete, MetadataStore, Transaction
from tests.metadata.etcd_process import EtcdProcess
from tests.metadata.fakes import SeededDice

_NAMES = itertools.count()


class EtcdWorld:
    """One store on an etcd that other tests have used too, under a prefix of its own."""

    # etcd counts whole seconds, and they really pass.
    ttl_s = 2

    def __init__(self, etcd: EtcdProcess) -> None:
        self._stack = AsyncExitStack()
        self.etcd = etcd
        self.prefix = f"/riverrun/test-{next(_NAMES)}/"
        self.store: EtcdStore | None = None

    def options(self, **changes) -> EtcdOptions:
        return EtcdOptions(**{"endpoints": (self.etcd.address,), "prefix": self.prefix} | changes)

    async def open(self) -> MetadataStore:
        store = EtcdStore(self.options(), SeededDice(), page_keys=7)
        self.store = await self._stack.enter_async_context(store)
        return self.store

    async def restart(self) -> MetadataStore:
        await self._stack.aclose()
        await asyncio.to_thread(self.etcd.kill9)
        await asyncio.to_thread(self.etcd.start)
        return await self.open()

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def forget(self) -> None:
        """Compact everything but the newest state."""
        assert self.store is not None
        listing = await self.store.scan("")
        await asyncio.to_thread(self.etcd.compact, listing.revision)

    async def end(self) -> None:
        """Close and delete all keys: one that goes with its lease later would take a revision then."""
        await self._stack.aclose()
        async with EtcdStore(self.options(), SeededDice()) as store:
            keys = [entry.key for entry in (await store.scan("")).entries]
            for at in range(0, len(keys), MAX_OPERATIONS):
                some = keys[at : at + MAX_OPERATIONS]
                await store.transact(Transaction((), tuple(map(Delete, some))))
