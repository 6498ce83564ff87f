"""A listener's server: its port, its bounds, its health and whether it describes itself."""

from __future__ import annotations

import asyncio
import dataclasses
from functools import partial

import grpc
import grpc.aio
import pytest
from google.protobuf.internal import api_implementation
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import given
from hypothesis import strategies as st

from riverrun.v1 import metadata_pb2 as m
from riverrun.v1 import metadata_pb2_grpc
from riverrun_server.observe.metrics import Metrics
from riverrun_server.rpc import reflection
from riverrun_server.rpc.admission import Admission, Caps
from riverrun_server.rpc.listener import Address, Listener
from riverrun_server.rpc.server import (
    ListenerServer,
    ServerOptions,
    Service,
    ServingStatus,
    connection_shares,
)
from riverrun_server.runtime.supervisor import CannotStart

NAME = "riverrun.v1.MetadataService"
OPTIONS = ServerOptions(
    max_request_bytes=1 << 20,
    max_frame_bytes=1 << 20,
    max_connections=1000,
    max_streams_per_connection=10,
    keepalive_time_s=30,
    keepalive_timeout_s=10,
    min_client_ping_interval_s=5,
)


class Metadata(metadata_pb2_grpc.MetadataServiceServicer):
    def __init__(self) -> None:
        self.answer = m.GetMetadataResponse()
        self.stopped = asyncio.Event()

    async def GetMetadata(self, request, context):  # noqa: N802
        return self.answer

    async def WatchMetadata(self, request, context):  # noqa: N802
        try:
            yield m.WatchMetadataResponse()
            await asyncio.Event().wait()
        finally:
            self.stopped.set()


def build(bind="127.0.0.1:0", *, metadata=None, reflects=False, options=OPTIONS):
    add = metadata_pb2_grpc.add_MetadataServiceServicer_to_server
    services = [Service(NAME, partial(add, metadata or Metadata()))]
    status = ServingStatus(services)
    address = Address.parse(bind)
    server = ListenerServer(
        Listener(bind=address, advertised=address),
        services,
        options=options,
        admission=Admission(Caps(10, 10, 10), Metrics(process=False)),
        status=status,
        reflects=reflects,
    )
    return server, status


def channel_to(server: ListenerServer) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(str(server.listener.advertised))


async def test_the_port_that_the_system_chose_is_told():
    server, _ = build()
    assert server.listener.bind.port > 0
    assert server.listener.advertised == server.listener.bind
    await server.stop(0)


async def test_a_port_in_use_is_said_in_one_line():
    first, _ = build()
    with pytest.raises(CannotStart) as caught:
        build(str(first.listener.bind))
    assert str(caught.value).startswith(
        f"listener 'clients' cannot listen on {first.listener.bind}: Address already in use; "
        "is another broker running?"
    )
    await first.stop(0)


async def test_an_address_of_another_machine_is_said_in_one_line():
    with pytest.raises(CannotStart, match=r"192\.0\.2\.1:0: Cannot assign requested"):
        build("192.0.2.1:0")


async def test_health_follows_the_broker(monkeypatch):
    server, status = build()
    await status.starting()
    await server.start()
    responses = health_pb2.HealthCheckResponse
    async with channel_to(server) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        async def told(name: str) -> int:
            return (await health.Check(health_pb2.HealthCheckRequest(service=name))).status

        assert await told(NAME) == await told("") == responses.NOT_SERVING
        await status.serving()
        assert await told(NAME) == await told("") == responses.SERVING
        await status.draining()
        await status.serving()
        assert await told(NAME) == await told("") == responses.NOT_SERVING
    await server.stop(0)


async def test_a_port_can_be_bound_before_there_are_services():
    address = Address("127.0.0.1", 0)
    status = ServingStatus()
    server = ListenerServer(
        Listener(bind=address, advertised=address),
        options=OPTIONS,
        admission=Admission(Caps(10, 10, 10), Metrics(process=False)),
        status=status,
        reflects=False,
    )
    assert server.listener.bind.port > 0
    add = partial(metadata_pb2_grpc.add_MetadataServiceServicer_to_server, Metadata())
    server.add([Service(NAME, add)])
    status.add([Service(NAME, add)])
    await server.start()
    await status.serving()
    async with channel_to(server) as channel:
        await metadata_pb2_grpc.MetadataServiceStub(channel).GetMetadata(m.GetMetadataRequest())
        health = health_pb2_grpc.HealthStub(channel)
        told = await health.Check(health_pb2.HealthCheckRequest(service=NAME))
        assert told.status == health_pb2.HealthCheckResponse.SERVING
    await server.stop(0)


