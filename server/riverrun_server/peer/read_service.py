"""The leader's end of a gateway's readers: one portion for each that is asked for, one at a time.

What is sent next is read only when it can be written, so a gateway that reads nothing holds one portion
and what is being read from the disk, however many readers it has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Final

import structlog

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.peer import greeting
from riverrun_server.peer.forward_service import with_hint
from riverrun_server.peer.gateway_messages import (
    check_hops,
    failure_to_wire,
    led_from_wire,
    portion_to_wire,
)
from riverrun_server.peer.greeting import Context
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.v1.gateway_pb2 import (
    OpenReader,
    Portion,
    ReaderRequest,
    ReadRequest,
    ReadResponse,
    Want,
)
from riverrun_server.ports.gateways import Held, Led, ServedHere
from riverrun_server.ports.partitions import Chunk, Cursor

# A frame stays below what an untuned peer takes: a batch has at most 3 MiB.
PORTION_BYTES_MAX: Final = 2 << 20
# A message costs the same whatever its size, so small portions share one: as when one record is news to
# a thousand readers. With one of the largest behind them it still fits a frame.
TOGETHER_BYTES: Final = 64 << 10
# What all readers of one gateway may have under way from the disk.
DISK_BYTES_MAX: Final = 8 << 20

_log = structlog.stdlib.get_logger(__name__)


class _Reader:
    """One reader: what it asked for and has not been sent."""

    __slots__ = ("cursor", "disk_bytes", "held", "is_queued", "led", "number", "want")

    def __init__(self, number: int, led: Led, held: Held) -> None:
        self.number = number
        self.led = led
        self.held = held
        self.cursor: Cursor
        self.want: Want | None = None
        self.is_queued = False
        self.disk_bytes = 0


class Readers:
    """The readers of one gateway's stream.

    Transitions of one: open -> asking (`want`) -> open, when it has been sent its portion; asking <->
    waiting (for something to read, for the disk, or for room to read the disk); any -> gone.

    Args:
        served: finds what is led here.
        disk_bytes_max: that may be under way from the disk.
    """

    def __init__(self, served: ServedHere, disk_bytes_max: int = DISK_BYTES_MAX) -> None:
        self._served = served
        self._disk_bytes_max = disk_bytes_max
        self._readers: dict[int, _Reader] = {}
        self._ready: deque[_Reader] = deque()
        self._failed: deque[Portion] = deque()
        # In order; those that have gone are passed over.
        self._for_disk: deque[_Reader] = deque()
        self._disk_bytes = 0
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Let go of every reader."""
        for reader in self._readers.values():
            reader.cursor.close()
        self._readers.clear()

    def obey(self, request: ReaderRequest) -> None:
        """Take what a reader says.

        Raises:
            InvalidMessage
        """
        kind, reader = request.WhichOneof("kind"), self._readers.get(request.reader)
        if kind == "open":
            if reader is not None:
                raise InvalidMessage(f"reader {request.reader} begins twice")
            self._open(request.reader, request.open)
        elif reader is None:
            return  # it has been told that it cannot be read, on its way to us
        elif kind == "want":
            if reader.want is not None:
                raise InvalidMessage(f"reader {request.reader} asks twice")
            reader.want = request.want
            self._queue(reader)
        elif kind == "close":
            self._gone(reader)

    async def next(self) -> list[Portion]:
        """Wait for portions to be sent and return as many as are small, and one more."""
        while True:
            portions, room = list[Portion](), TOGETHER_BYTES
            while room > 0 and (portion := self._next()) is not None:
                portions.append(portion)
                room -= portion.ByteSize()
            if portions:
                return portions
            self._changed.clear()
            await self._changed.wait()

    def _next(self) -> Portion | None:
        """Return the next portion that can be sent now; None where there is none."""
        if self._failed:
            return self._failed.popleft()
        while self._ready:
            reader = self._ready.popleft()
            reader.is_queued = False
            if reader.want is None:
                continue
            portion = self._portion(reader, reader.want)
            self._let_next_read_disk()
            if portion is not None:
                return portion
        return None

    def _open(self, number: int, opens: OpenReader) -> None:
        led = led_from_wire(opens.led)
        try:
            check_hops(opens.origin)
            held = self._served.led(led)
        except Refusal as refusal:
            self._failed.append(_failed(number, refusal))
            self._changed.set()
            return
        reader = self._readers[number] = _Reader(number, led, held)
        reader.cursor = held.cursor(opens.offset, partial(self._queue, reader))
        if opens.HasField("last_epoch"):
            reader.cursor.seek(opens.offset, opens.last_epoch)

    def _queue(self, reader: _Reader) -> None:
        """Look at a reader soon: it asks, or there may be something for it."""
        if reader.want is not None and not reader.is_queued:
            reader.is_queued = True
            self._ready.append(reader)
            self._changed.set()

    def _portion(self, reader: _Reader, want: Want) -> Portion | None:
        """Return what a reader is sent now; None where that is nothing."""
        try:
            chunk = self._taken(reader, want)
        except Refusal as refusal:
            self._gone(reader)
            if refusal.reason is Reason.NOT_LEADER:
                refusal = with_hint(self._served, reader.led, refusal)
            return _failed(reader.number, refusal)
        if chunk is None:
            return None
        reader.want = None
        return portion_to_wire(reader.number, chunk)

    def _taken(self, reader: _Reader, want: Want) -> Chunk | None:
        """Return the chunk that answers a reader, or None where it waits on.

        Raises:
            Refusal: of its cursor.
        """
        cursor, max_bytes = reader.cursor, max(0, min(want.max_bytes, PORTION_BYTES_MAX))
        size = 0 if cursor.reads_ahead else cursor.in_memory(max_bytes)
        if want.wait and (size is None or size > max_bytes):
            return self._nothing(reader)
        if size is None and not self._has_disk_room(max_bytes):
            self._for_disk.append(reader)
            return None
        chunk = cursor.take(max_bytes, read_ahead=False)
        if cursor.reads_ahead:
            if not reader.disk_bytes:
                # One batch may be larger than what was asked for.
                reader.disk_bytes = max(max_bytes, 1)
                self._disk_bytes += reader.disk_bytes
            return None
        self._give_back(reader)
        return chunk if chunk is not None or want.wait else self._nothing(reader)

    def _nothing(self, reader: _Reader) -> Chunk:
        at, held = reader.cursor.position, reader.held
        return Chunk(at, at, [], held.high_watermark, held.log_start_offset)

    def _has_disk_room(self, size_bytes: int) -> bool:
        return not self._disk_bytes or self._disk_bytes + size_bytes <= self._disk_bytes_max

    def _let_next_read_disk(self) -> None:
        """Look again at the first that waits for room to read the disk, if there is some now."""
        while self._for_disk:
            want = self._for_disk[0].want
            if want is not None and not self._has_disk_room(min(want.max_bytes, PORTION_BYTES_MAX)):
                return
            reader = self._for_disk.popleft()
            if want is not None:
                self._queue(reader)
                return

    def _give_back(self, reader: _Reader) -> None:
        self._disk_bytes -= reader.disk_bytes
        reader.disk_bytes = 0

    def _gone(self, reader: _Reader) -> None:
        self._readers.pop(reader.number, None)
        reader.want = None
        reader.cursor.close()
        self._give_back(reader)


class ReadService:
    """Serves the readers of all gateways.

    Args:
        myself: introduces this broker.
        served: finds what is led here.
    """

    def __init__(self, myself: Myself, served: ServedHere) -> None:
        self._myself = myself
        self._served = served

    async def read(self, _: object, context: Context) -> None:
        """Serve one gateway's readers until either side ends the stream."""
        first = await greeting.first_of(context, ReadRequest)
        await greeting.check(context, self._myself, first.hello)
        await context.write(ReadResponse(hello=self._myself.hello()))
        readers = Readers(self._served)
        try:
            broker = first.hello.broker_id
            await greeting.serve(context, broker, _obey(context, readers), _send(context, readers))
        finally:
            readers.close()


def _failed(number: int, refusal: Refusal) -> Portion:
    return Portion(reader=number, failure=failure_to_wire(refusal))


async def _obey(context: Context, readers: Readers) -> None:
    while True:
        request = await greeting.read(context, ReadRequest)
        if request is None:
            return
        for each in request.readers:
            readers.obey(each)


async def _send(context: Context, readers: Readers) -> None:
    while True:
        await context.write(ReadResponse(portions=await readers.next()))
