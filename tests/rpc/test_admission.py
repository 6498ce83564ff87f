"""Every call is counted, capped, attributed and answered for, and no message is touched."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from riverrun.v1 import consumer_pb2 as c
from riverrun.v1 import consumer_pb2_grpc
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.observe.metrics import Metrics
from riverrun_server.rpc.admission import Admission, Caps
from riverrun_server.rpc.caller import CALLER, Caller
from riverrun_server.rpc.listener import Address, Listener
from riverrun_server.rpc.server import ListenerServer, ServerOptions, Service, ServingStatus

OPTIONS = ServerOptions(
    max_request_bytes=4 << 20,
    max_frame_bytes=4 << 20,
    max_connections=1000,
    max_streams_per_connection=1000,
    keepalive_time_s=30,
    keepalive_timeout_s=10,
    min_client_ping_interval_s=5,
)
NAME = "riverrun.v1.ConsumerService"
LOOPBACK = Address("127.0.0.1", 0)


class Consumer(consumer_pb2_grpc.ConsumerServiceServicer):
    """One handler of each shape, held until let go."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.entered = asyncio.Semaphore(0)
        self.go = asyncio.Event()
        self.raises: Exception | None = None
        self.closed = 0

    async def _hold(self) -> None:
        self.callers.append(CALLER.get())
        self.entered.release()
        await self.go.wait()
        if self.raises:
            raise self.raises

    async def Fetch(self, request, context):  # noqa: N802
        await self._hold()
        return c.FetchResponse()

    async def Read(self, request, context):  # noqa: N802
        try:
            yield c.ReadResponse()
            await self._hold()
            yield c.ReadResponse()
        finally:
            self.closed += 1

    async def Subscribe(self, requests, context):  # noqa: N802
        async for _ in requests:
            await context.write(c.SubscribeResponse())
        await self._hold()


class Rig:
    def __init__(self, consumer: Consumer, caps: Caps) -> None:
        self.consumer = consumer
        self.metrics = Metrics(process=False)
        self.admission = Admission(caps, self.metrics)
        add = partial(consumer_pb2_grpc.add_ConsumerServiceServicer_to_server, consumer)
        services = [Service(NAME, add)]
        self.status = ServingStatus(services)
        self.server = ListenerServer(
            Listener(name="inside", bind=LOOPBACK, advertised=LOOPBACK),
            services,
            options=OPTIONS,
            admission=self.admission,
            status=self.status,
            reflects=False,
        )

    def channel(self) -> grpc.aio.Channel:
        # Channels of one process would share one connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.insecure_channel(str(self.server.listener.bind), options=options)

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def ended(self, method: str, code: str) -> float:
        return self.value(
            "riverrun_rpc_calls_total", listener="inside", method=f"{NAME}/{method}", code=code
        )

    def open(self, method: str) -> float:
        return self.value("riverrun_rpc_streams", listener="inside", method=f"{NAME}/{method}")


@pytest.fixture
async def serve():
    async with contextlib.AsyncExitStack() as stack:

        async def start(per_connection=100, per_principal=100, calls=100) -> Rig:
            rig = Rig(Consumer(), Caps(per_connection, per_principal, calls))
            await rig.server.start()
            stack.push_async_callback(rig.server.stop, 0)
            return rig

        yield start


def stub(channel: grpc.aio.Channel) -> consumer_pb2_grpc.ConsumerServiceStub:
    return consumer_pb2_grpc.ConsumerServiceStub(channel)


async def refused(call, code: grpc.StatusCode) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code
    return caught.value.details()


