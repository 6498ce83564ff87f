"""Who waits for room in a producer's buffer: first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from riverrun._core.producing import ProducerMachine
from riverrun._net.receipts import RecordFutures

# So often the loop goes round before `wait`, within asyncio.wait_for, is back where it was called.
_TURN_ROUNDS = 4


class _Waiting(NamedTuple):
    """Somebody who waits, and whether the room is to be reserved for what comes."""

    size_bytes: int
    reserves: bool
    future: asyncio.Future[bool]


class BufferRoom:
    """Lets those through that have room, in the order in which they asked.

    Room is reserved as it is granted, so that nobody who comes later, however small, is quicker. Who
    has waited without reserving has the next turn: until the loop has gone round, it alone takes room.

    Args:
        machine: counts what the buffer holds.

    Attributes:
        waited_s: how long all that have waited have done so, together.
    """

    def __init__(self, machine: ProducerMachine[RecordFutures]) -> None:
        self._machine = machine
        self._queue: deque[_Waiting] = deque()
        self._ended = self._has_turn = False
        self.waited_s = 0.0

    def reserve_now(self, size_bytes: int) -> bool:
        """Reserve so much if it has room and nobody waits; return whether it did."""
        if self._queue or not self._machine.has_room(size_bytes):
            return False
        self._machine.reserve(size_bytes)
        return True

    def take_now(self, size_bytes: int) -> bool:
        """Reserve so much likewise, also where others wait if somebody has just waited its turn."""
        if not self._has_turn or not self._machine.has_room(size_bytes):
            return self.reserve_now(size_bytes)
        self._machine.reserve(size_bytes)
        return True

    async def reserve(self, size_bytes: int) -> None:
        """Wait until so much has room, and reserve it; at the producer's end return without."""
        if not self.reserve_now(size_bytes):
            await self._wait(size_bytes, reserves=True)

    async def wait(self, size_bytes: int) -> None:
        """Wait until so much has room, or for the producer's end."""
        if self._queue or not self._machine.has_room(size_bytes):
            await self._wait(size_bytes, reserves=False)

    def grant(self) -> None:
        """Let those through for whom there is room now."""
        while self._queue and (self._ended or not self._has_turn):
            waiting = self._queue[0]
            if waiting.future.done():
                self._queue.popleft()
                continue
            if not self._ended and not self._machine.has_room(waiting.size_bytes):
                return
            self._queue.popleft()
            if waiting.reserves and not self._ended:
                self._machine.reserve(waiting.size_bytes)
            waiting.future.set_result(waiting.reserves and not self._ended)
            if not waiting.reserves:
                self._has_turn = True
                self._end_turn(_TURN_ROUNDS)

    def end(self) -> None:
        """Let everybody through, with nothing: they will be told that it is over."""
        self._ended = True
        self.grant()

    def _end_turn(self, rounds: int) -> None:
        if rounds:
            asyncio.get_running_loop().call_soon(self._end_turn, rounds - 1)
        else:
            self._has_turn = False
            self.grant()

    async def _wait(self, size_bytes: int, *, reserves: bool) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        future: asyncio.Future[bool] = loop.create_future()
        waiting = _Waiting(size_bytes, reserves, future)
        self._queue.append(waiting)
        try:
            await future
        except asyncio.CancelledError:
            # Whoever was let through and leaves makes room for the next one.
            if future.done() and not future.cancelled() and future.result():
                self._machine.release(size_bytes)
            self._queue = deque(other for other in self._queue if other is not waiting)
            self.grant()
            raise
        finally:
            self.waited_s += loop.time() - began_s
