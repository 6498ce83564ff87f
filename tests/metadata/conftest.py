from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.ports.metadata import MetadataStore
from tests.metadata.fakes import FakeDisk, ManualClock, SeededDice

HISTORY = 20


class EmbeddedWorld:
    """One embedded store that can be restarted; `history` is how many revisions it keeps."""

    history = HISTORY

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.clock = ManualClock()
        self.disk = FakeDisk()
        self.dice = SeededDice()
        self.store: EmbeddedStore | None = None

    async def open(self) -> MetadataStore:
        store = EmbeddedStore(
            self.disk, self.disk.durable, self.clock, self.dice, history_revisions=self.history
        )
        self.store = await self._stack.enter_async_context(store)
        return self.store

    async def restart(self) -> MetadataStore:
        await self._stack.aclose()
        self.disk = self.disk.after_kill()
        return await self.open()

    async def power_cut(self) -> MetadataStore:
        self.disk = self.disk.after_power_cut()
        await self._stack.aclose()
        return await self.open()

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        assert self.store is not None
        self.store.expire()


WORLDS = {"embedded": EmbeddedWorld}


@pytest.fixture(params=sorted(WORLDS))
async def world(request):
    async with AsyncExitStack() as stack:
        yield WORLDS[request.param](stack)


@pytest.fixture
async def store(world):
    return await world.open()
