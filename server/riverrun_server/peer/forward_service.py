"""The leader's end of forwarded appends: each goes to the partition that is led here, and its answer back."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

import grpc
import structlog

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.peer import greeting
from riverrun_server.peer.gateway_messages import answer_to_wire, check_hops, led_from_wire
from riverrun_server.peer.greeting import Context
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.outgoing import Outgoing
from riverrun_server.peer.v1.gateway_pb2 import (
    ForwardAnswer,
    ForwardedAppend,
    ForwardRequest,
    ForwardResponse,
)
from riverrun_server.ports.gateways import Led, ServedHere
from riverrun_server.ports.partitions import Acks, Append, Appended
from riverrun_server.wire.ingress import take_over

# Of one gateway's appends that wait for their acks; more is not read from its stream meanwhile.
UNANSWERED_BYTES_MAX: Final = 64 << 20
# So long an append of a leader epoch that is not known here waits for it.
BEGINS_S: Final = 0.5
# So long nothing is waited for once that was in vain.
_IMPATIENT_S: Final = 5.0
# What an append takes beside its bytes while it waits.
_OVERHEAD_BYTES: Final = 1024
_ACKS: Final = frozenset(Acks)

_log = structlog.stdlib.get_logger(__name__)


class Forwarded:
    """The appends of one gateway's stream.

    Transitions: open -> closed (`close`: nothing more is taken in, and no answer is sent).

    Args:
        served: finds what is led here.
        max_bytes: that may wait for their acks.
    """

    def __init__(self, served: ServedHere, max_bytes: int = UNANSWERED_BYTES_MAX) -> None:
        self._served = served
        self._max_bytes = max_bytes
        self._bytes = 0
        self._room = asyncio.Event()
        self._impatient_until = float("-inf")
        self.answers: Outgoing[ForwardAnswer] = Outgoing(_answer_bytes)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is taken in any more."""
        return self.answers.is_closed

    def close(self) -> None:
        """Take nothing in any more."""
        self.answers.close()
        self._room.set()

    async def room(self) -> None:
        """Wait until more may be taken in."""
        while self._bytes > self._max_bytes and not self.is_closed:
            self._room.clear()
            await self._room.wait()

    async def take_in(self, message: ForwardedAppend) -> None:
        """Append a batch, once there is room.

        Who asks may know of a leadership a moment before its leader does. That is waited for, and what
        comes behind waits too; so where it was in vain, nothing is waited for again for a while.

        Raises:
            InvalidMessage
        """
        led = led_from_wire(message.led)
        await self.room()
        clock = asyncio.get_running_loop().time
        if self._is_early(led) and clock() >= self._impatient_until:
            await self._served.begun(led, BEGINS_S)
            if self._is_early(led):
                self._impatient_until = clock() + _IMPATIENT_S
        if not self.is_closed:
            self._append(message, led)

    def _is_early(self, led: Led) -> bool:
        try:
            self._served.led(led)
        except Refusal as refusal:
            return refusal.reason is Reason.UNKNOWN_LEADER_EPOCH
        return False

    def _append(self, message: ForwardedAppend, led: Led) -> None:
        if message.acks not in _ACKS:
            raise InvalidMessage(f"an append is to be acknowledged in a way {message.acks}")
        size = len(message.batch) + _OVERHEAD_BYTES
        self._bytes += size
        done = partial(self._done, message.number, led, size)
        try:
            check_hops(message.origin)
            held, batch = self._served.led(led), take_over(message.batch)
        except Refusal as refusal:
            done(Appended(None, 0, error=refusal))
            return
        expected = message.expected_offset if message.HasField("expected_offset") else None
        held.submit(Append(batch, Acks(message.acks), done, expected))

    def _done(self, number: int, led: Led, size: int, appended: Appended) -> None:
        self._bytes -= size
        self._room.set()
        if appended.error is not None and appended.error.reason is Reason.NOT_LEADER:
            appended = appended._replace(error=with_hint(self._served, led, appended.error))
        self.answers.put((answer_to_wire(number, appended),))


class ForwardService:
    """Takes in the appends of all gateways.

    Transitions of one gateway's stream: greeting -> open -> ended; a newer stream of the same broker, or
    one of a later process, ends the older one first, so that what was sent on that can come no later.

    Args:
        myself: introduces this broker.
        served: finds what is led here.
    """

    def __init__(self, myself: Myself, served: ServedHere) -> None:
        self._myself = myself
        self._served = served
        self._open: dict[int, Forwarded] = {}
        self._processes = greeting.Processes()

    def close(self) -> None:
        """End all streams."""
        for forwarded in self._open.values():
            forwarded.close()

    async def forward(self, _: object, context: Context) -> None:
        """Take in one gateway's appends until either side ends the stream."""
        first = await greeting.first_of(context, ForwardRequest)
        await self._processes.admit(context, self._myself, first.hello)
        await context.write(ForwardResponse(hello=self._myself.hello()))
        broker = first.hello.broker_id
        if (older := self._open.get(broker)) is not None:
            older.close()
        forwarded = self._open[broker] = Forwarded(self._served)
        try:
            await greeting.serve(
                context, broker, _take_in(context, forwarded), _answer(context, forwarded)
            )
            given_up = forwarded.is_closed
        finally:
            forwarded.close()
            if self._open.get(broker) is forwarded:
                del self._open[broker]
        if given_up:
            await context.abort(grpc.StatusCode.UNAVAILABLE, greeting.GIVEN_UP)


async def _take_in(context: Context, forwarded: Forwarded) -> None:
    while True:
        request = await greeting.read(context, ForwardRequest)
        if request is None:
            return
        for message in request.appends:
            await forwarded.take_in(message)
            if forwarded.is_closed:
                return


async def _answer(context: Context, forwarded: Forwarded) -> None:
    while answers := await forwarded.answers.take():
        await context.write(ForwardResponse(answers=answers))


def with_hint(served: ServedHere, led: Led, refusal: Refusal) -> Refusal:
    """Return the refusal of a partition that is led here no more, with who leads it."""
    try:
        served.led(led)
    except Refusal as better:
        return better
    return refusal


def _answer_bytes(answer: ForwardAnswer) -> int:
    return answer.ByteSize()
