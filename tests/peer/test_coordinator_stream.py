"""Calls to a coordinator: beats go before all others, and are never refused for their number."""

from __future__ import annotations

import contextlib

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.peer.coordination import UNDER_WAY_MAX
from riverrun_server.peer.coordinator_stream import SENT_MAX, UNANSWERED_MAX, CoordinatorStream
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.v1.coordination_pb2 import CoordinatorCall


def beat():
    call = CoordinatorCall()
    call.beat.SetInParent()
    return call


def commit():
    call = CoordinatorCall()
    call.store.SetInParent()
    return call


@contextlib.asynccontextmanager
async def asking():
    """Open a stream to where nobody listens, which sends nothing."""
    stream = CoordinatorStream(2, "127.0.0.1:1", Myself("cluster", 1, 1, lambda: 0))
    try:
        yield stream
    finally:
        await stream.close()


async def test_a_beat_goes_before_what_was_asked_before():
    async with asking() as stream:
        stream.ask(commit(), 10)
        stream.ask(beat(), 10)
        assert stream._next().call.HasField("beat")
        assert stream._next().call.HasField("store")
        assert stream._next() is None


async def test_so_few_calls_are_sent_that_the_coordinator_always_reads_beats():
    async with asking() as stream:
        for _ in range(SENT_MAX + 1):
            stream.ask(commit(), 10)
        for _ in range(SENT_MAX):
            asked = stream._next()
            stream._sent[asked.call.call_id] = asked
        assert stream._next() is None
        stream.ask(beat(), 10)
        assert stream._next().call.HasField("beat")
    assert UNDER_WAY_MAX > SENT_MAX


async def test_a_beat_is_taken_where_no_other_call_is():
    async with asking() as stream:
        for _ in range(UNANSWERED_MAX):
            stream.ask(commit(), 10)
        with pytest.raises(Refusal) as caught:
            stream.ask(commit(), 10)
        assert caught.value.reason is Reason.OVERLOADED
        stream.ask(beat(), 10)
