"""Reading and writing one stream at once, and who may do so for a broker."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from riverrun_server.peer.both_ways import both_ways
from riverrun_server.peer.greeting import Processes
from riverrun_server.peer.hello import Myself


async def ends():
    """End at once."""


async def fails():
    raise ValueError("a bug")


class Goes:
    """What goes on until it is stopped."""

    def __init__(self):
        self.stopped = False

    async def on(self):
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped = True


async def test_neither_goes_on_when_the_other_has_ended():
    for first in (True, False):
        other = Goes()
        pair = (ends(), other.on()) if first else (other.on(), ends())
        assert await both_ways(*pair) is None
        assert other.stopped


async def test_what_reading_met_is_raised_and_what_writing_met_is_returned():
    with pytest.raises(ValueError, match="a bug"):
        await both_ways(fails(), Goes().on())
    error = await both_ways(Goes().on(), fails())
    assert isinstance(error, ValueError)


async def test_a_writer_that_was_cancelled_by_its_call_cancels_nobody():
    async def cancelled():
        raise asyncio.CancelledError

    assert await both_ways(Goes().on(), cancelled()) is None


class Ended(Exception):
    pass


class Context:
    async def abort(self, code, text):
        raise Ended(code, text)


def process(broker, epoch):
    return Myself("here", broker, epoch, lambda: 5).hello()


async def test_the_newest_process_of_each_broker_is_admitted_as_often_as_it_comes():
    processes, me = Processes(), Myself("here", 1, 100, lambda: 5)
    for hello in (process(2, 7), process(3, 1), process(2, 7), process(2, 9)):
        await processes.admit(Context(), me, hello)
    with pytest.raises(Ended, match="has been here as process 9, and this is process 7") as ended:
        await processes.admit(Context(), me, process(2, 7))
    assert ended.value.args[0] is grpc.StatusCode.FAILED_PRECONDITION
    await processes.admit(Context(), me, process(2, 9))
