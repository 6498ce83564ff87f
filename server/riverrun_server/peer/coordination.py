"""The coordinator's end of a gateway's stream: calls for groups in, in order, and their answers out."""

from __future__ import annotations

from typing import Final

import grpc
import grpc.aio
import structlog

from riverrun_server.peer import greeting
from riverrun_server.peer.greeting import Context
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.served_calls import ServedCalls
from riverrun_server.peer.v1.coordination_pb2 import (
    CoordinateRequest,
    CoordinateResponse,
)
from riverrun_server.ports.coordinators import Coordinating

SERVICE: Final = "riverrun_server.peer.v1.CoordinationService"

UNDER_WAY_MAX: Final = 1000
"""Calls of one gateway that a coordinator takes on at a time."""

_log = structlog.stdlib.get_logger(__name__)


class CoordinationService:
    """Serves riverrun_server.peer.v1.CoordinationService.

    Transitions of one gateway's stream: greeting -> open -> over; a newer stream of the same broker, not
    of an earlier process of it, ends the older one first, and nothing that is read from that later has an effect.

    Args:
        myself: introduces this broker.
        coordinator: of the groups whose offsets are kept here.

    Attributes:
        under_way_max: calls of one gateway that are not answered yet; those behind them are left in the
            stream.
    """

    def __init__(self, myself: Myself, coordinator: Coordinating) -> None:
        self._myself = myself
        self._coordinator = coordinator
        self._processes = greeting.Processes()
        self._streams: dict[int, ServedCalls] = {}
        self.under_way_max = UNDER_WAY_MAX

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service's methods."""
        coordinate = grpc.stream_stream_rpc_method_handler(
            self.coordinate,
            CoordinateRequest.FromString,
            CoordinateResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Coordinate": coordinate})

    def close(self) -> None:
        """End all streams."""
        for stream in self._streams.values():
            stream.end()

    async def coordinate(self, _: object, context: Context) -> None:
        """Serve one gateway until either side ends the stream."""
        hello = (await greeting.first_of(context, CoordinateRequest)).hello
        await self._processes.admit(context, self._myself, hello)
        broker = hello.broker_id
        if (older := self._streams.get(broker)) is not None:
            older.end()
        behind_ms = self._myself.now_ms() - hello.now_ms
        served = ServedCalls(
            self._coordinator, broker, lambda: self._myself.now_ms() - behind_ms, self.under_way_max
        )
        self._streams[broker] = served
        # Only now does the gateway hear that it may ask: the older stream is over.
        await context.write(CoordinateResponse(hello=self._myself.hello()))
        try:
            await greeting.serve(context, broker, _read(context, served), _write(context, served))
            given_up = served.is_over
        finally:
            served.end()
            if self._streams.get(broker) is served:
                del self._streams[broker]
        if given_up:
            await context.abort(grpc.StatusCode.UNAVAILABLE, greeting.GIVEN_UP)


async def _read(context: Context, served: ServedCalls) -> None:
    """Take what a gateway asks until it ends the stream.

    Raises:
        InvalidMessage
    """
    while (request := await greeting.read(context, CoordinateRequest)) is not None:
        await served.room()
        if served.is_over:
            return
        served.take(request.call)


async def _write(context: Context, served: ServedCalls) -> None:
    while (answer := await served.answers()) is not None:
        for part in answer.parts:
            await context.write(CoordinateResponse(answer=part))
        if answer.ends_call:
            served.answered()