@pytest.mark.parametrize("name", [reflection.V1, reflection.V1ALPHA])
@pytest.mark.parametrize("reflects", [True, False])
async def test_reflection_follows_the_policy(reflects, name):
    server, _ = build(reflects=reflects)
    await server.start()
    async with channel_to(server) as channel:
        ask = channel.stream_stream(
            f"/{name}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        call = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        if reflects:
            listed = (await call.read()).list_services_response.service
            assert {NAME, "grpc.health.v1.Health", name} <= {one.name for one in listed}
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(0)


async def test_a_message_over_the_bound_is_refused_also_when_compression_hides_its_size():
    server, _ = build()
    await server.start()
    bomb = m.GetMetadataRequest(topics=["x" * (64 << 20)])
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        async with channel_to(server) as channel:
            stub = metadata_pb2_grpc.MetadataServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetMetadata(bomb, compression=compression)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            small = m.GetMetadataRequest(topics=["x" * (1 << 20)])
            await stub.GetMetadata(small)  # the broker's own bound leaves room for an envelope
    await server.stop(0)


async def test_a_stop_waits_for_streams_and_ends_them_when_the_grace_is_over():
    metadata = Metadata()
    server, _ = build(metadata=metadata)
    await server.start()
    async with channel_to(server) as channel:
        call = metadata_pb2_grpc.MetadataServiceStub(channel).WatchMetadata(
            m.WatchMetadataRequest()
        )
        await call.read()
        await server.stop(0.05)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    async with asyncio.timeout(10):
        await metadata.stopped.wait()


def test_keepalive_lets_our_own_clients_ping():
    options = dict(OPTIONS.as_grpc())
    assert options["grpc.http2.min_ping_interval_without_data_ms"] < 10_000
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.so_reuseport"] == 0


async def test_another_protobuf_backend_is_refused(monkeypatch):
    monkeypatch.setattr(api_implementation, "Type", lambda: "python")
    with pytest.raises(CannotStart, match="runs on 'python', expected 'upb'"):
        build()


async def test_a_ping_flood_is_told_to_go_away_and_others_are_served():
    options = dataclasses.replace(OPTIONS, min_client_ping_interval_s=600)
    server, _ = build(options=options)
    await server.start()
    flood = [
        ("grpc.keepalive_time_ms", 10),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    where = str(server.listener.bind)
    async with grpc.aio.insecure_channel(where, options=flood) as channel:
        call = metadata_pb2_grpc.MetadataServiceStub(channel).WatchMetadata(
            m.WatchMetadataRequest()
        )
        await call.read()
        with pytest.raises(grpc.aio.AioRpcError, match=r"(?i)too_many_pings|too many pings"):
            await call.read()
    async with channel_to(server) as channel:
        await metadata_pb2_grpc.MetadataServiceStub(channel).GetMetadata(m.GetMetadataRequest())
    await server.stop(0)


async def test_a_metadata_bomb_is_refused_and_the_connection_lives_on():
    server, _ = build()
    await server.start()
    async with channel_to(server) as channel:
        stub = metadata_pb2_grpc.MetadataServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetMetadata(m.GetMetadataRequest(), metadata=[("x-bomb", "x" * 100_000)])
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await stub.GetMetadata(m.GetMetadataRequest())
    await server.stop(0)


@given(st.integers(1, 20), st.integers(0, 20_000))
def test_the_process_has_so_many_connections_and_its_listeners_share_all_of_them(listeners, more):
    shares = connection_shares(listeners + more, listeners)
    assert len(shares) == listeners
    assert sum(shares) == listeners + more
    assert 1 <= min(shares) <= max(shares) <= min(shares) + 1
