"""Single questions to a leader; what is asked of many partitions in one turn of the loop goes together."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc.aio

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.peer.channel import peer_channel
from riverrun_server.peer.gateway_messages import failure_from_wire, led_to_wire, origin_to_wire
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.v1 import gateway_pb2 as wire
from riverrun_server.peer.v1.gateway_pb2_grpc import GatewayServiceStub
from riverrun_server.ports.gateways import Led, Origin
from riverrun_server.ports.partitions import Watermarks

CALL_S: Final = 5.0
_TOGETHER: Final = 1_000

_Question = tuple[Led, "asyncio.Future[Watermarks]"]


class LeaderCalls:
    """Calls to one leader, on a connection of their own that is opened with the first.

    Args:
        broker: which one.
        address: where it listens for peers.
        myself: introduces this broker.
    """

    def __init__(self, broker: int, address: str, myself: Myself) -> None:
        self._broker = broker
        self._myself = myself
        self._channel = peer_channel(address)
        self._stub = GatewayServiceStub(self._channel)
        self._questions: dict[Origin, list[_Question]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Give up what is under way."""
        asking = list(self._asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await self._channel.close()

    async def watermarks(self, led: Led, origin: Origin) -> Watermarks:
        """Ask for a partition's offsets."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Watermarks] = loop.create_future()
        if not self._questions:
            loop.call_soon(self._ask_all)
        self._questions.setdefault(origin, []).append((led, answer))
        return await answer

    async def offset_at_time(
        self, led: Led, time_ms: int, origin: Origin
    ) -> tuple[int, int] | None:
        """Ask for the first record at or after a time."""
        request = wire.OffsetAtTimeRequest(
            hello=self._myself.hello(),
            origin=origin_to_wire(origin),
            led=led_to_wire(led),
            time_ms=time_ms,
        )
        try:
            response = await self._stub.OffsetAtTime(request, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            raise self._unreachable(error) from error
        if response.HasField("failure"):
            raise failure_from_wire(response.failure)
        return (response.offset, response.timestamp_ms) if response.HasField("offset") else None

    async def trim(self, led: Led, before_offset: int, origin: Origin) -> int:
        """Have records deleted."""
        request = wire.TrimRequest(
            hello=self._myself.hello(),
            origin=origin_to_wire(origin),
            led=led_to_wire(led),
            before_offset=before_offset,
        )
        try:
            response = await self._stub.Trim(request, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            raise Refusal(
                Reason.REQUEST_TIMED_OUT,
                f"broker {self._broker}, which leads the partition, did not say what became of it "
                f"({_said(error)}); look at the partition's log start, or trim again",
            ) from error
        if response.HasField("failure"):
            raise failure_from_wire(response.failure)
        return response.log_start_offset

    def _ask_all(self) -> None:
        questions, self._questions = self._questions, {}
        for origin, asked in questions.items():
            for at in range(0, len(asked), _TOGETHER):
                together = asked[at : at + _TOGETHER]
                task = asyncio.create_task(self._ask(origin, together), name="ask for watermarks")
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def _ask(self, origin: Origin, asked: list[_Question]) -> None:
        request = wire.WatermarksRequest(
            hello=self._myself.hello(),
            origin=origin_to_wire(origin),
            partitions=[led_to_wire(led) for led, _ in asked],
        )
        try:
            response = await self._stub.Watermarks(request, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            for _, answer in asked:
                _fail(answer, self._unreachable(error))
        else:
            for (_, answer), told in zip(asked, response.partitions, strict=False):
                if told.HasField("failure"):
                    _fail(answer, failure_from_wire(told.failure))
                elif not answer.done():
                    answer.set_result(_watermarks(told))
        finally:
            # Nobody may wait for ever, whatever the other side has left out.
            for _, answer in asked:
                _fail(answer, self._silent())

    def _silent(self) -> Refusal:
        return Refusal(
            Reason.LEADER_NOT_AVAILABLE,
            f"broker {self._broker}, which leads the partition, left the question open; ask again",
        )

    def _unreachable(self, error: grpc.aio.AioRpcError) -> Refusal:
        return Refusal(
            Reason.LEADER_NOT_AVAILABLE,
            f"broker {self._broker}, which leads the partition, does not answer: {_said(error)}; ask again",
        )


def _watermarks(told: wire.PartitionWatermarks) -> Watermarks:
    return Watermarks(
        told.log_start_offset,
        told.high_watermark,
        told.log_end_offset,
        told.leader_epoch,
        told.size_bytes,
        {lag.broker_id: lag.lag for lag in told.lags},
    )


def _fail(answer: asyncio.Future[Any], refusal: Refusal) -> None:
    if not answer.done():
        answer.set_exception(refusal)


def _said(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details()}"
