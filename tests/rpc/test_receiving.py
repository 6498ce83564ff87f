"""Requests that take long to arrive are given up where there are too many, the oldest first."""

import asyncio

import grpc.aio
import pytest
from google.protobuf.message import DecodeError

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.rpc.receiving import Receiving, checked
from tests.sim.loop import simulate


class Call:
    """A call whose request arrives when the test says so."""

    def __init__(self):
        self.arrived = asyncio.get_running_loop().create_future()

    async def read(self):
        return await self.arrived


def make(slow_max):
    return Receiving(slow_max, lambda _, reason, text: Refusal(reason, text))


async def begin(receiving):
    call = Call()

    async def serve():
        return await receiving.request(call, asyncio.current_task())

    task = asyncio.create_task(serve())
    await asyncio.sleep(0.01)
    return call, task


def test_the_oldest_are_given_up_where_too_many_are_slow():
    async def scenario():
        receiving = make(slow_max=2)
        calls = [await begin(receiving) for _ in range(4)]
        await asyncio.sleep(3)
        for _, task in calls[:2]:
            with pytest.raises(Refusal) as caught:
                await task
            assert caught.value.reason is Reason.OVERLOADED
        for call, task in calls[2:]:
            assert not task.done()
            call.arrived.set_result("request")
            assert await task == "request"

    simulate(scenario(), 0)


def test_a_few_slow_ones_have_a_minute():
    async def scenario():
        receiving = make(slow_max=2)
        _, task = await begin(receiving)
        await asyncio.sleep(50)
        assert not task.done()
        await asyncio.sleep(15)
        with pytest.raises(Refusal):
            await task

    simulate(scenario(), 0)


def test_a_call_that_is_cancelled_from_outside_is_cancelled():
    async def scenario():
        receiving = make(slow_max=2)
        _, task = await begin(receiving)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    simulate(scenario(), 0)


def test_a_call_without_a_request_is_refused():
    async def scenario():
        receiving = make(slow_max=2)
        call, task = await begin(receiving)
        call.arrived.set_result(grpc.aio.EOF)
        with pytest.raises(Refusal) as caught:
            await task
        assert caught.value.reason is Reason.INVALID_REQUEST

    simulate(scenario(), 0)


def test_bytes_that_are_no_message_are_refused_in_our_words():
    def parse(data):
        raise DecodeError("no")

    with pytest.raises(Refusal) as caught:
        checked("/a/b", parse)(b"xyz")
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert "3 bytes to /a/b" in caught.value.message
