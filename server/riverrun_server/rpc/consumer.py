"""ConsumerService: reading in streams and single calls, and the offsets of groups.

What its methods raise is answered by the admission that stands around every call.
"""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from riverrun.v1 import consumer_pb2
from riverrun_server.rpc.fetch import Fetcher
from riverrun_server.rpc.offsets import OffsetCalls
from riverrun_server.rpc.reading_plans import read_plan
from riverrun_server.rpc.streams import Streams
from riverrun_server.rpc.subscribe import subscribe

SERVICE = "riverrun.v1.ConsumerService"

_Context = grpc.aio.ServicerContext[Any, Any]


class ConsumerService:
    """Serves riverrun.v1.ConsumerService.

    Args:
        streams: runs the streams.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._services = streams.services
        self._fetcher = Fetcher(streams.services)
        self._offsets = OffsetCalls(streams.services, streams.members.coordination)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service's methods; what carries records comes serialised already."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Subscribe": grpc.stream_stream_rpc_method_handler(
                    self.subscribe, consumer_pb2.SubscribeRequest.FromString, bytes
                ),
                "Read": grpc.unary_stream_rpc_method_handler(
                    self.read, consumer_pb2.ReadRequest.FromString, bytes
                ),
                "Fetch": grpc.unary_unary_rpc_method_handler(
                    self.fetch, consumer_pb2.FetchRequest.FromString, bytes
                ),
                "CommitOffset": grpc.unary_unary_rpc_method_handler(
                    self.commit_offset,
                    consumer_pb2.CommitOffsetRequest.FromString,
                    consumer_pb2.CommitOffsetResponse.SerializeToString,
                ),
                "LeaveGroup": grpc.unary_unary_rpc_method_handler(
                    self.leave_group,
                    consumer_pb2.LeaveGroupRequest.FromString,
                    consumer_pb2.LeaveGroupResponse.SerializeToString,
                ),
                "FetchOffsets": grpc.unary_unary_rpc_method_handler(
                    self.fetch_offsets,
                    consumer_pb2.FetchOffsetsRequest.FromString,
                    consumer_pb2.FetchOffsetsResponse.SerializeToString,
                ),
                "ListOffsets": grpc.unary_unary_rpc_method_handler(
                    self.list_offsets,
                    consumer_pb2.ListOffsetsRequest.FromString,
                    consumer_pb2.ListOffsetsResponse.SerializeToString,
                ),
            },
        )

    async def subscribe(self, _: object, context: _Context) -> None:
        """Deliver under the reader's control."""
        await subscribe(context, self._streams)

    async def read(self, request: consumer_pb2.ReadRequest, context: _Context) -> None:
        """Deliver without control."""
        plan = read_plan(request, self._services.directory, self._services.limits)
        await self._streams.deliver(plan, context.write)

    async def fetch(self, request: consumer_pb2.FetchRequest, _: _Context) -> bytes:
        """Read once."""
        return await self._fetcher.fetch(request)

    async def commit_offset(
        self, request: consumer_pb2.CommitOffsetRequest, _: _Context
    ) -> consumer_pb2.CommitOffsetResponse:
        """Store how far a group has come."""
        return await self._offsets.commit(request)

    async def leave_group(
        self, request: consumer_pb2.LeaveGroupRequest, _: _Context
    ) -> consumer_pb2.LeaveGroupResponse:
        """Let a member go."""
        return await self._offsets.leave(request)

    async def fetch_offsets(
        self, request: consumer_pb2.FetchOffsetsRequest, _: _Context
    ) -> consumer_pb2.FetchOffsetsResponse:
        """Tell how far a group has come."""
        return await self._offsets.fetch(request)

    async def list_offsets(
        self, request: consumer_pb2.ListOffsetsRequest, _: _Context
    ) -> consumer_pb2.ListOffsetsResponse:
        """Find offsets."""
        return await self._offsets.find(request)
