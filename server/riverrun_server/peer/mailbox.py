"""Messages that wait for one stream: in order, and no more than fit into memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

from riverrun_server.core.replication.messages import Message, Push, Restart

# What a message takes beside the bytes that it carries.
_OVERHEAD_BYTES: Final = 256
# Of one gRPC message, unless a single batch is larger: an untuned peer takes 4 MiB.
FRAME_BYTES: Final = 2 << 20
# A peer that reads nothing is fed no further anyway; this is for what is no feed, and for bugs.
WAITING_BYTES_MAX: Final = 64 << 20
# Whoever begins a log anew is told all that goes before it. Where many do at once, those for whom there
# is no room ask again.
RESTART_BYTES_MAX: Final = 16 << 20


class Mailbox:
    """What one stream is to send.

    Transitions: open -> closed (`close`, or more waits than `max_bytes`): nothing is taken in or
    handed out any more, and whoever feeds the stream ends it.

    Args:
        max_bytes: that may wait.
    """

    def __init__(self, max_bytes: int = WAITING_BYTES_MAX) -> None:
        self._max_bytes = max_bytes
        self._messages: deque[tuple[Message, int]] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self.is_closed = False

    def put(self, messages: Iterable[Message]) -> None:
        """Have messages sent behind the earlier ones; on a stream that has ended they are lost.

        So is a Restart that finds too much waiting: who is to begin anew asks until it is told.
        """
        for message in messages:
            size = _size(message)
            if isinstance(message, Restart) and self._bytes + size > RESTART_BYTES_MAX:
                continue
            self._messages.append((message, size))
            self._bytes += size
        if self._bytes > self._max_bytes:
            self.close()
        self._changed.set()

    async def take(self) -> list[Message]:
        """Wait for messages and return as many as one frame holds; none once it is closed."""
        while not self._messages and not self.is_closed:
            self._changed.clear()
            await self._changed.wait()
        taken: list[Message] = []
        room = FRAME_BYTES
        while self._messages and (not taken or self._messages[0][1] <= room):
            message, size = self._messages.popleft()
            self._bytes -= size
            room -= size
            taken.append(message)
        return taken

    def close(self) -> None:
        """Hand out nothing any more."""
        self.is_closed = True
        self._messages.clear()
        self._bytes = 0
        self._changed.set()


def _size(message: Message) -> int:
    match message:
        case Push():
            return _OVERHEAD_BYTES + sum(len(batch.data) for batch in message.batches)
        case Restart(snapshot=(_, snapshot)):
            return _OVERHEAD_BYTES + len(snapshot)
        case _:
            return _OVERHEAD_BYTES
