"""What a person is told where no broker answers."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from contextlib import AsyncExitStack

import pytest

from riverrun import Client, NoBrokerError, RetriableError, TimedOutError
from riverrun._net.unreachable import no_broker
from tests.client.fake_broker import FakeBroker, impatient


def said(caplog):
    """Return what the library has said; gRPC's poller speaks up when a loop of an earlier test is gone."""
    return [each.getMessage() for each in caplog.records if each.name.startswith("riverrun")]


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
    assert re.match(
        r"no broker answers at 127.0.0.1:1 within [\d.]+ s: nobody listens there; ", text
    )
    assert "`riverrun-server run`" in text
    assert "RIVERRUN_BOOTSTRAP" in text


async def test_the_time_that_is_told_is_the_time_that_was_waited():
    began_s = time.monotonic()
    text = await told("127.0.0.1:1")
    waited_s = time.monotonic() - began_s
    named_s = float(re.search(r"within ([\d.]+) s", text)[1])
    assert 0.45 <= named_s <= waited_s + 0.05


async def test_a_wait_is_told_once_with_its_bound_and_so_is_its_end(caplog):
    caplog.set_level(logging.INFO, "riverrun._net.channel")
    broker = FakeBroker()
    async with broker.serving() as address:
        port = int(address.rpartition(":")[2])
    async with Client(address, connect_timeout_s=20) as client:
        asked = asyncio.create_task(client.server_info())
        while not said(caplog):  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.01)
        async with broker.serving(port):
            await asked
            await client.server_info()
    first, last = said(caplog)
    assert first.startswith(
        f"no broker answers at {address} yet, waiting up to 20 s: nobody listens"
    )
    assert last == f"back again: a broker answers at {address}"


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
    monkeypatch.setattr("riverrun._net.contact._ALONE_S", 0.02)
    async with Client("127.0.0.1:1", connect_timeout_s=5) as client:
        consumer = client.consumer("t")
        assert await consumer.getmany(1, timeout_s=0) == []
        assert said(caplog) == []
        for _ in range(3):
            assert await consumer.getmany(1, timeout_s=0.05) == []
    told = said(caplog)
    assert len(told) == 1
    assert told[0].startswith("nothing can be read, still trying: no broker at 127.0.0.1:1 for 0.")


async def test_who_waits_for_records_that_do_not_come_is_told_nothing(monkeypatch, caplog):
    monkeypatch.setattr("riverrun._net.contact._ALONE_S", 0.0)
    broker = FakeBroker()
    broker.add_topic("t")
    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer("t")
        await consumer.assignment()
        assert await consumer.getmany(1, timeout_s=0.05) == []
    assert said(caplog) == []


def test_of_very_many_addresses_and_of_long_texts_only_so_much_is_told():
    text = no_broker({f"host{n}:7171": f"{n}{'x' * 10_000}" for n in range(1000)}, 10).message
    assert "host7:7171 and 992 more within 10 s" in text
    assert len(text) < 4_000


async def test_a_record_that_finds_no_broker_in_time_names_each_address_and_what_became_of_it(
    silent,
):
    async with (
        Client(["127.0.0.1:1", silent]) as client,
        client.producer(delivery_timeout_s=0.3) as producer,
    ):
        with pytest.raises(TimedOutError) as caught:
            await producer.send("t", b"x")
    text = caught.value.message
    assert text.startswith("topic t: no broker told about it within 0.3 s (delivery_timeout_s): ")
    assert "127.0.0.1:1: nobody listens there" in text
    assert f"{silent}: it does not answer" in text


async def test_an_address_that_has_said_nothing_so_far_is_named_too(silent):
    async with Client(silent) as client, client.producer(delivery_timeout_s=0.02) as producer:
        with pytest.raises(
            TimedOutError, match=f"no broker answers at {silent}: it does not answer"
        ):
            await producer.send("t", b"x")


async def test_a_batch_whose_broker_has_gone_names_the_address_and_what_became_of_it():
    broker = FakeBroker()
    broker.add_topic("t")
    async with AsyncExitStack() as serving:
        address = await serving.enter_async_context(broker.serving())
        async with (
            impatient(address) as client,
            client.producer(delivery_timeout_s=0.5) as producer,
        ):
            await producer.send("t", b"x")
            await serving.aclose()
            with pytest.raises(TimedOutError) as caught:
                await producer.send("t", b"y")
            # Nor does closing wait for a stream that is not there.
            async with asyncio.timeout(3):
                await producer.close()
    assert f"no broker answers at {address}: nobody listens there" in caught.value.message
    assert caught.value.message.count("nobody listens there") == 1


async def test_a_call_whose_broker_goes_away_says_so_and_what_became_of_the_address_since():
    broker = FakeBroker()
    broker.add_topic("t")
    async with AsyncExitStack() as serving:
        address = await serving.enter_async_context(broker.serving())
        async with impatient(address, request_timeout_s=0.5) as client:
            await client.server_info()
            await serving.aclose()
            with pytest.raises(RetriableError) as caught:
                await client.admin().cluster()
    assert f"since then no broker answers at {address}: nobody" in caught.value.message


async def test_once_a_broker_has_answered_what_was_before_explains_nothing():
    broker = FakeBroker()
    broker.add_topic("t")
    async with broker.serving() as address, impatient(f"127.0.0.1:1,{address}") as client:
        await client.server_info()
        assert client._connections.trouble == ""
