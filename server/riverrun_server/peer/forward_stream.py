"""Appends on their way to the leader of their partitions, and their answers: a gateway's end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc.aio

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.peer.gateway_messages import answer_from_wire, led_to_wire, origin_to_wire
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.leader_stream import LeaderStream
from riverrun_server.peer.v1.gateway_pb2 import ForwardedAppend, ForwardRequest, ForwardResponse
from riverrun_server.peer.v1.gateway_pb2_grpc import GatewayServiceStub
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.gateways import Led, Origin
from riverrun_server.ports.partitions import Append, Appended

Done = Callable[[Appended], None]

# Clients wait for room of their own before this is reached; it is for what is no client's.
UNSENT_BYTES_MAX: Final = 64 << 20


class ForwardStream(LeaderStream[ForwardedAppend, ForwardResponse]):
    """Sends appends to one leader, each once.

    Transitions of an append: waiting to be sent -> sent -> answered. If the stream ends, nothing has
    become of the first and nobody knows of the second; both are answered at once.

    Args:
        broker: to which one.
        address: where it listens for peers.
        myself: introduces this broker.
        dice: spreads pauses.
        changed: called with the broker's id when appends can be sent, or no more.
        pause: waits, in seconds.
    """

    what = "appends"

    def __init__(
        self,
        broker: int,
        address: str,
        myself: Myself,
        dice: Dice,
        changed: Callable[[int], None],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(broker, address, myself, dice, pause, 2 * UNSENT_BYTES_MAX)
        self._changed = changed
        self._number = 0
        self._sent_to = 0
        # By number, which is the order: whom to tell, and of how many records.
        self._waiting: dict[int, tuple[Done, int]] = {}

    def append(self, led: Led, append: Append, origin: Origin, done: Done) -> None:
        """Send an append; `done` is called exactly once."""
        count, mailbox = append.batch.header.record_count, self._mailbox
        if mailbox is None:
            done(Appended(None, count, error=_unreachable(self.broker, "there is no stream to it")))
            return
        if mailbox.waiting_bytes > UNSENT_BYTES_MAX:
            done(Appended(None, count, error=_overloaded(self.broker, mailbox.waiting_bytes)))
            return
        self._number += 1
        self._waiting[self._number] = done, count
        message = ForwardedAppend(
            number=self._number,
            led=led_to_wire(led),
            origin=origin_to_wire(origin),
            acks=append.acks.value,
            expected_offset=append.expected_offset,
            batch=append.batch.unstamped(),
        )
        mailbox.put((message,))

    def _begin(self, channel: grpc.aio.Channel) -> grpc.aio.StreamStreamCall[Any, Any]:
        return GatewayServiceStub(channel).Forward()

    def _hello(self) -> ForwardRequest:
        return ForwardRequest(hello=self._myself.hello())

    def _frame(self, messages: list[ForwardedAppend]) -> ForwardRequest:
        self._sent_to = messages[-1].number
        return ForwardRequest(appends=messages)

    def _opened(self) -> None:
        self._changed(self.broker)

    def _heard(self, heard: ForwardResponse) -> None:
        for answer in heard.answers:
            found = self._waiting.pop(answer.number, None)
            if found is not None:
                found[0](answer_from_wire(answer))

    def _ended(self, why: str) -> None:
        waiting, self._waiting = self._waiting, {}
        for number, (done, count) in waiting.items():
            sent = number <= self._sent_to
            error = _unknown(self.broker, why) if sent else _unreachable(self.broker, why)
            done(Appended(None, count, error=error))
        self._changed(self.broker)


def _unknown(broker: int, why: str) -> Refusal:
    return Refusal(
        Reason.REQUEST_TIMED_OUT,
        f"broker {broker}, which leads the partition, was sent the append and could not answer it: {why}; "
        "it may have been written: send it again only with a producer id and the same sequence",
    )


def _unreachable(broker: int, why: str) -> Refusal:
    return Refusal(
        Reason.LEADER_NOT_AVAILABLE,
        f"broker {broker}, which leads the partition, cannot be reached: {why}; nothing was sent, send it "
        "again after a moment",
    )


def _overloaded(broker: int, waiting_bytes: int) -> Refusal:
    return Refusal(
        Reason.OVERLOADED,
        f"{waiting_bytes} bytes wait to be sent to broker {broker}, which leads the partition, and "
        f"{UNSENT_BYTES_MAX} may; send again after a moment",
    )
