"""Work that blocks, run beside the event loop; a simulation runs it in virtual time instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ThreadsHang(Exception):
    """Threads did not come back in time; the text says what they are at."""


class Threads(Protocol):
    """A pool of threads of its own."""

    def run(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """Run a function that may block; calls of a pool with one thread run in order."""
        ...

    async def close(self, within_s: float) -> None:
        """Wait for what runs, so long at most; nothing may be run any more.

        Raises:
            ThreadsHang: something still runs, and nobody can end it.
        """
        ...
