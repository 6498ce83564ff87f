"""Reports to the controller on other brokers: short calls, each on its own, lost where they do not get through."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

import grpc
import grpc.aio

from riverrun_server.peer import greeting
from riverrun_server.peer.channel import peer_channel
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.v1 import control_pb2 as wire
from riverrun_server.peer.v1.control_pb2_grpc import ControlServiceStub
from riverrun_server.ports.peers import ControlEvents

SERVICE: Final = "riverrun_server.peer.v1.ControlService"
# A report that is older says nothing any more, and the next one is on its way.
_REPORT_S: Final = 0.5


class ControlService:
    """Serves riverrun_server.peer.v1.ControlService.

    Args:
        myself: introduces this broker.
        told: takes the reports.
    """

    def __init__(self, myself: Myself, told: ControlEvents) -> None:
        self._myself = myself
        self._told = told

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service's methods."""
        report = grpc.unary_unary_rpc_method_handler(
            self.report, wire.ReportRequest.FromString, wire.ReportResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Report": report})

    async def report(
        self, request: wire.ReportRequest, context: greeting.Context
    ) -> wire.ReportResponse:
        """Take what another broker has found."""
        await greeting.check(context, self._myself, request.hello)
        witness = request.hello.broker_id
        match request.WhichOneof("found"):
            case "refusing":
                epoch = request.refusing.broker_epoch
                self._told.refuses(witness, request.broker_id, epoch)
            case "answering":
                self._told.answers(witness, request.broker_id)
        return wire.ReportResponse()


class ControlLinks:
    """Implements ports.peers.ControlCalls: a connection to each broker that was told something.

    Args:
        myself: introduces this broker.
    """

    def __init__(self, myself: Myself) -> None:
        self._myself = myself
        self._addresses: dict[int, str] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._telling: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def reach(self, brokers: Mapping[int, str]) -> None:
        """Learn where brokers listen for each other, by id."""
        self._addresses = dict(brokers)
        for address in set(self._channels) - set(brokers.values()):
            closing = asyncio.create_task(self._channels.pop(address).close(None))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def refuses(self, controller: int, broker: int, epoch: int) -> None:
        """Tell a broker that a process of another one refuses connections."""
        refusing = wire.Refusing(broker_epoch=epoch)
        self._tell(controller, wire.ReportRequest(broker_id=broker, refusing=refusing))

    def answers(self, controller: int, broker: int) -> None:
        """Tell a broker that another one takes connections."""
        answering = wire.Answering()
        self._tell(controller, wire.ReportRequest(broker_id=broker, answering=answering))

    async def close(self) -> None:
        """Tell nothing any more."""
        for task in list(self._telling.values()):
            task.cancel()
        channels = [channel.close(None) for channel in self._channels.values()]
        self._channels.clear()
        waiting = (*self._telling.values(), *self._closing)
        await asyncio.gather(*channels, *waiting, return_exceptions=True)

    def _tell(self, controller: int, request: wire.ReportRequest) -> None:
        """Send a report; what is newer takes the place of what is still on its way."""
        address = self._addresses.get(controller)
        if not address:
            return
        about = (controller, request.broker_id)
        before = self._telling.pop(about, None)
        if before is not None:
            before.cancel()
        request.hello.CopyFrom(self._myself.hello())
        task = asyncio.create_task(self._send(address, request), name=f"report to {controller}")
        self._telling[about] = task

        def done(ended: asyncio.Task[None]) -> None:
            if self._telling.get(about) is ended:
                del self._telling[about]

        task.add_done_callback(done)

    async def _send(self, address: str, request: wire.ReportRequest) -> None:
        channel = self._channels.get(address)
        if channel is None:
            channel = peer_channel(address)
            self._channels[address] = channel
        with contextlib.suppress(grpc.aio.AioRpcError):
            await ControlServiceStub(channel).Report(request, timeout=_REPORT_S)
