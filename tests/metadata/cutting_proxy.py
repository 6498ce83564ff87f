"""Stands between a store and etcd and loses, holds back or cuts what passes."""

from __future__ import annotations

import asyncio
import contextlib


class CuttingProxy:
    """Forwards connections to one address.

    Attributes:
        loses_replies: what etcd says from now on is thrown away.
        passes: cleared, nothing passes in either direction, and nothing is lost.
        connections: so many were made so far.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._server: asyncio.Server | None = None
        self._forwarding: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.loses_replies = False
        self.passes = asyncio.Event()
        self.passes.set()
        self.connections = 0

    @property
    def address(self) -> str:
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_):
        assert self._server is not None
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """End every connection at once, without a word."""
        for writer in self._writers:
            writer.transport.abort()
        tasks = list(self._forwarding)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        self.connections += 1
        self._writers.add(writer)
        try:
            to_reader, to_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(to_writer)
        for source, sink, replies in ((reader, to_writer, False), (to_reader, writer, True)):
            task = asyncio.create_task(self._forward(source, sink, replies=replies))
            self._forwarding.add(task)
            task.add_done_callback(self._forwarding.discard)

    async def _forward(self, source, sink, *, replies: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                await self.passes.wait()
                if not (replies and self.loses_replies):
                    sink.write(data)
                    await sink.drain()
        self._writers.discard(sink)
        sink.transport.abort()
