"""Readers of what another broker leads, all on one stream to it: a gateway's end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.peer.gateway_messages import (
    failure_from_wire,
    led_to_wire,
    origin_to_wire,
    portion_from_wire,
)
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.leader_stream import LeaderStream
from riverrun_server.peer.v1.gateway_pb2 import (
    CloseReader,
    OpenReader,
    ReaderRequest,
    ReadRequest,
    ReadResponse,
    Want,
)
from riverrun_server.peer.v1.gateway_pb2_grpc import GatewayServiceStub
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.gateways import Led, Origin
from riverrun_server.ports.partitions import Chunk

Told = Callable[[Chunk | Refusal], None]


class StreamReader:
    """Implements ports.gateways.RemoteReader.

    Transitions: waiting for the stream -> open -> closed, or ended by the leader or with the stream.
    """

    def __init__(self, stream: ReadStream, number: int, opens: OpenReader, told: Told) -> None:
        self._stream = stream
        self._told = told
        self.number = number
        self._unsaid: list[ReaderRequest] = [ReaderRequest(reader=number, open=opens)]

    def want(self, max_bytes: int, *, wait: bool) -> None:
        """Ask for one portion; not again before it has come."""
        self._say(ReaderRequest(reader=self.number, want=Want(max_bytes=max_bytes, wait=wait)))

    def close(self) -> None:
        """Go away; nothing is told any more."""
        if self._stream.forget(self):
            self._say(ReaderRequest(reader=self.number, close=CloseReader()))

    def opened(self) -> None:
        """Say what could not be said before there was a stream."""
        unsaid, self._unsaid = self._unsaid, []
        self._stream.say(unsaid)

    def tell(self, what: Chunk | Refusal) -> None:
        """Tell whoever reads."""
        self._told(what)

    def _say(self, request: ReaderRequest) -> None:
        if self._stream.is_open:
            self._stream.say([request])
        else:
            self._unsaid.append(request)


class ReadStream(LeaderStream[ReaderRequest, ReadResponse]):
    """Reads from one leader for many readers, each of which has one portion under way at the most."""

    what = "reads"

    def __init__(
        self,
        broker: int,
        address: str,
        myself: Myself,
        dice: Dice,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(broker, address, myself, dice, pause)
        self._readers: dict[int, StreamReader] = {}
        self._number = 0

    def read(
        self, led: Led, offset: int, last_epoch: int | None, origin: Origin, told: Told
    ) -> StreamReader:
        """Begin to read."""
        self._number += 1
        opens = OpenReader(
            led=led_to_wire(led),
            origin=origin_to_wire(origin),
            offset=offset,
            last_epoch=last_epoch,
        )
        reader = self._readers[self._number] = StreamReader(self, self._number, opens, told)
        if self.is_open:
            reader.opened()
        else:
            self.need()
        return reader

    def forget(self, reader: StreamReader) -> bool:
        """Tell a reader nothing any more; return whether the leader still knows it."""
        return self._readers.pop(reader.number, None) is not None

    def say(self, requests: list[ReaderRequest]) -> None:
        """Send what readers say."""
        if self._mailbox is not None:
            self._mailbox.put(requests)

    def _begin(self, channel: grpc.aio.Channel) -> grpc.aio.StreamStreamCall[Any, Any]:
        return GatewayServiceStub(channel).Read()

    def _hello(self) -> ReadRequest:
        return ReadRequest(hello=self._myself.hello())

    def _frame(self, messages: list[ReaderRequest]) -> ReadRequest:
        return ReadRequest(readers=messages)

    def _opened(self) -> None:
        for reader in list(self._readers.values()):
            reader.opened()

    def _heard(self, heard: ReadResponse) -> None:
        for portion in heard.portions:
            reader = self._readers.get(portion.reader)
            if reader is None:
                continue  # it has gone
            if portion.HasField("failure"):
                self.forget(reader)
                reader.tell(failure_from_wire(portion.failure))
            else:
                reader.tell(portion_from_wire(portion))

    def _ended(self, why: str) -> None:
        readers, self._readers = self._readers, {}
        for reader in readers.values():
            reader.tell(
                Refusal(
                    Reason.LEADER_NOT_AVAILABLE,
                    f"broker {self.broker}, which leads the partition, cannot be read from: {why}; ask "
                    "again",
                )
            )
