"""The coordinator's end of a gateway's stream: calls for groups in, in order, and their answers out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

import grpc
import grpc.aio
import structlog

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.peer import greeting
from riverrun_server.peer.coordination_messages import (
    home_from_wire,
    records_from_wire,
    refusal_to_wire,
    stored_to_wire,
    told_to_wire,
    unknown_kind,
)
from riverrun_server.peer.greeting import Context
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.v1.coordination_pb2 import (
    CoordinateRequest,
    CoordinateResponse,
    CoordinatorAnswer,
    CoordinatorCall,
)
from riverrun_server.runtime.coordinator import Coordinator

SERVICE: Final = "riverrun_server.peer.v1.CoordinationService"

_UNDER_WAY_MAX: Final = 1000


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

    def __init__(self, myself: Myself, coordinator: Coordinator) -> None:
        self._myself = myself
        self._coordinator = coordinator
        self._processes = greeting.Processes()
        self._streams: dict[int, _Served] = {}
        self.under_way_max = _UNDER_WAY_MAX

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
        served = _Served(
            self._coordinator, lambda: self._myself.now_ms() - behind_ms, self.under_way_max
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


class _Served:
    """What one gateway has asked, and what it is to be told.

    Args:
        coordinator: is asked.
        gateway_ms: the gateway's clock.
        under_way_max: calls that may be under way.
    """

    def __init__(
        self, coordinator: Coordinator, gateway_ms: Callable[[], int], under_way_max: int
    ) -> None:
        self.is_over = False
        self._coordinator = coordinator
        self._gateway_ms = gateway_ms
        self._under_way = 0
        self._under_way_max = under_way_max
        self._answers: deque[Iterator[CoordinatorAnswer]] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._telling: set[asyncio.Task[None]] = set()

    async def room(self) -> None:
        """Wait until another call may be taken on."""
        while self._under_way >= self._under_way_max and not self.is_over:
            self._room.clear()
            await self._room.wait()

    def take(self, call: CoordinatorCall) -> None:
        """Begin to carry out a call, before anything that is taken later.

        Raises:
            InvalidMessage
        """
        home = home_from_wire(call)
        self._under_way += 1
        try:
            self._check(call)
            if call.HasField("store"):
                records = records_from_wire(call.group_id, call.store.offsets)
                stored = self._coordinator.commit(home, call.group_id, records, call.leader_epoch)
                stored.add_done_callback(partial(self._stored, call.call_id))
            elif call.HasField("tell"):
                task = asyncio.create_task(self._tell(call), name="tell offsets of a group")
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)
            else:
                raise unknown_kind()
        except Refusal as refusal:
            self._answer((refusal_to_wire(call.call_id, refusal),))

    async def answers(self) -> Iterator[CoordinatorAnswer] | None:
        """Wait for an answer and return its parts; None once the stream is over."""
        while not self._answers and not self.is_over:
            self._changed.clear()
            await self._changed.wait()
        return None if self.is_over else self._answers.popleft()

    def answered(self) -> None:
        """Note that an answer is on its way: there is room for another call."""
        self._under_way -= 1
        self._room.set()

    def end(self) -> None:
        """Take nothing on and tell nothing any more; commits that were taken on are carried out."""
        self.is_over = True
        self._answers.clear()
        for task in self._telling:
            task.cancel()
        self._changed.set()
        self._room.set()

    def _check(self, call: CoordinatorCall) -> None:
        if call.origin.hops != 1:
            raise Refusal(
                Reason.INVALID_REQUEST,
                f"the call was passed on {call.origin.hops} times, and may be once; ask the leader",
            )
        late_ms = self._gateway_ms() - call.expires_at_ms
        if late_ms > 0:
            raise Refusal(
                Reason.REQUEST_TIMED_OUT,
                f"the call arrived {late_ms} ms after its caller was told that nobody knows; it was "
                "passed over",
            )

    async def _tell(self, call: CoordinatorCall) -> None:
        home = home_from_wire(call)
        try:
            found = await self._coordinator.committed(home, call.group_id, call.leader_epoch)
        except Refusal as refusal:
            self._answer((refusal_to_wire(call.call_id, refusal),))
        else:
            self._answer(told_to_wire(call.call_id, found))

    def _stored(self, call_id: int, stored: asyncio.Future[None]) -> None:
        error = stored.exception()
        if isinstance(error, Refusal):
            self._answer((refusal_to_wire(call_id, error),))
        else:
            assert error is None, error
            self._answer((stored_to_wire(call_id, {}),))

    def _answer(self, parts: Iterable[CoordinatorAnswer]) -> None:
        if not self.is_over:
            self._answers.append(iter(parts))
            self._changed.set()


async def _read(context: Context, served: _Served) -> None:
    """Take what a gateway asks until it ends the stream.

    Raises:
        InvalidMessage
    """
    while (request := await greeting.read(context, CoordinateRequest)) is not None:
        await served.room()
        if served.is_over:
            return
        served.take(request.call)


async def _write(context: Context, served: _Served) -> None:
    while (parts := await served.answers()) is not None:
        for part in parts:
            await context.write(CoordinateResponse(answer=part))
        served.answered()
