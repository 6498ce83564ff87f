"""A lease on an etcd of which one member hangs."""

from __future__ import annotations

import asyncio
import contextlib
import time

import grpc.aio

from riverrun_server.metadata.etcd.options import EtcdOptions
from riverrun_server.metadata.etcd.store import EtcdStore
from riverrun_server.metadata.etcd.v3 import rpc_pb2 as pb
from riverrun_server.metadata.etcd.v3 import rpc_pb2_grpc as stubs
from riverrun_server.runtime.lease_keeper import LeaseKeeper
from tests.metadata.fakes import SeededDice


class Member(stubs.LeaseServicer):
    """Knows any lease; once it hangs, its kernel and gRPC's go on, and it answers nothing."""

    def __init__(self):
        self.hangs = False
        self.renewed = 0

    async def LeaseGrant(self, request, context):  # noqa: N802
        self.granted = True
        return pb.LeaseGrantResponse(
            header=pb.ResponseHeader(cluster_id=1, revision=1), ID=7, TTL=1
        )

    async def LeaseKeepAlive(self, requests, context):  # noqa: N802
        async for _ in requests:
            if self.hangs:
                await asyncio.sleep(3600)
            self.renewed += 1
            yield pb.LeaseKeepAliveResponse(header=pb.ResponseHeader(cluster_id=1), ID=7, TTL=1)


class Clock:
    def monotonic(self):
        return time.monotonic()


async def test_a_lease_is_renewed_at_another_member_when_one_hangs():
    async with contextlib.AsyncExitStack() as stack:
        members, addresses = [], []
        for _ in range(2):
            server = grpc.aio.server()
            member = Member()
            stubs.add_LeaseServicer_to_server(member, server)
            addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            await server.start()
            stack.push_async_callback(server.stop, None)
            members.append(member)
        options = EtcdOptions(tuple(addresses), "/r/")
        store = await stack.enter_async_context(EtcdStore(options, SeededDice()))
        keeper = LeaseKeeper(store, Clock(), 1.0, 0.1)
        await keeper.acquire()
        running = asyncio.create_task(keeper.run())
        await asyncio.sleep(1.2)
        assert keeper.holds
        asked = max(members, key=lambda each: each.renewed)
        asked.hangs = True
        (other,) = [each for each in members if each is not asked]
        await asyncio.sleep(4)
        running.cancel()
        await asyncio.wait([running])
        assert other.renewed > 0, "the lease has ended four times, and the other was never asked"
