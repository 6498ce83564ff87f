"""Where a call may have done its work, its error does not say that nothing happened."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

import riverrun
from riverrun.v1 import admin_pb2_grpc, metadata_pb2_grpc
from tests.client.fake_broker import FakeAdminService, FakeBroker, FakeMetadataService, impatient

# With these a server, or gRPC before it, refuses what it was asked; none of ours is among them
# without an Error of its own.
REFUSING = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
}
OTHERS = [code for code in grpc.StatusCode if code not in {*REFUSING, grpc.StatusCode.OK}]


class DoesItThenFails(FakeAdminService):
    """Adds the partitions that were asked for, and then never says so."""

    def __init__(self, broker, fail):
        super().__init__(broker)
        self._fail = fail

    async def AddPartitions(self, request, context):  # noqa: N802
        answer = await super().AddPartitions(request, context)
        await self._fail(context)
        return answer


@asynccontextmanager
async def serving(broker, fail):
    """Serve calls about topics; yield the server with its address."""
    server = grpc.aio.server()
    metadata_pb2_grpc.add_MetadataServiceServicer_to_server(FakeMetadataService(broker), server)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(DoesItThenFails(broker, fail), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=None)


async def error_of(broker, address, **settings):
    """Return what the client says of the call, which has done its work."""
    async with impatient(address, **settings) as client:
        with pytest.raises(riverrun.RiverrunError) as caught:
            await client.admin().add_partitions("t", 3)
    assert len(broker.topics["t"].partitions) == 3
    return caught.value


@pytest.fixture
def broker():
    made = FakeBroker()
    made.add_topic("t")
    return made


@pytest.mark.parametrize("code", OTHERS, ids=lambda code: code.name)
async def test_a_status_that_tells_nothing_leaves_the_outcome_open(broker, code):
    async def fail(context):
        await context.abort(code, "somebody on the way says so")

    async with serving(broker, fail) as (_, address):
        error = await error_of(broker, address)
    assert not error.outcome_known


async def test_an_answer_that_does_not_come_leaves_the_outcome_open(broker):
    async def fail(_):
        await asyncio.Event().wait()

    async with serving(broker, fail) as (_, address):
        error = await error_of(broker, address, request_timeout_s=0.3)
    assert isinstance(error, riverrun.TimedOutError)
    assert not error.outcome_known


async def test_a_broker_that_dies_over_a_call_leaves_the_outcome_open(broker):
    done = asyncio.Event()

    async def fail(_):
        done.set()
        await asyncio.Event().wait()

    async with serving(broker, fail) as (server, address):
        asking = asyncio.create_task(error_of(broker, address))
        await done.wait()
        await server.stop(grace=None)
        assert not (await asking).outcome_known


async def test_an_answer_that_is_too_large_for_grpc_leaves_the_outcome_open(broker):
    # gRPC's own RESOURCE_EXHAUSTED, made where the answer arrives: the work has been done.
    broker.topics["t"].configs["text"] = "x" * (17 << 20)

    async def answer(_):
        pass

    async with serving(broker, answer) as (_, address):
        error = await error_of(broker, address)
    assert "RESOURCE_EXHAUSTED" in error.message
    assert not error.outcome_known
