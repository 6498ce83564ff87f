"""Writes standard output in large pieces when data come fast, and at once when they come slowly."""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import select
import stat
import threading
from collections.abc import Callable
from contextlib import suppress

BUFFER_BYTES = 1024 * 1024
"""So much may wait while a write is under way."""


class StandardOutput:
    """A buffer whose content is written by a thread while more is gathered.

    Nothing waits for company: the first bytes put into an empty buffer are written at once, and
    what comes while a write is under way makes the next one. So a slow stream is written record by
    record and a fast one by the megabyte. The thread is a daemon: a pipe that nobody reads can
    block a write for ever and must not keep the process alive.

    Attributes:
        broken: True once the reader of the pipe has gone away.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self.broken = False
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._written: list[Callable[[], None]] = []
        self._in_flight: list[Callable[[], None]] = []
        self._writing = False
        self._error: OSError | None = None
        self._progress = asyncio.Event()
        self._work: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        # A pipe holds 64 KiB by default; more lets this process and the reader work side by side.
        with suppress(OSError, AttributeError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, BUFFER_BYTES)
        threading.Thread(target=self._write, name="riverrun-stdout", daemon=True).start()

    async def put(self, data: bytes, written: Callable[[], None]) -> None:
        """Take data, waiting while the buffer is full.

        Args:
            data: to be written.
            written: called on the loop once these data and all before them have been written.

        Raises:
            BrokenPipeError: the reader of the pipe has gone away.
            OSError: writing failed otherwise, such as on a full disk.
        """
        self._pieces.append(data)
        self._bytes += len(data)
        self._written.append(written)
        self._begin()
        while self._bytes > BUFFER_BYTES and self._error is None:
            await self._next_write()
        self._raise()

    async def reader_gone(self) -> None:
        """Return once the reader of the pipe has gone away, also while there is nothing to write.

        Without this, `riverrun consume quiet-topic | head -1` would wait for the next record to learn
        that nobody wants it. What is no pipe has no reader that goes away: then it never returns.
        """
        gone = asyncio.Event()
        if stat.S_ISFIFO(os.fstat(self._descriptor).st_mode):
            # Nothing ever comes out of this end: that it is readable means that it is broken.
            self._loop.add_reader(self._descriptor, gone.set)
        try:
            await gone.wait()
        finally:
            self._loop.remove_reader(self._descriptor)

    async def drain(self) -> None:
        """Wait until everything has been written.

        Raises:
            OSError: as `put` does.
        """
        while (self._writing or self._pieces) and self._error is None:
            await self._next_write()
        self._raise()

    async def _next_write(self) -> None:
        """Wait until the write under way has ended."""
        self._progress.clear()
        await self._progress.wait()

    def _raise(self) -> None:
        """Tell that an earlier write has failed."""
        if self._error is not None:
            raise self._error

    def _begin(self) -> None:
        """Hand the buffer to the thread unless it is busy."""
        if self._writing or not self._pieces or self._error is not None:
            return
        data = b"".join(self._pieces)
        self._in_flight = self._written
        self._pieces, self._written, self._bytes = [], [], 0
        self._writing = True
        self._work.put(data)

    def _done(self, error: OSError | None) -> None:
        """Go on after a write, on the loop."""
        self._writing = False
        if error is None:
            for written in self._in_flight:
                written()
        else:
            self._error = error
            self.broken = isinstance(error, BrokenPipeError)
        self._begin()
        self._progress.set()

    def _write(self) -> None:
        """Write piece after piece, in the thread."""
        while True:
            data = memoryview(self._work.get())
            error = None
            try:
                while data:
                    data = data[self._write_some(data) :]
            except OSError as failed:
                error = failed
            try:
                self._loop.call_soon_threadsafe(self._done, error)
            except RuntimeError:  # the loop has closed: nobody waits any more
                return

    def _write_some(self, data: memoryview) -> int:
        """Write as much as goes at once; another process may have made the pipe non-blocking."""
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()
            return 0
