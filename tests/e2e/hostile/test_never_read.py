"""Readers that never read hold what they may and no more, and others read meanwhile."""

from __future__ import annotations

import asyncio

import pytest

import riverrun
from tests.e2e.conftest import ended
from tests.e2e.hostile.attacks import ATTACKS, FULL, prepare
from tests.e2e.hostile.broker_under_attack import MIB, AttackedBroker
from tests.e2e.hostile.raw_http2 import Crowd

# The budget, one read ahead, what the allocator keeps, and a few hundred streams and calls.
GROWTH = int(1.5 * 1.25 * 32 * MIB) + 60 * MIB


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """It holds 56 MiB, of which 16 are in memory; hundreds of readers ask for all of it."""
    with ended(AttackedBroker(tmp_path_factory.mktemp("unread"))) as broker:
        broker.start()
        asyncio.run(prepare(broker.address))
        yield broker


@pytest.mark.parametrize("attack", ["never_reading_fetches", "never_reading_subscribers"])
async def test_readers_that_never_read_hold_what_the_budget_says_and_others_read(broker, attack):
    """N27, I37."""
    broker.forget_peak()
    start = broker.rss_bytes()
    stop = asyncio.Event()
    async with Crowd(broker.address) as crowd:
        attacking = asyncio.create_task(ATTACKS[attack](crowd, stop, 0))
        try:
            async with asyncio.timeout(60):
                while await broker.metric("riverrun_limit_reached_total") < 20:
                    pass  # each look takes a call
                async with (
                    riverrun.Client(broker.address) as client,
                    client.consumer(FULL, stop_at_end=True) as consumer,
                ):
                    assert len([record async for record in consumer]) == 64
        finally:
            stop.set()
            await attacking
    assert broker.peak_bytes() - start < GROWTH
    assert broker.hurt() == []
