"""Real threads for work that blocks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar, TypeVarTuple, Unpack

from riverrun_server.ports.threads import ThreadsHang

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class PoolThreads:
    """Implements ports.threads.Threads.

    Args:
        size: how many calls run at once.
        name: what the threads are called, for debuggers, profilers and the log.
    """

    def __init__(self, size: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=name)
        self._name = name
        # A call goes on when whoever awaits it is cancelled, so its asyncio future does not tell.
        self._calls: dict[Future[Any], Callable[..., Any]] = {}

    def run(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """Run a function that may block."""
        call = self._pool.submit(function, *args)
        self._calls[call] = function
        call.add_done_callback(self._calls.pop)
        return asyncio.wrap_future(call)

    async def close(self, within_s: float) -> None:
        """Wait for what runs, so long at most; nothing may be run any more.

        Raises:
            ThreadsHang: something still runs, and nobody can end it.
        """
        self._pool.shutdown(wait=False)
        calls = self._calls.copy()
        ends = asyncio.gather(*map(asyncio.wrap_future, calls), return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await ends
        _check_back(
            (function for call, function in calls.items() if not call.done()), self._name, within_s
        )


class _Call(NamedTuple):
    """A function that the one thread runs, and who waits for it."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]


class OneThread:
    """Implements ports.threads.Threads with a single thread, for work that is asked for very often.

    A round trip costs the loop less than half of what it costs with an executor's futures (20 us
    instead of 45), and the flusher makes thousands in a second.

    Args:
        name: what the thread is called, for debuggers, profilers and the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[_Call | None] = SimpleQueue()
        # In the order in which they end; what is awaited no more is among them.
        self._calls: deque[_Call] = deque()
        self._idle: asyncio.Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """Run a function that may block."""
        if self._closed:
            raise RuntimeError(f"nothing is run in the {self._name} thread after shutdown")
        if self._thread is None:
            # No daemon: a process that leaves a sync behind ends by its backstop, and says so by its code.
            self._thread = threading.Thread(target=self._serve, name=self._name)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        call = _Call(loop, future, function, args)
        self._calls.append(call)
        self._work.put(call)
        return future

    async def close(self, within_s: float) -> None:
        """Wait for what runs, so long at most; nothing may be run any more.

        Raises:
            ThreadsHang: something still runs, and nobody can end it.
        """
        self._closed = True
        self._work.put(None)
        if self._calls:
            self._idle = asyncio.get_running_loop().create_future()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._idle
        _check_back((call.function for call in self._calls), self._name, within_s)

    def _serve(self) -> None:
        while (call := self._work.get()) is not None:
            result: object = None
            error: BaseException | None = None
            try:
                result = call.function(*call.args)
            except StopIteration as raised:
                # A future takes anything but this.
                error = RuntimeError("StopIteration left a function that ran in a thread")
                error.__cause__ = raised
            except BaseException as raised:  # noqa: BLE001 - whoever waits is told
                error = raised
            # A loop that was closed meanwhile has nobody who waits.
            with contextlib.suppress(RuntimeError):
                call.loop.call_soon_threadsafe(self._ended, result, error)

    def _ended(self, result: object, error: BaseException | None) -> None:
        future = self._calls.popleft().future
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        if not self._calls and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)


def _check_back(hanging: Iterable[Callable[..., Any]], name: str, within_s: float) -> None:
    names = ", ".join(map(_name_of, hanging))
    if names:
        raise ThreadsHang(
            f"{names} did not come back to the {name} threads within {within_s:.1f} s; most likely "
            "the disk does not answer"
        )


def _name_of(function: Callable[..., Any]) -> str:
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", None) or repr(function)