async def until(condition) -> None:
    """Let the loop run until the server has done what a client cannot see."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a metric sets no event
            await asyncio.sleep(0)


async def test_a_handler_knows_who_calls(serve):
    rig = await serve()
    rig.consumer.go.set()
    async with rig.channel() as channel:
        await stub(channel).Fetch(c.FetchRequest())
        async for _ in stub(channel).Read(c.ReadRequest()):
            pass
    first, second = rig.consumer.callers
    assert (first.principal, first.listener) == ("anonymous", "inside")
    assert first.peer.startswith("ipv4:127.0.0.1:")
    assert second.peer == first.peer


async def test_calls_are_counted_under_the_code_they_end_with(serve):
    rig = await serve()
    consumer = rig.consumer
    consumer.go.set()
    async with rig.channel() as channel:
        await stub(channel).Fetch(c.FetchRequest())
        consumer.raises = Refusal(Reason.OFFSET_OUT_OF_RANGE, "no such offset")
        await refused(stub(channel).Fetch(c.FetchRequest()), grpc.StatusCode.OUT_OF_RANGE)
        consumer.raises = ZeroDivisionError()
        await refused(stub(channel).Fetch(c.FetchRequest()), grpc.StatusCode.INTERNAL)
        await refused(stub(channel).ListOffsets(c.ListOffsetsRequest()), grpc.StatusCode.INTERNAL)
    assert rig.ended("Fetch", "OK") == 1
    assert rig.ended("Fetch", "OUT_OF_RANGE") == 1
    assert rig.ended("Fetch", "INTERNAL") == 1
    assert rig.value("riverrun_rpc_seconds_count", method=f"{NAME}/Fetch") == 3


@pytest.mark.parametrize("method", ["Read", "Subscribe"])
async def test_a_stream_is_counted_while_open_and_when_its_client_goes(serve, method):
    rig = await serve()
    async with rig.channel() as channel:
        call = (
            stub(channel).Read(c.ReadRequest())
            if method == "Read"
            else stub(channel).Subscribe(iter([c.SubscribeRequest()]))
        )
        await call.read()
        await rig.consumer.entered.acquire()
        assert rig.open(method) == 1
        call.cancel()
        await until(lambda: rig.ended(method, "CANCELLED") == 1)
    assert rig.open(method) == 0
    assert rig.consumer.closed == (method == "Read")
    # And its places are free again.
    assert not rig.admission._by_connection
    assert not rig.admission._by_principal


async def test_both_shapes_of_stream_deliver_every_message_and_end_well(serve):
    rig = await serve()
    rig.consumer.go.set()
    async with rig.channel() as channel:
        assert len([m async for m in stub(channel).Read(c.ReadRequest())]) == 2
        requests = iter([c.SubscribeRequest()] * 3)
        assert len([m async for m in stub(channel).Subscribe(requests)]) == 3
    assert rig.ended("Read", "OK") == 1
    assert rig.ended("Subscribe", "OK") == 1


async def test_a_refusal_in_the_middle_of_a_stream_ends_it_with_its_status(serve):
    rig = await serve()
    rig.consumer.go.set()
    rig.consumer.raises = Refusal(Reason.CORRUPT_DATA, "damaged")
    async with rig.channel() as channel:
        call = stub(channel).Read(c.ReadRequest())
        assert await call.read() == c.ReadResponse()
        assert await refused(call.read(), grpc.StatusCode.DATA_LOSS) == "damaged"


async def test_streams_of_one_connection_are_capped_and_others_are_not_affected(serve):
    rig = await serve(per_connection=2)
    async with rig.channel() as channel, rig.channel() as other:
        calls = [stub(channel).Read(c.ReadRequest()) for _ in range(2)]
        for call in calls:
            await call.read()
        text = await refused(
            stub(channel).Read(c.ReadRequest()).read(), grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        assert "holds 2 streams open and limits.max_streams_per_connection is 2" in text
        assert await stub(other).Read(c.ReadRequest()).read() == c.ReadResponse()
        calls[0].cancel()
        await until(lambda: rig.ended("Read", "CANCELLED") == 1)
        assert await stub(channel).Read(c.ReadRequest()).read() == c.ReadResponse()
    assert rig.value("riverrun_limit_reached_total", limit="max_streams_per_connection") == 1


async def test_streams_of_one_principal_are_capped_over_all_connections(serve):
    rig = await serve(per_principal=1)
    async with rig.channel() as channel, rig.channel() as other:
        first = stub(channel).Read(c.ReadRequest())
        await first.read()
        text = await refused(
            stub(other).Read(c.ReadRequest()).read(), grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        assert "principal 'anonymous' holds 1 streams" in text


async def test_unary_calls_are_capped_and_the_refusal_may_be_retried(serve):
    rig = await serve(calls=1)
    async with rig.channel() as channel:
        first = stub(channel).Fetch(c.FetchRequest())
        await rig.consumer.entered.acquire()
        text = await refused(
            stub(channel).Fetch(c.FetchRequest()), grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        assert "1 calls are under way and limits.max_calls is 1" in text
        rig.consumer.go.set()
        await first
        await stub(channel).Fetch(c.FetchRequest())


async def test_while_draining_new_calls_are_refused_and_old_ones_go_on(serve):
    rig = await serve()
    async with rig.channel() as channel:
        old = stub(channel).Fetch(c.FetchRequest())
        await rig.consumer.entered.acquire()
        rig.admission.drain()
        for call in (
            stub(channel).Fetch(c.FetchRequest()),
            stub(channel).Read(c.ReadRequest()).read(),
        ):
            text = await refused(call, grpc.StatusCode.UNAVAILABLE)
            assert "took nothing" in text
        rig.consumer.go.set()
        assert await old == c.FetchResponse()


async def test_health_is_told_while_draining(serve):
    rig = await serve()
    await rig.status.serving()
    request = health_pb2.HealthCheckRequest(service=NAME)
    async with rig.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        rig.admission.drain()
        await rig.status.draining()
        answer = await health.Check(request)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_method_that_is_not_there_is_unimplemented_and_leaves_no_metric(serve):
    rig = await serve()
    async with rig.channel() as channel:
        call = channel.unary_unary("/riverrun.v1.ConsumerService/Nonsense")
        await refused(call(b""), grpc.StatusCode.UNIMPLEMENTED)
    names = [
        s.name for f in rig.metrics.registry.collect() for s in f.samples if "Nonsense" in str(s)
    ]
    assert not names
