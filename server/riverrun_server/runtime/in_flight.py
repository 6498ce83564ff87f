"""Bytes of appends that wait for their answer: waiting for room, on behalf of one stream or call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from riverrun_server.core.admission import ByteBudget


class InFlightBytes:
    """The broker's budget and those who wait for room in it.

    Args:
        budget: decides whether there is room.
        reached: told each time that there is none, whether the caller waits or is refused.
    """

    def __init__(self, budget: ByteBudget, reached: Callable[[], None] = lambda: None) -> None:
        self.budget = budget
        self.reached = reached
        self._waiting: deque[asyncio.Future[None]] = deque()

    def connection(self) -> ConnectionBudget:
        """Return what one stream or call may hold."""
        return ConnectionBudget(self)

    def wake(self) -> None:
        """Let everyone who waits for room look again."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self) -> None:
        """Return when room has been given back."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter


class ConnectionBudget:
    """What one stream or call holds; `close` gives everything back."""

    def __init__(self, broker: InFlightBytes) -> None:
        self._broker = broker
        self._budget = broker.budget

    async def take(self, size_bytes: int) -> None:
        """Take bytes, waiting for room; whoever reads a stream reads no more meanwhile."""
        if self._budget.reserve(self, size_bytes):
            return
        self._broker.reached()
        while not self._budget.reserve(self, size_bytes):
            await self._broker.changed()

    def take_now(self, size_bytes: int) -> None:
        """Take bytes without waiting.

        Raises:
            Refusal: OVERLOADED.
        """
        if not self._budget.reserve(self, size_bytes):
            self._broker.reached()
            raise self._budget.refusal(self, size_bytes)

    def give(self, size_bytes: int) -> None:
        """Give bytes back."""
        self._budget.release(self, size_bytes)
        self._broker.wake()

    def close(self) -> None:
        """Give back whatever is still held."""
        self._budget.forget(self)
        self._broker.wake()
