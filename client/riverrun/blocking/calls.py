"""One call from a thread to the loop: answered, failed, or abandoned by whoever waited for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, cast

from riverrun.errors import ClosedError, Reason

T = TypeVar("T")


class Call(Generic[T]):
    """Transitions: waiting -> answered -> taken; waiting or answered -> abandoned.

    An answer is either taken by the caller or given to `late`, never neither: an interrupt may come
    at any moment, also between the two.

    Args:
        make: makes the coroutine, on the loop.
        late: takes, on the loop, an answer that came too late.
        ended: called, on the loop, when it has come to its end in whatever way.
    """

    __slots__ = (
        "_abandoned",
        "_answered",
        "_ended",
        "_error",
        "_late",
        "_make",
        "_result",
        "_task",
    )

    def __init__(
        self,
        make: Callable[[], Awaitable[T]],
        late: Callable[[T], None] | None = None,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self._make = make
        self._late = late
        self._ended = ended
        self._answered = threading.Event()
        self._abandoned = False
        self._task: asyncio.Task[T] | None = None
        self._result: T | None = None
        self._error: BaseException | None = None

    def start(self) -> None:
        """Begin, on the loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="riverrun call")
        self._task.add_done_callback(self._finish)

    def take(self) -> T:
        """Wait for the answer, in the calling thread; signals interrupt it."""
        self._answered.wait()
        if self._error is not None:
            raise self._error
        return cast("T", self._result)

    def abandon(self) -> None:
        """Let the call go, on the loop, after whoever waited for it has been interrupted."""
        self._abandoned = True
        task = self._task
        if self._answered.is_set():
            self._give_back()
        elif task is not None and task.done():
            # Given back at once, before whatever the thread asks for next.
            self._finish(task)
        elif task is not None:
            task.cancel()

    async def _run(self) -> T:
        return await self._make()

    def _finish(self, task: asyncio.Task[T]) -> None:
        if self._answered.is_set():
            return
        if task.cancelled():
            self._error = ClosedError("the client was closed meanwhile", reason=Reason.CLOSED)
        elif (error := task.exception()) is not None:
            self._error = error
        else:
            self._result = task.result()
        self._answered.set()
        if self._ended is not None:
            self._ended()
        if self._abandoned:
            self._give_back()

    def _give_back(self) -> None:
        if self._late is not None and self._error is None:
            self._late(cast("T", self._result))
