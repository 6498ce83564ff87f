"""What a call leaves to the garbage collector: nothing large, and of a small call nothing of ours.

The collector looks seldom (runtime/process_memory), so what hangs in a circle is kept for long.
"""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from typing import ClassVar

import grpc
import grpc.aio
import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.observe.metrics import Metrics
from riverrun_server.rpc.admission import Admission, Caps
from riverrun_server.rpc.call_log import CallLog, CallLogRules
from riverrun_server.rpc.door import Door
from riverrun_server.rpc.errors import to_proto

CALLS = 5


class Request:
    """What a request becomes; it can be asked whether it is still there."""

    alive: ClassVar[weakref.WeakSet[Request]] = weakref.WeakSet()

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.alive.add(self)

    def ByteSize(self) -> int:  # noqa: N802 - as protobuf's messages have it
        return len(self.data)


def refused(request: Request) -> None:
    """Refuse as deep code does, because of another error."""
    try:
        int(request.data)
    except ValueError as error:
        raise Refusal(Reason.INVALID_REQUEST, "it makes no sense") from error


async def answer(_request, _context):
    return b"fine"


async def fail(request, _context):
    refused(request)


async def tell(request, _context):
    """Answer with an error in a part of the reply, as Produce does."""
    results = []
    try:
        refused(request)
    except Refusal as refusal:
        results.append(refusal)
    return to_proto(results[0]).SerializeToString()


@pytest.fixture
async def call():
    """Return what calls a method, with nobody collecting meanwhile."""
    metrics = Metrics(process=False)
    calls = CallLog(CallLogRules(), metrics, time.monotonic)
    admission = Admission(Caps(10, 10, 10), metrics, calls)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(do, Request, bytes)
        for name, do in {"Answer": answer, "Fail": fail, "Tell": tell}.items()
    }
    door = Door(admission, "inside")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((door,))
    door.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("some.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.collect()
    gc.disable()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield lambda name: channel.unary_unary(f"/some.Service/{name}")(b"data")
    finally:
        gc.enable()
        await server.stop(None)


async def ended() -> None:
    """Wait until the calls' tasks have ended; they do so behind their answers."""
    for _ in range(100):
        await asyncio.sleep(0.01)
        if not Request.alive:
            return


def contexts() -> list[object]:
    """Return what gRPC knows each call by, of all calls that are still there."""
    return [each for each in gc.get_objects() if type(each).__name__ == "_ServicerContext"]


@pytest.mark.parametrize("name", ["Answer", "Tell"])
async def test_of_an_answered_call_nothing_waits_for_the_collector(call, name):
    before = contexts()  # of other tests' calls; held, so that no later one is taken for them
    for _ in range(CALLS):
        await call(name)
    await ended()
    assert not Request.alive
    assert len(contexts()) - len(before) <= 1, "the newest may still be closing"


async def test_of_a_refused_call_the_request_does_not_wait_for_the_collector(call):
    for _ in range(CALLS):
        with pytest.raises(grpc.aio.AioRpcError, match="it makes no sense"):
            await call("Fail")
    await ended()
    assert not Request.alive
