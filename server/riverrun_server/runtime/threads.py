"""Real threads for work that blocks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, TypeVarTuple, Unpack

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
        hanging = [_name_of(function) for call, function in calls.items() if not call.done()]
        if hanging:
            raise ThreadsHang(
                f"{', '.join(hanging)} did not come back to the {self._name} threads within "
                f"{within_s:.1f} s; most likely the disk does not answer"
            )


def _name_of(function: Callable[..., Any]) -> str:
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", None) or repr(function)
