"""What a person is told where no broker answers."""

from __future__ import annotations

import asyncio
import socket

import pytest

from riverrun import Client, NoBrokerError
from riverrun._net.unreachable import no_broker
from tests.client.fake_broker import FakeBroker, impatient


async def told(address):
    """Return what a client says of an address; it tries for a moment only."""
    with pytest.raises(NoBrokerError) as caught:
        async with Client(address, connect_timeout_s=0.5) as client:
            await client.server_info()
    return caught.value.message


@pytest.fixture
def silent():
    """An address that takes connections and never says anything: a broker that is starting."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


async def test_where_nobody_listens_it_says_how_to_start_a_broker():
    text = await told("127.0.0.1:1")
    assert text.startswith("no broker answers at 127.0.0.1:1 within 0.5 s: nobody listens there; ")
    assert "`riverrun-server run`" in text
    assert "RIVERRUN_BOOTSTRAP" in text


async def test_a_port_of_another_protocol_is_told_from_a_broker_that_is_away():
    async def answer(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.0 400 Bad request syntax\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        text = await told(f"{host}:{port}")
    assert "something listens there, but not for clients of a broker" in text
    assert "`ready clients=…`" in text


async def test_a_broker_that_does_not_answer_yet_is_worth_waiting_for(silent):
    text = await told(silent)
    assert "a broker that is starting or overloaded may a little later" in text


def test_a_name_that_does_not_resolve_is_told_as_such():
    # gRPC's own text: what DNS answers differs from machine to machine.
    text = "errors resolving nohost:7171: [lookup failed for nohost:7171: Domain name not found]"
    assert "there is no such host" in no_broker({"nohost:7171": text}, 1).message


def test_addresses_that_fail_alike_are_told_together_and_others_one_by_one():
    refused = "connect: Connection refused"
    both = no_broker({"a:1": refused, "b:2": refused}, 10).message
    assert both.startswith("no broker answers at a:1, b:2 within 10 s: nobody listens there; ")
    mixed = no_broker({"a:1": refused, "b:2": "something new"}, 10).message
    assert "a:1: nobody listens there" in mixed
    assert "b:2: something new" in mixed


async def test_who_waits_for_records_without_a_broker_is_told_once_that_there_is_none(
    monkeypatch, caplog
):
    monkeypatch.setattr("riverrun._net.subscribe_loop._ALONE_S", 0.02)
    async with Client("127.0.0.1:1", connect_timeout_s=5) as client:
        consumer = client.consumer("t")
        assert await consumer.getmany(1, timeout_s=0) == []
        assert caplog.records == []
        for _ in range(3):
            assert await consumer.getmany(1, timeout_s=0.05) == []
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert told[0].startswith("nothing can be read, still trying: no broker at 127.0.0.1:1 for 0.")


async def test_who_waits_for_records_that_do_not_come_is_told_nothing(monkeypatch, caplog):
    monkeypatch.setattr("riverrun._net.subscribe_loop._ALONE_S", 0.0)
    broker = FakeBroker()
    broker.add_topic("t")
    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer("t")
        await consumer.assignment()
        assert await consumer.getmany(1, timeout_s=0.05) == []
    assert caplog.records == []
