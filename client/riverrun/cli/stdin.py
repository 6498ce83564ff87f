"""Reads standard input in chunks without blocking the event loop."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

CHUNK_BYTES = 1024 * 1024
CHUNKS_AHEAD = 4


class StandardInput:
    """An async iterator of chunks, each as soon as there is anything, up to 1 MiB.

    A thread reads, because neither regular files nor terminals can be read otherwise without
    either blocking the loop or changing the mode of a descriptor that other processes share. It
    reads at most four chunks ahead. The thread is a daemon: a read that waits for a terminal cannot
    be cancelled and must not keep the process alive.

    Attributes:
        ended: True once the input's own end was reached, and not that of `stop` or `abandon`.
        size_bytes: how much there is to read; None where that is not known, as of a pipe.
        bytes_read: how much the iteration has given.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes | OSError | None] = asyncio.Queue()
        self._room = threading.Semaphore(CHUNKS_AHEAD)
        self._abandoned = False
        self.ended = False
        self.bytes_read = 0
        self.size_bytes = _left(descriptor)
        # A pipe holds 64 KiB by default, so each read would bring no more than that.
        with suppress(OSError, AttributeError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)
        threading.Thread(target=self._read, name="riverrun-stdin", daemon=True).start()

    def stop(self) -> None:
        """End the iteration behind what has been read so far."""
        self._chunks.put_nowait(None)

    def abandon(self) -> None:
        """End the iteration now; what was read ahead is dropped."""
        self._abandoned = True
        self.stop()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give each chunk once.

        Raises:
            OSError: standard input cannot be read.
        """
        while True:
            chunk = await self._chunks.get()
            if self._abandoned or chunk is None:
                return
            if isinstance(chunk, OSError):
                raise chunk
            if not chunk:
                self.ended = True
                return
            self._room.release()
            self.bytes_read += len(chunk)
            yield chunk

    def _read(self) -> None:
        """Read until the end, in the thread."""
        chunk: bytes | OSError = b"-"
        while chunk and not isinstance(chunk, OSError):
            self._room.acquire()
            try:
                chunk = self._read_some()
            except OSError as error:
                chunk = error
            try:
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
            except RuntimeError:  # the loop has closed: nobody wants this any more
                return

    def _read_some(self) -> bytes:
        """Wait for something and read it; another process may have made the pipe non-blocking."""
        while True:
            try:
                return os.read(self._descriptor, CHUNK_BYTES)
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._descriptor, select.POLLIN)
                poll.poll()


def _left(descriptor: int) -> int | None:
    """Say how much of a regular file lies behind its position."""
    with suppress(OSError):
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            return max(0, status.st_size - os.lseek(descriptor, 0, os.SEEK_CUR))
    return None
