"""A real server on a port of its own, in front of a real catalog on a disk in memory."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import asynccontextmanager

import grpc
import grpc.aio
from grpc_status import rpc_status

from riverrun.v1 import admin_pb2_grpc, errors_pb2, metadata_pb2_grpc
from riverrun_server.observe.metrics import Metrics
from riverrun_server.rpc.admin import SERVICE as ADMIN
from riverrun_server.rpc.admin import AdminService
from riverrun_server.rpc.admission import Admission, Caps
from riverrun_server.rpc.listener import Address, Listener
from riverrun_server.rpc.metadata import SERVICE as METADATA
from riverrun_server.rpc.metadata import MetadataService, ServerDescription
from riverrun_server.rpc.server import ListenerServer, ServerOptions, Service, ServingStatus
from tests.runtime.catalog_world import CatalogWorld


class Served:
    """What a test gets: the stubs, and everything behind them."""

    def __init__(self, world, catalog, channel, draining):
        self.world = world
        self.catalog = catalog
        self.admin = admin_pb2_grpc.AdminServiceStub(channel)
        self.metadata = metadata_pb2_grpc.MetadataServiceStub(channel)
        self.draining = draining


@asynccontextmanager
async def served(world=None, listener="clients", lives=None, run=True, gate=None):
    world = world or CatalogWorld()
    draining = asyncio.Event()
    async with world.started(**({"lives": lives} if lives else {})) as started:
        catalog = started if run else type(started)(started._services)
        admin = AdminService(catalog)
        metadata = MetadataService(
            catalog, ServerDescription("1.2.3", ["x"]), world.clock, draining, gate=gate
        )
        services = [
            Service(name, lambda server, it=it: server.add_generic_rpc_handlers([it.handler()]))
            for name, it in ((ADMIN, admin), (METADATA, metadata))
        ]
        address = Address.parse("127.0.0.1:0")
        server = ListenerServer(
            Listener(name=listener, bind=address, advertised=address),
            services,
            options=ServerOptions(4 << 20, 4 << 20, 1000, 100, 30, 10, 5),
            admission=Admission(Caps(100, 100, 100), Metrics(process=False)),
            status=ServingStatus(services),
            reflects=False,
        )
        await server.start()
        try:
            async with grpc.aio.insecure_channel(str(server.listener.advertised)) as channel:
                yield Served(world, catalog, channel, draining)
        finally:
            await server.stop(0)


@dataclasses.dataclass
class Failed:
    code: grpc.StatusCode
    error: errors_pb2.Error


async def failed(call):
    """Return why a call failed."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        detail = errors_pb2.Error()
        assert status.details[0].Unpack(detail)
        return Failed(error.code(), detail)
    raise AssertionError("the call succeeded")
