"""What members and offsets are asked to begin while they end: it is refused, and never half begun."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.core.errors import Reason, Refusal
from tests.rpc.reading_world import World
from tests.sim.loop import simulate


@pytest.mark.parametrize("part", ["members", "offsets"])
def test_what_is_begun_while_a_broker_ends_is_closed_at_any_moment(part):
    begun, refused = [], []

    async def work():
        begun.append(None)

    async def last(world):
        """End behind everything else, and ask for something at every step of that."""
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                ask(world)
                await asyncio.sleep(0)

    def ask(world):
        try:
            getattr(world, part).spawn(work(), "late")
        except Refusal as refusal:
            refused.append(refusal.reason)

    async def scenario():
        world = World()
        running = asyncio.create_task(getattr(world, part).run())
        await asyncio.sleep(0.1)
        getattr(world, part).spawn(last(world), "last")
        await asyncio.sleep(0.1)
        running.cancel()
        running.add_done_callback(lambda _: ask(world))
        for _ in range(10):
            await asyncio.sleep(0)
            ask(world)
        await asyncio.gather(running, return_exceptions=True)

    for seed in range(10):
        simulate(scenario(), seed)
    assert not begun
    # Members leave it to their coordinators to notice.
    assert set(refused) == ({Reason.NOT_READY} if part == "offsets" else set())
