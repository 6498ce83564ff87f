"""As many connections as are allowed are held, more are closed at once, and those that are there are served."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.conftest import ended
from tests.e2e.hostile.broker_under_attack import AttackedBroker, Limits
from tests.e2e.hostile.raw_http2 import Crowd

INFO = "/riverrun.v1.MetadataService/GetServerInfo"
ALLOWED = 100
# A log that was rotated, a connection that is being closed.
DESCRIPTORS_OF_ITS_OWN = 10


@pytest.fixture
def broker(tmp_path):
    with ended(AttackedBroker(tmp_path, Limits(connections=ALLOWED))) as broker:
        broker.start()
        yield broker


async def test_connections_beyond_the_limit_are_closed_and_those_before_it_served(broker):
    """N27: idle connections without end."""
    async with Crowd(broker.address) as others, Crowd(broker.address) as attacker:
        there = await others.connect()
        await attacker.connect_idle(ALLOWED + 50)
        assert attacker.held == ALLOWED - 1
        assert (await there.ask(INFO, b"")).status == 0
    # gRPC notices that they have gone a moment later.
    async with Crowd(broker.address) as others, asyncio.timeout(10):
        answered = None
        while answered is None:
            answered = (await (await others.connect()).ask(INFO, b"")).status
        assert answered == 0
    assert broker.hurt() == []


async def test_two_listeners_hold_no_more_connections_than_the_process_is_allowed(tmp_path):
    """And neither keeps clients from the other."""
    config = tmp_path / "broker.toml"
    config.write_text(
        "".join(
            f"[[listeners]]\nname = '{name}'\nbind = '127.0.0.1:0'\n" for name in ("inner", "outer")
        )
    )
    limits = Limits(connections=ALLOWED)
    with ended(AttackedBroker(tmp_path, limits, config=config)) as broker:
        broker.start()
        before = broker.descriptors()
        inner, outer = broker.addresses["inner"], broker.addresses["outer"]
        async with Crowd(outer) as attacker, Crowd(inner) as others:
            await attacker.connect_idle(ALLOWED + 50)
            assert attacker.held == ALLOWED // 2
            assert (await (await others.connect()).ask(INFO, b"")).status == 0
            await others.connect_idle(ALLOWED)
            assert attacker.held + others.held == ALLOWED
            assert broker.descriptors() - before <= ALLOWED + DESCRIPTORS_OF_ITS_OWN
        assert broker.hurt() == []
