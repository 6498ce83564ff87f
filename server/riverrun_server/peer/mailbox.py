"""Messages of replication that wait for one stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from riverrun_server.core.replication.messages import Message, Push, Restart
from riverrun_server.peer.outgoing import (
    FRAME_BYTES,
    OVERHEAD_BYTES,
    WAITING_BYTES_MAX,
    Outgoing,
)

__all__ = ["FRAME_BYTES", "RESTART_BYTES_MAX", "WAITING_BYTES_MAX", "Mailbox"]

# Whoever begins a log anew is told all that goes before it. Where many do at once, those for whom there
# is no room ask again.
RESTART_BYTES_MAX: Final = 16 << 20


class Mailbox(Outgoing[Message]):
    """What one stream of replication is to send.

    Args:
        max_bytes: that may wait.
    """

    def __init__(self, max_bytes: int = WAITING_BYTES_MAX) -> None:
        super().__init__(_size, max_bytes)

    def put(self, messages: Iterable[Message]) -> None:
        """Have messages sent behind the earlier ones; on a stream that has ended they are lost.

        So is a Restart that finds too much waiting: who is to begin anew asks until it is told.
        """
        for message in messages:
            room = RESTART_BYTES_MAX - self.waiting_bytes
            if not isinstance(message, Restart) or _size(message) <= room:
                super().put((message,))


def _size(message: Message) -> int:
    match message:
        case Push():
            return OVERHEAD_BYTES + sum(len(batch.data) for batch in message.batches)
        case Restart(snapshot=(_, snapshot)):
            return OVERHEAD_BYTES + len(snapshot)
        case _:
            return OVERHEAD_BYTES
