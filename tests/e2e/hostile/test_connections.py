"""As many connections as are allowed are held, more are closed at once, and those that are there are served."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.conftest import ended
from tests.e2e.hostile.broker_under_attack import AttackedBroker, Limits
from tests.e2e.hostile.raw_http2 import Crowd

INFO = "/riverrun.v1.MetadataService/GetServerInfo"
ALLOWED = 100


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


async def test_an_idle_connection_stays_for_as_long_as_it_answers_pings(broker):
    """Who acknowledges nothing is closed within seconds, and so holds no place."""
    async with Crowd(broker.address) as polite:
        await polite.connect_idle(5)
        host, _, port = broker.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        async with asyncio.timeout(30):
            while await reader.read(1 << 16):
                pass
        writer.close()
        await writer.wait_closed()
        assert polite.held == 5
