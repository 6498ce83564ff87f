"""What a broker serves to the gateways of others: appends, readers, and single questions."""

from __future__ import annotations

from typing import Any, Final

import grpc

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.peer import greeting
from riverrun_server.peer.forward_service import ForwardService, with_hint
from riverrun_server.peer.gateway_messages import check_hops, failure_to_wire, led_from_wire
from riverrun_server.peer.greeting import Context
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.read_service import ReadService
from riverrun_server.peer.v1 import gateway_pb2 as wire
from riverrun_server.ports.gateways import Led, ServedHere

SERVICE: Final = "riverrun_server.peer.v1.GatewayService"


class GatewayService:
    """Serves riverrun_server.peer.v1.GatewayService.

    Args:
        myself: introduces this broker.
        served: finds what is led here; nothing else is served, so nothing is passed on twice.
    """

    def __init__(self, myself: Myself, served: ServedHere) -> None:
        self._myself = myself
        self._served = served
        self._forwards = ForwardService(myself, served)
        self._reads = ReadService(myself, served)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service's methods."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Forward": grpc.stream_stream_rpc_method_handler(
                self._forwards.forward,
                wire.ForwardRequest.FromString,
                wire.ForwardResponse.SerializeToString,
            ),
            "Read": grpc.stream_stream_rpc_method_handler(
                self._reads.read,
                wire.ReadRequest.FromString,
                wire.ReadResponse.SerializeToString,
            ),
            "Watermarks": grpc.unary_unary_rpc_method_handler(
                self.watermarks,
                wire.WatermarksRequest.FromString,
                wire.WatermarksResponse.SerializeToString,
            ),
            "OffsetAtTime": grpc.unary_unary_rpc_method_handler(
                self.offset_at_time,
                wire.OffsetAtTimeRequest.FromString,
                wire.OffsetAtTimeResponse.SerializeToString,
            ),
            "Trim": grpc.unary_unary_rpc_method_handler(
                self.trim, wire.TrimRequest.FromString, wire.TrimResponse.SerializeToString
            ),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def close(self) -> None:
        """End the streams of appends; the others end with the server."""
        self._forwards.close()

    async def watermarks(
        self, request: wire.WatermarksRequest, context: Context
    ) -> wire.WatermarksResponse:
        """Tell the offsets of many partitions."""
        await greeting.check(context, self._myself, request.hello)
        response = wire.WatermarksResponse()
        for each in request.partitions:
            told = response.partitions.add()
            led = await self._led(each, context)
            try:
                check_hops(request.origin)
                marks = await self._served.led(led).watermarks()
            except Refusal as refusal:
                told.failure.CopyFrom(self._failure(led, refusal))
                continue
            told.log_start_offset = marks.log_start_offset
            told.high_watermark = marks.high_watermark
            told.log_end_offset = marks.log_end_offset
            told.leader_epoch = marks.leader_epoch
            told.size_bytes = marks.size_bytes
            told.lags.extend(
                wire.FollowerLag(broker_id=broker, lag=lag) for broker, lag in marks.lags.items()
            )
        return response

    async def offset_at_time(
        self, request: wire.OffsetAtTimeRequest, context: Context
    ) -> wire.OffsetAtTimeResponse:
        """Find an offset."""
        await greeting.check(context, self._myself, request.hello)
        led = await self._led(request.led, context)
        try:
            check_hops(request.origin)
            found = await self._served.led(led).offset_at_time(request.time_ms)
        except Refusal as refusal:
            return wire.OffsetAtTimeResponse(failure=self._failure(led, refusal))
        if found is None:
            return wire.OffsetAtTimeResponse()
        return wire.OffsetAtTimeResponse(offset=found[0], timestamp_ms=found[1])

    async def trim(self, request: wire.TrimRequest, context: Context) -> wire.TrimResponse:
        """Delete records."""
        await greeting.check(context, self._myself, request.hello)
        led = await self._led(request.led, context)
        try:
            check_hops(request.origin)
            log_start = await self._served.led(led).trim(request.before_offset)
        except Refusal as refusal:
            return wire.TrimResponse(failure=self._failure(led, refusal))
        return wire.TrimResponse(log_start_offset=log_start)

    async def _led(self, led: wire.Led, context: Context) -> Led:
        try:
            return led_from_wire(led)
        except InvalidMessage as invalid:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(invalid))
        raise AssertionError("unreachable: abort returned")

    def _failure(self, led: Led, refusal: Refusal) -> wire.Failure:
        if refusal.reason is Reason.NOT_LEADER and refusal.leader is None:
            refusal = with_hint(self._served, led, refusal)
        return failure_to_wire(refusal)
