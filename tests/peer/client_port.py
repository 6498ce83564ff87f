"""A broker's port for clients, before what it routes: the public services as they are."""

from __future__ import annotations

import asyncio
import contextlib

import grpc.aio

from riverrun.v1 import consumer_pb2_grpc, producer_pb2_grpc
from riverrun_server.core.admission import ByteBudget
from riverrun_server.core.limits import Limits
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.observe.metrics import Metrics
from riverrun_server.rpc.admission import Admission, Caps
from riverrun_server.rpc.appends import AppendRules
from riverrun_server.rpc.consumer import ConsumerService
from riverrun_server.rpc.door import Door
from riverrun_server.rpc.errors import to_proto
from riverrun_server.rpc.producer import ProducerService
from riverrun_server.rpc.streams import Streams
from riverrun_server.runtime.in_flight import InFlightBytes
from riverrun_server.runtime.members import Members
from riverrun_server.runtime.reader import ReadingServices
from tests.metadata.fakes import SeededDice
from tests.peer.cluster_of_replicas import NOW_MS
from tests.rpc.fake_partitions import InlineThreads


class Directory:
    """One topic of one partition."""

    def __init__(self, gateway):
        self._gateway = gateway

    def partition(self, _topic, _topic_id, _partition):
        return self._gateway.routed

    def partitions(self, _topic, _topic_id=b""):
        return [self._gateway.routed]

    def is_internal(self, _topic):
        return False


class Stubs:
    """What a client has of a broker."""

    def __init__(self, channel):
        self.producer = producer_pb2_grpc.ProducerServiceStub(channel)
        self.consumer = consumer_pb2_grpc.ConsumerServiceStub(channel)


@contextlib.asynccontextmanager
async def clients_of(gateway, *, heartbeat_s=3.0):
    """Serve clients at a broker; yield what one of them has."""
    directory, threads, draining = Directory(gateway), InlineThreads(), asyncio.Event()
    rules = AppendRules(directory, Limits(), lambda: NOW_MS, threads)
    in_flight = InFlightBytes(ByteBudget(64 << 20, 16 << 20))
    limits = ReadingLimits(heartbeat_interval_s=heartbeat_s)
    reading = ReadingServices(directory, None, threads, limits, to_proto, SeededDice())
    services = (
        ProducerService(rules, in_flight, None, draining, SeededDice()),
        ConsumerService(Streams(reading, Members(None, SeededDice()), draining)),
    )
    server = grpc.aio.server()
    door = Door(Admission(Caps(100, 100, 100), Metrics(process=False)), "clients")
    server.add_generic_rpc_handlers((door,))
    door.add_generic_rpc_handlers(tuple(service.handler() for service in services))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Stubs(channel)
    finally:
        await server.stop(None)
