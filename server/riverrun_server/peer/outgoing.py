"""What waits to be sent on one stream: in order, a frame at a time, and no more than fits into memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

# What a message takes beside the bytes that it carries.
OVERHEAD_BYTES: Final = 256
# Of one gRPC message, unless a single part of it is larger: an untuned peer takes 4 MiB.
FRAME_BYTES: Final = 2 << 20
# A peer that reads nothing is sent no more anyway; this is for what nobody counts, and for bugs.
WAITING_BYTES_MAX: Final = 64 << 20

T = TypeVar("T")


class Outgoing(Generic[T]):
    """What one stream is to send.

    Transitions: open -> closed (`close`, or more waits than `max_bytes`): nothing is taken in or
    handed out any more, and whoever feeds the stream ends it.

    Args:
        size_of: returns how many bytes a message takes.
        max_bytes: that may wait.
    """

    def __init__(self, size_of: Callable[[T], int], max_bytes: int = WAITING_BYTES_MAX) -> None:
        self._size_of = size_of
        self._max_bytes = max_bytes
        self._messages: deque[tuple[T, int]] = deque()
        self.waiting_bytes = 0
        self._changed = asyncio.Event()
        self.is_closed = False

    def put(self, messages: Iterable[T]) -> None:
        """Have messages sent behind the earlier ones; on a stream that has ended they are lost."""
        if self.is_closed:
            return
        for message in messages:
            size = self._size_of(message)
            self._messages.append((message, size))
            self.waiting_bytes += size
        if self.waiting_bytes > self._max_bytes:
            self.close()
        self._changed.set()

    async def take(self) -> list[T]:
        """Wait for messages and return as many as one frame holds; none once it is closed."""
        while not self._messages and not self.is_closed:
            self._changed.clear()
            await self._changed.wait()
        taken: list[T] = []
        room = FRAME_BYTES
        while self._messages and (not taken or self._messages[0][1] <= room):
            message, size = self._messages.popleft()
            self.waiting_bytes -= size
            room -= size
            taken.append(message)
        return taken

    def close(self) -> None:
        """Hand out nothing any more."""
        self.is_closed = True
        self._messages.clear()
        self.waiting_bytes = 0
        self._changed.set()
