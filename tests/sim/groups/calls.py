"""A Subscribe call between a client and a broker: messages in order, a window, cuts that one side notices late."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

from riverrun.v1.consumer_pb2 import SubscribeResponse
from tests.sim.groups.processes import Process
from tests.sim.groups.world import World

# Messages that the transport takes before the client does.
_WINDOW = 4


def address_of(number: int) -> str:
    """Return from where a call comes."""
    return f"10.0.0.1:{number}"


def number_of(address: str) -> int:
    """Return which call comes from an address."""
    return int(address.rpartition(":")[2])


class Broken(Exception):
    """The connection was lost."""


class Ended(Exception):
    """The broker has ended the call: with a refusal, or in order."""

    def __init__(self, refusal: Any) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Call:
    """One call; at the broker it is gRPC's context, and at the client its stream.

    Transitions: open -> ended by the broker | cut: by the client's end or the network, noticed by either side
    when it is.
    """

    def __init__(self, world: World, number: int, client: Process, broker: Any) -> None:
        self.number = number
        self.client = client
        self.broker = broker
        self.group_id = ""
        self.member_id = ""
        self.opened_at = world.loop.time()
        self.instances: dict[Any, Any] = {}
        self.is_cut = self.is_leaving = self.is_over = self.is_half_closed = False
        self._world = world
        self._dice = world.dice(f"call {number}")
        self._requests: deque[Any] = deque()
        self._on_the_way_up: deque[Any] = deque()
        self._on_the_way_down: deque[Any] = deque()
        self._messages: deque[Any] = deque()
        self._in_flight = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._heard = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._checker: Any = None

    def __str__(self) -> str:
        return f"call {self.number}"

    def begin(self, checker: Any) -> None:
        """Have the broker serve it; in its process."""
        self._checker = checker
        if not self.is_cut:
            self._task = self.broker.serve(self)

    # At the broker: what is used of grpc.aio.ServicerContext.

    def peer(self) -> str:
        return f"ipv4:{address_of(self.number)}"

    async def read(self) -> Any:
        while not self._requests:
            self._arrived.clear()
            await self._arrived.wait()
        request = self._requests.popleft()
        return object() if request is None else request

    async def write(self, data: bytes) -> None:
        message = SubscribeResponse.FromString(data)
        self._in_flight += 1
        self._down((message, self._checker.told(self, message)))
        while self._in_flight > _WINDOW:
            self._room.clear()
            await self._room.wait()

    def ended(self, refusal: Any) -> None:
        """The broker has ended it."""
        self._checker.ended(self, refusal)
        self._down(Ended(refusal))

    # At the client.

    def send(self, request: Any) -> None:
        """Say something; None is the end of what is said."""
        if self.is_cut:
            return
        self._on_the_way_up.append(request)
        self.broker.process.after(self._delay_s(), self._arrive)

    async def receive(self) -> Any:
        """Wait for a message, and what the checker knows of it.

        Raises:
            Broken, Ended
        """
        while not self._messages:
            self._heard.clear()
            await self._heard.wait()
        message = self._messages.popleft()
        if isinstance(message, Exception):
            raise message
        self._in_flight -= 1
        if not self.broker.process.has_ended:
            self.broker.process.after(0, self._room.set)
        return message

    def cut(self, broker_notices_s: float, client_notices_s: float = 0.0) -> None:
        """Lose the connection."""
        if self.is_cut:
            return
        self.is_cut = True
        self._on_the_way_up.clear()
        self.broker.process.after(broker_notices_s, self._cancel)
        self.client.after(client_notices_s, self._tell, Broken())

    # Inside.

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _arrive(self) -> None:
        if self._on_the_way_up:
            self._requests.append(self._on_the_way_up.popleft())
            self._arrived.set()

    def _down(self, what: Any) -> None:
        if self.is_cut or self.client.has_ended:
            return
        self._on_the_way_down.append(what)
        self.client.after(self._delay_s(), self._deliver)

    def _deliver(self) -> None:
        if self._on_the_way_down and not self.is_cut:
            self._tell(self._on_the_way_down.popleft())

    def _tell(self, what: Any) -> None:
        self._messages.append(what)
        self._heard.set()

    def _delay_s(self) -> float:
        return self._dice.uniform(0.0002, 0.002)


@contextlib.asynccontextmanager
async def beside(*work: Any):
    """Run something beside."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
