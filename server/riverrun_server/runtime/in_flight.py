"""Bytes of appends that wait for their answer, bounded for each connection and for the broker."""

from __future__ import annotations

import asyncio
from collections import deque

from riverrun_server.core.errors import Reason, Refusal


class InFlightBytes:
    """The broker's budget, and a budget for each connection out of it.

    An append larger than a whole budget is let in when that budget is empty: limits on sizes are
    enforced elsewhere and nothing must wait for ever.
    """

    def __init__(self, broker_bytes_max: int, connection_bytes_max: int) -> None:
        self.broker_bytes_max = broker_bytes_max
        self.connection_bytes_max = connection_bytes_max
        self.used_bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def connection(self) -> ConnectionBudget:
        """Return a budget for one stream or call."""
        return ConnectionBudget(self)

    def fits(self, size: int) -> bool:
        """Return whether the broker has room."""
        return not self.used_bytes or self.used_bytes + size <= self.broker_bytes_max

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
    """What one stream or call holds of the budget."""

    def __init__(self, broker: InFlightBytes) -> None:
        self._broker = broker
        self.used_bytes = 0

    def _fits(self, size: int) -> bool:
        limit = self._broker.connection_bytes_max
        own = not self.used_bytes or self.used_bytes + size <= limit
        return own and self._broker.fits(size)

    async def take(self, size: int) -> None:
        """Take bytes, waiting for room; whoever reads a stream reads no more meanwhile."""
        while not self._fits(size):
            await self._broker.changed()
        self._take(size)

    def take_now(self, size: int) -> None:
        """Take bytes without waiting.

        Raises:
            Refusal: OVERLOADED.
        """
        if not self._fits(size):
            broker = self._broker
            raise Refusal(
                Reason.OVERLOADED,
                f"{broker.used_bytes} bytes wait for their acks on this broker and "
                f"{broker.broker_bytes_max} are allowed; send again after a moment",
            )
        self._take(size)

    def _take(self, size: int) -> None:
        self.used_bytes += size
        self._broker.used_bytes += size

    def give(self, size: int) -> None:
        """Give bytes back."""
        assert 0 <= size <= self.used_bytes, (size, self.used_bytes)
        self.used_bytes -= size
        self._broker.used_bytes -= size
        self._broker.wake()

    def close(self) -> None:
        """Give back whatever is still held."""
        self.give(self.used_bytes)
