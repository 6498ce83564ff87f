"""Unary calls on the wire: one request or none or two, deadlines, and callers that hang up."""

from __future__ import annotations

import asyncio

import grpc.aio
import h2.errors
import pytest

import riverrun
from riverrun.v1 import admin_pb2 as a
from riverrun.v1 import consumer_pb2 as c
from riverrun.v1 import errors_pb2 as e
from riverrun.v1 import producer_pb2 as p
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.records_pb2 import Record
from tests.e2e.conftest import ended
from tests.e2e.hostile.broker_under_attack import AttackedBroker, Limits
from tests.e2e.hostile.judge import details_of, messages_of
from tests.e2e.hostile.raw_http2 import Crowd, framed

PRODUCE = "/riverrun.v1.ProducerService/Produce"
FETCH = "/riverrun.v1.ConsumerService/Fetch"
INFO = "/riverrun.v1.MetadataService/GetServerInfo"
CREATE = "/riverrun.v1.AdminService/CreateTopic"
INVALID_ARGUMENT = 3
CALLS = 16


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """It has few places for calls, so that one that is not given back is missed."""
    with ended(AttackedBroker(tmp_path_factory.mktemp("unary"), Limits(calls=CALLS))) as broker:
        broker.start()
        yield broker


@pytest.fixture
async def raw(broker):
    async with Crowd(broker.address) as crowd:
        yield await crowd.connect()


async def make_topic(raw, topic):
    answer = await raw.ask(
        CREATE, a.CreateTopicRequest(topic=topic, partitions=1).SerializeToString()
    )
    assert answer.status == 0


def append(topic, value):
    request = p.ProduceRequest(topic=topic, partition=0, records=[Record(value=value)])
    return framed(request.SerializeToString())


async def written(broker, topic):
    async with (
        riverrun.Client(broker.address) as client,
        client.consumer(topic, stop_at_end=True) as consumer,
    ):
        return [record.value async for record in consumer]


async def test_a_call_without_a_request_did_nothing_and_is_told_so(broker, raw):
    stream = raw.call(PRODUCE)
    await raw.send(stream, b"", end=True)
    answer = await raw.answer(stream)
    assert answer.status == INVALID_ARGUMENT
    error = details_of(answer)
    assert error.reason == e.ERROR_REASON_INVALID_REQUEST
    assert error.outcome == e.OUTCOME_NOTHING_HAPPENED


async def test_of_two_requests_in_a_unary_call_the_first_counts_and_the_answer_is_its(broker, raw):
    """As with gRPC's own servers; to look for a second one would cost every small call a read."""
    await make_topic(raw, "two")
    stream = raw.call(PRODUCE)
    await raw.send(stream, append("two", b"first") + append("two", b"second"), end=True)
    answer = await raw.answer(stream)
    assert answer.status == 0
    (data,) = messages_of(answer.data)
    (result,) = p.ProduceResponse.FromString(data).results
    assert result.base_offset == 0
    assert await written(broker, "two") == [b"first"]


async def test_a_caller_that_keeps_its_half_open_is_answered_all_the_same(broker, raw):
    await make_topic(raw, "open")
    stream = raw.call(PRODUCE)
    await raw.send(stream, append("open", b"v"))
    assert (await raw.answer(stream)).status == 0


def patient(topic):
    """A Fetch that waits for a record."""
    position = c.StartPosition(topic=topic, partition=0)
    request = c.FetchRequest(positions=[position], min_bytes=1)
    request.max_wait.seconds = 30
    return request


async def is_served(broker, raw, topic):
    """A call that waits finds a place, and so does the write that it waits for."""
    async with grpc.aio.insecure_channel(broker.address) as channel:
        waiting = asyncio.ensure_future(ConsumerServiceStub(channel).Fetch(patient(topic)))
        stream = raw.call(PRODUCE)
        await raw.send(stream, append(topic, b"v"), end=True)
        assert (await raw.answer(stream)).status == 0
        answer = await asyncio.wait_for(waiting, 20)
    return [delivery.next_offset for delivery in answer.deliveries] == [1]


async def test_a_call_whose_deadline_passes_gives_its_place_back(broker, raw):
    await make_topic(raw, "late")
    async with grpc.aio.insecure_channel(broker.address) as channel:
        await channel.channel_ready()
        for _ in range(2 * CALLS):
            call = ConsumerServiceStub(channel).Fetch(patient("late"), timeout=0.02)
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await is_served(broker, raw, "late")


async def test_a_call_that_is_cancelled_gives_its_place_back(broker, raw):
    await make_topic(raw, "cancelled")
    for _ in range(2 * CALLS):
        stream = raw.call(FETCH)
        await raw.send(stream, framed(patient("cancelled").SerializeToString()), end=True)
        # Once this one is answered, the one before it has begun.
        assert (await raw.ask(INFO, b"")).status == 0
        raw.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        await raw.flush()
    assert await is_served(broker, raw, "cancelled")
