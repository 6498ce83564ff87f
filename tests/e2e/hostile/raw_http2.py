"""HTTP/2 by hand, for what no gRPC library does: calls without a body, windows of nothing, floods of resets."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from tests.e2e.hostile.idle import IdleConnection

_AT_ONCE = 50
_PATIENCE_S = 20.0


@dataclass
class Answer:
    """What has come back on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int | None:
        """The gRPC status, or None where none has come."""
        text = self.headers.get("grpc-status")
        return None if text is None else int(text)

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self.ended or self.reset is not None


def framed(message: bytes) -> bytes:
    """Return a message with gRPC's prefix."""
    return struct.pack(">BI", 0, len(message)) + message


class RawConnection:
    """One HTTP/2 connection; nothing is read, acknowledged or sent unless it is asked to.

    Attributes:
        takes: whether what was heard makes room for more, as with whoever reads.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, takes: bool = True
    ) -> None:
        self.takes = takes
        self.reader = reader
        self.writer = writer
        self.answers: dict[int, Answer] = {}
        self.went_away: int | None = None
        self.closed = False
        config = h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)

    @classmethod
    async def open(cls, address: str, window: int | None = None) -> RawConnection:
        """Connect; `window` is how much the broker may send on each stream before it must wait."""
        host, _, port = address.rpartition(":")
        ends = await asyncio.open_connection(host, int(port))
        self = cls(*ends, takes=window is None)
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        await self.flush()
        return self

    async def flush(self) -> None:
        """Send what has been put together."""
        try:
            self.writer.write(self.h2.data_to_send())
            await self.writer.drain()
        except OSError:
            self.closed = True

    def call(self, method: str, *more: tuple[str, str], authority: str = "broker") -> int:
        """Begin a call, with its headers alone, and return its stream."""
        stream = self.h2.get_next_available_stream_id()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *more,
        ]
        self.h2.send_headers(stream, headers)
        self.answers[stream] = Answer()
        return stream

    async def send(
        self, stream: int, data: bytes, *, end: bool = False, patience_s: float = 5.0
    ) -> bool:
        """Send data as fast as the broker's windows allow; return whether all of it went out."""
        view = memoryview(data)
        while view and not self.closed and self.answers[stream].reset is None:
            room = min(
                self.h2.local_flow_control_window(stream),
                self.h2.max_outbound_frame_size,
                len(view),
            )
            if room <= 0:
                await self.flush()
                if not await self.hear(patience_s):
                    return False
                continue
            self.h2.send_data(stream, bytes(view[:room]))
            view = view[room:]
        if end and not self.closed and self.answers[stream].reset is None:
            self.h2.end_stream(stream)
        await self.flush()
        return not view

    async def ask(self, method: str, message: bytes, timeout_s: float = 10.0) -> Answer:
        """Make a whole unary call."""
        stream = self.call(method)
        await self.send(stream, framed(message), end=True)
        return await self.answer(stream, timeout_s)

    async def answer(self, stream: int, timeout_s: float = 10.0) -> Answer:
        """Wait until a stream has ended."""
        answer = self.answers[stream]
        async with asyncio.timeout(timeout_s):
            while not (answer.over or self.closed):
                await self.hear(timeout_s)
        return answer

    async def hear(self, timeout_s: float) -> bool:
        """Take in what comes next; return whether something came."""
        try:
            async with asyncio.timeout(timeout_s):
                data = await self.reader.read(1 << 16)
        except TimeoutError:
            return False
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return False
        for event in self.h2.receive_data(data):
            self._take(event)
        await self.flush()
        return True

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self.answers[event.stream_id].headers.update(event.headers)
            case h2.events.DataReceived():
                self.answers[event.stream_id].data += event.data
                if self.takes:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self.answers[event.stream_id].ended = True
            case h2.events.StreamReset():
                self.answers[event.stream_id].reset = event.error_code
            case h2.events.ConnectionTerminated():
                self.went_away = event.error_code

    async def hold(self, stop: asyncio.Event) -> None:
        """Read nothing that is sent, but be polite enough for the broker not to hang up."""
        while not (stop.is_set() or self.closed):
            await self.hear(0.2)

    async def close(self) -> None:
        """Hang up."""
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Crowd:
    """Connections of one attacker, all ended with the block that they were opened in.

    Attributes:
        connections: all that were opened.
        in_place: set once the attacker has got what it wants to hold, and goes on to hold it.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.connections: list[RawConnection | IdleConnection] = []
        self.in_place = asyncio.Event()

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self.connections:
            await each.close()

    @property
    def held(self) -> int:
        """How many connections the broker has not closed."""
        return sum(not each.closed for each in self.connections)

    async def connect(self, window: int | None = None) -> RawConnection:
        """Open one more, as `RawConnection.open` does, and let the broker's settings be heard.

        A connection that never acknowledges them is closed after five seconds, with all that it held.
        """
        raw = await RawConnection.open(self.address, window)
        self.connections.append(raw)
        await raw.hear(10.0)
        return raw

    async def connect_idle(self, count: int, stop: asyncio.Event | None = None) -> None:
        """Open connections that do nothing, some at a time; each has been greeted or closed."""
        for begin in range(0, count, _AT_ONCE):
            if stop is not None and stop.is_set():
                return
            await asyncio.gather(*(self._idle() for _ in range(min(_AT_ONCE, count - begin))))

    async def _idle(self) -> None:
        host, _, port = self.address.rpartition(":")
        loop = asyncio.get_running_loop()
        _, each = await loop.create_connection(IdleConnection, host, int(port))
        self.connections.append(each)
        async with asyncio.timeout(_PATIENCE_S):
            await each.greeted

    async def hold(self, stop: asyncio.Event) -> None:
        """Say that everything is in its place, and hold it."""
        self.in_place.set()
        raw = [each for each in self.connections if isinstance(each, RawConnection)]
        await asyncio.gather(stop.wait(), *(each.hold(stop) for each in raw))
