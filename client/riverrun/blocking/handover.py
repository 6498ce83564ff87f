"""Items of an iterable that its own thread reads, on their way to the loop in runs."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Generic, TypeVar

from riverrun.blocking.loop_thread import LoopThread

T = TypeVar("T")


class Handover(Generic[T]):
    """What `send_many` reads, where reading may block; a `RunSource`.

    The thread that reads is never further ahead than a run; a run that does not fill goes out after
    a pause.

    Args:
        items: what is read.
        thread: where the runs go.
    """

    def __init__(self, items: Iterable[T], thread: LoopThread) -> None:
        self._source = items
        self._thread = thread
        self._items: deque[T] = deque()
        self._wanted = 1
        self._ended = False
        self._stopped = False
        # Set by the reader for the loop, and by the loop for the reader.
        self._more = asyncio.Event()
        self._asks = True
        self._room = threading.Event()

    def read(self) -> None:
        """Read to the end, in the calling thread, or until nobody wants more."""
        items, append = self._items, self._items.append
        for item in self._source:
            append(item)
            if len(items) >= self._wanted:
                self._room.clear()
                self._tell()
                # What was taken between the two is not to be waited for.
                while len(items) >= self._wanted and not self._stopped:
                    self._room.wait()
                    self._room.clear()
            elif self._asks:
                self._tell()
            if self._stopped:
                return
        self._ended = True
        self._tell()

    async def runs(
        self, wanted: Callable[[], int], linger_s: float
    ) -> AsyncGenerator[tuple[list[T], bool], None]:
        """Yield runs of about `wanted()` items, and whether there is a pause behind them."""
        items = self._items
        pause = True
        while True:
            self._wanted = wanted()
            self._room.set()
            while not items and not self._ended:
                # A full run may be less than a batch, which then waits for what comes next.
                if not await self._told(None if pause else linger_s):
                    pause = True
                    yield [], pause
            pause = False
            while len(items) < self._wanted and not self._ended and not pause:
                pause = not await self._told(linger_s)
            run = [items.popleft() for _ in range(len(items))]
            self._room.set()
            if not run:
                return
            yield run, pause

    def stop(self) -> None:
        """Let the reader go: nobody wants more."""
        self._stopped = True
        self._room.set()

    def _tell(self) -> None:
        self._asks = False
        self._thread.post(self._more.set)

    async def _told(self, timeout_s: float | None) -> bool:
        """Wait until there is a first item, or a full run, or the end; return whether there is."""
        self._more.clear()
        had = bool(self._items)
        self._asks = not had
        if self._ended or len(self._items) >= self._wanted or (self._items and not had):
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._more.wait()
        except TimeoutError:
            return False
        return True
