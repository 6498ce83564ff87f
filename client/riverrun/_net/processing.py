"""Works on the records of a consumer side by side, as many at a time as is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from riverrun._core.in_progress import InProgress
from riverrun._core.records import Record

Handler = Callable[[Record[Any, Any]], Awaitable[object]]
More = Callable[[int], Coroutine[Any, Any, Sequence[Record[Any, Any]]]]

# So many records are had for each that is worked on: those of one key wait for each other.
_HAD = 8


class Processing:
    """Calls a handler with records.

    Transitions: running -> ended: there are no more, `run` was cancelled, or a handler has failed. What is being
    worked on then is worked on to its end; what is not begun is not finished with.

    Args:
        more: returns some records, so many at the most; none is the end.
        handler: works on one.
        concurrency: how many at a time.
        progressed: called when one is finished with.
    """

    def __init__(
        self, more: More, handler: Handler, concurrency: int, progressed: Callable[[], object]
    ) -> None:
        self.in_progress = InProgress()
        self._more = more
        self._handler = handler
        self._concurrency = concurrency
        self._progressed = progressed
        self._running: set[asyncio.Task[None]] = set()
        self._getting: asyncio.Task[Sequence[Record[Any, Any]]] | None = None
        self._is_over = False
        self._failure: BaseException | None = None
        self._stirred = asyncio.Event()

    async def run(self) -> None:
        """Work until there is no more.

        Raises:
            BaseException: what the first handler that failed has raised, once the others are done.
        """
        try:
            while self._failure is None:
                self._begin()
                self._get_more()
                if self._getting is None and not len(self.in_progress):
                    return
                await self._stir()
        finally:
            await self._end()
        if self._failure is not None:
            raise self._failure

    def _get_more(self) -> None:
        """Ask for records where there is room, and take in those that have come."""
        room = self._concurrency * _HAD - len(self.in_progress)
        if self._getting is None and room > 0 and not self._is_over:
            self._getting = asyncio.create_task(self._more(room), name="riverrun process: more")

    async def _stir(self) -> None:
        """Wait until a record is finished with, or others have come."""
        stirred = asyncio.create_task(self._stirred.wait(), name="riverrun process: wait")
        try:
            waiting = {stirred} if self._getting is None else {stirred, self._getting}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stirred.cancel()
        self._stirred.clear()
        if self._getting is not None and self._getting.done():
            records, self._getting = self._getting.result(), None
            self._is_over = not records
            self._add(records)

    def _add(self, records: Sequence[Record[Any, Any]]) -> None:
        for record in records:
            self.in_progress.add(record)

    def _begin(self) -> None:
        while len(self._running) < self._concurrency:
            record = self.in_progress.take()
            if record is None:
                return
            task = asyncio.create_task(self._work(record), name="riverrun process: a record")
            self._running.add(task)
            task.add_done_callback(self._ended)

    async def _work(self, record: Record[Any, Any]) -> None:
        try:
            await self._handler(record)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - an application's own
            self._failure = self._failure or error
        else:
            self.in_progress.finished(record)
            self._progressed()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._stirred.set()

    async def _end(self) -> None:
        """Let what is being worked on come to its end; what was being got is put back by being cancelled."""
        if self._getting is not None:
            self._getting.cancel()
            await asyncio.gather(self._getting, return_exceptions=True)
            if not self._getting.cancelled() and self._getting.exception() is None:
                # It came in the same moment: it was given, and is not finished with.
                self._add(self._getting.result())
        try:
            while self._running:
                await asyncio.wait([*self._running])
        except asyncio.CancelledError:
            # Whoever says so twice does not want to wait for an end.
            for task in self._running:
                task.cancel()
            raise
