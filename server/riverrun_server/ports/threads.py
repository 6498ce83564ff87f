"""Work that blocks, run beside the event loop; a simulation runs it in virtual time instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Threads(Protocol):
    """A pool of threads of its own."""

    def run(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        """Run a function that may block; calls of a pool with one thread run in order."""
        ...

    def close(self) -> None:
        """Wait for what runs; nothing may be run any more."""
        ...
