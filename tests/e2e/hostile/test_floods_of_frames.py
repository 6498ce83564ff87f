"""Clients that misuse HTTP/2 itself hurt neither the broker nor anybody else."""

from __future__ import annotations

import asyncio
import struct

import h2.errors
import pytest

from riverrun.v1 import metadata_pb2
from riverrun.v1 import producer_pb2 as p
from tests.e2e.conftest import ended
from tests.e2e.hostile.broker_under_attack import MIB, AttackedBroker
from tests.e2e.hostile.idle import HELLO
from tests.e2e.hostile.raw_http2 import Crowd, framed

INFO = "/riverrun.v1.MetadataService/GetServerInfo"
PRODUCE = "/riverrun.v1.ProducerService/Produce"
CANCEL = h2.errors.ErrorCodes.CANCEL
ENHANCE_YOUR_CALM = h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
RESOURCE_EXHAUSTED = 8


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """One for all: what one attack leaves behind must not weaken it for the next."""
    with ended(AttackedBroker(tmp_path_factory.mktemp("attacked"))) as broker:
        broker.start()
        yield broker


@pytest.fixture(autouse=True)
async def unhurt(broker):
    """After each attack the broker answers others at once, and has nothing to say of it."""
    before = broker.lines()
    broker.forget_peak()
    yield
    async with Crowd(broker.address) as others:
        answer = await (await others.connect()).ask(INFO, b"")
    assert answer.status == 0
    assert metadata_pb2.GetServerInfoResponse.FromString(answer.data[5:]).version
    assert broker.hurt() == []
    assert broker.lines() - before < 20


@pytest.fixture
async def crowd(broker):
    async with Crowd(broker.address) as crowd:
        yield crowd


async def test_a_flood_of_resets_starts_nothing_and_delays_nobody(broker, crowd):
    """N28: rapid reset, CVE-2023-44487."""
    attacker = await crowd.connect()
    for _ in range(100):
        for _ in range(50):
            attacker.h2.reset_stream(attacker.call(INFO), CANCEL)
        await attacker.flush()
        if attacker.closed:
            break
    assert broker.peak_bytes() < 300 * MIB


async def test_a_client_that_pings_all_the_time_is_told_to_go(broker, crowd):
    """N29."""
    attacker = await crowd.connect()
    for number in range(50):
        attacker.h2.ping(struct.pack(">Q", number))
        await attacker.flush()
        await attacker.hear(0.1)
        if attacker.went_away is not None:
            break
    assert attacker.went_away == ENHANCE_YOUR_CALM


async def test_a_bomb_of_metadata_is_refused_and_the_next_call_is_answered(broker, crowd):
    """N30."""
    attacker = await crowd.connect()
    for size in (30_000, 200_000):
        stream = attacker.call(INFO, *[(f"x-{n}", "y" * 1000) for n in range(size // 1000)])
        await attacker.send(stream, framed(b""), end=True)
        answer = await attacker.answer(stream)
        assert answer.status == RESOURCE_EXHAUSTED or answer.reset is not None
    # A table that is filled once and referred to again and again: HPACK's bomb.
    bomb = ("x-bomb", "z" * 3000)
    streams = [attacker.call(INFO, *[bomb] * 100) for _ in range(20)]
    await attacker.flush()
    for stream in streams:
        answer = await attacker.answer(stream)
        assert answer.status == RESOURCE_EXHAUSTED or answer.reset is not None
    assert broker.peak_bytes() < 300 * MIB


async def test_requests_that_are_never_finished_hold_little_and_not_for_ever(broker, crowd):
    """N27: slowloris, by headers alone and by bodies that stop half way."""
    half = b"\0" + struct.pack(">I", 4 * MIB) + b"\x1a" * (2 * MIB)
    for _ in range(2):
        attacker = await crowd.connect()
        for _ in range(50):
            attacker.call(PRODUCE)
        await attacker.flush()
        streams = [attacker.call(PRODUCE) for _ in range(20)]
        for stream in streams:
            await attacker.send(stream, half)
    for attacker in crowd.connections:
        first = min(attacker.answers)
        answer = await attacker.answer(first)
        assert answer.status == RESOURCE_EXHAUSTED
        assert "had not arrived" in answer.headers["grpc-message"]


async def test_connections_that_say_nothing_are_closed_and_polite_ones_stay(broker, crowd):
    """N27: half-open, deaf to the broker's settings, and garbage in place of a preface."""
    await crowd.connect_idle(5)
    host, _, port = broker.address.rpartition(":")
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(100)]
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\n\r\n" + b"\xff" * 100_000)
    deaf = await asyncio.open_connection(host, int(port))
    deaf[1].write(HELLO)
    silent.append(deaf)
    async with asyncio.timeout(30):
        assert b"HTTP/1" not in await reader.read(1000)
        while await reader.read(1 << 16):
            pass
        for quiet, _ in silent:
            while await quiet.read(1 << 16):
                pass
    assert crowd.held == 5
    for _, each in [*silent, (reader, writer)]:
        each.close()
        await each.wait_closed()


async def test_a_request_beyond_the_largest_is_refused_before_it_is_taken_in(broker, crowd):
    """N24."""
    raw = await crowd.connect()
    request = p.ProduceRequest(topic="t", partition=0)
    request.records.add(value=b"x" * (5 * MIB))
    answer = await raw.ask(PRODUCE, request.SerializeToString())
    assert answer.status == RESOURCE_EXHAUSTED
