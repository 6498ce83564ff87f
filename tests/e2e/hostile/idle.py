"""Connections that are kept and not used, thousands of them: just enough HTTP/2 to be left alone."""

from __future__ import annotations

import asyncio
import struct

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS, _PING = 4, 6
_ACK = 1
_HEADER_BYTES = 9
# With our settings; the broker gives five seconds for the acknowledgement of its own.
HELLO = _PREFACE + struct.pack(">BHBBL", 0, 0, _SETTINGS, 0, 0)
_SETTINGS_ACK = struct.pack(">BHBBL", 0, 0, _SETTINGS, _ACK, 0)


class IdleConnection(asyncio.Protocol):
    """Acknowledges settings and answers pings, so that the broker has no reason to close it.

    Attributes:
        closed: whether the broker has not greeted it yet, or has closed it since.
        greeted: done once either has happened.
    """

    def __init__(self) -> None:
        self.closed = True
        self.greeted = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(HELLO)

    def data_received(self, data: bytes) -> None:
        """Answer what has to be answered."""
        assert self._transport is not None
        self._data += data
        while len(self._data) >= _HEADER_BYTES:
            high, low, kind, flags, _ = struct.unpack(">BHBBL", self._data[:_HEADER_BYTES])
            end = _HEADER_BYTES + (high << 16) + low
            if len(self._data) < end:
                return
            payload, self._data = self._data[_HEADER_BYTES:end], self._data[end:]
            if kind == _PING and not flags & _ACK:
                self._transport.write(struct.pack(">BHBBL", 0, 8, _PING, _ACK, 0) + payload)
            elif kind == _SETTINGS and not flags & _ACK:
                self._transport.write(_SETTINGS_ACK)
                self.closed = False
                self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that it is over."""
        self.closed = True
        self._settle()

    async def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def _settle(self) -> None:
        if not self.greeted.done():
            self.greeted.set_result(None)
