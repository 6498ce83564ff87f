"""A reader's place in a partition that another broker leads: one portion under way, or held, at a time.

A reader that has caught up asks to be told when there is more, and may be sent a little at once: so
a record reaches it without another round trip, and while there is nothing it costs nothing. What is more
than a little is asked for only when the reader has room for it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from riverrun_server.core.errors import Refusal
from riverrun_server.ports.gateways import RemoteReader
from riverrun_server.ports.partitions import Chunk

LITTLE_BYTES: Final = 32 << 10
LITTLE_BYTES_MAX: Final = 32 << 20


class LittleRoom:
    """The memory that idle readers of a broker may be sent something into without being asked.

    Args:
        max_bytes: altogether; who gets none is told that there is more, and asks for it.
    """

    def __init__(self, max_bytes: int = LITTLE_BYTES_MAX) -> None:
        self._left_bytes = max_bytes

    def take(self) -> int:
        """Return how much one reader may be sent."""
        if self._left_bytes < LITTLE_BYTES:
            return 0
        self._left_bytes -= LITTLE_BYTES
        return LITTLE_BYTES

    def give(self, size_bytes: int) -> None:
        """Give back what `take` returned."""
        self._left_bytes += size_bytes


class _Asked(enum.Enum):
    NOTHING = enum.auto()
    # A portion of a size for which the reader has room.
    PORTION = enum.auto()
    # To be told when there is more.
    NEWS = enum.auto()


class RemoteCursor:
    """Implements ports.partitions.Cursor, but for `seek`: a new place is a new cursor.

    Transitions: new -> asking for a portion -> holding one | at the end -> asking for news -> holding
    a little | told that there is more -> asking for a portion; any -> refused | closed.

    Args:
        offset: where it begins.
        open_reader: begins to read there; is given whom to tell.
        room: for what comes without being asked for.
        wake: called when `take` is worth calling again.
    """

    def __init__(
        self,
        offset: int,
        open_reader: Callable[[Callable[[Chunk | Refusal], None]], RemoteReader],
        room: LittleRoom,
        wake: Callable[[], None],
    ) -> None:
        self.position = offset
        self._room = room
        self._wake = wake
        self._asked = _Asked.NOTHING
        self._held: Chunk | None = None
        self._is_little = False
        self._little_bytes = 0
        self._refusal: Refusal | None = None
        # Where what can be read ends, as far as is known here.
        self._end: int | None = None
        self._reader = open_reader(self._told)

    @property
    def reads_ahead(self) -> bool:
        """Whether a portion that needs room is under way, or held."""
        held = self._held is not None and not self._is_little
        return held or self._asked is _Asked.PORTION

    def in_memory(self, max_bytes: int) -> int | None:  # noqa: ARG002 - what is held is taken whole
        """Return how many bytes `take` would return from memory; None where it would ask the leader."""
        if self.reads_ahead:
            return None
        if self._held is not None:
            return sum([len(batch.data) for batch in self._held.batches])
        return 0 if self._refusal is not None or self._is_at_end else None

    def take(self, max_bytes: int, *, read_ahead: bool = True) -> Chunk | None:
        """Return the next chunk and move behind it, or None where nothing is ready.

        Raises:
            Refusal: what the leader says; nothing more can be read here.
        """
        chunk, self._held = self._held, None
        if chunk is None:
            if self._refusal is not None:
                raise self._refusal
            if self._asked is _Asked.NOTHING and not self._is_at_end:
                self._ask(max_bytes)
            return None
        self._give_room()
        self.position = chunk.next_offset
        if self._refusal is not None:
            pass
        elif self._is_at_end:
            self._ask_for_news()
        elif read_ahead:
            self._ask(max_bytes)
        return chunk

    def close(self) -> None:
        """Let go of everything."""
        self._held = None
        self._give_room()
        if self._refusal is None:
            self._reader.close()

    @property
    def _is_at_end(self) -> bool:
        return self._end is not None and self.position >= self._end

    def _ask(self, max_bytes: int) -> None:
        self._asked = _Asked.PORTION
        self._reader.want(max_bytes, wait=False)

    def _ask_for_news(self) -> None:
        self._asked = _Asked.NEWS
        self._little_bytes = self._room.take()
        self._reader.want(self._little_bytes, wait=True)

    def _told(self, what: Chunk | Refusal) -> None:
        asked, self._asked = self._asked, _Asked.NOTHING
        if isinstance(what, Refusal):
            self._refusal = what
            self._give_room()
        else:
            self._end = what.high_watermark
            if what.next_offset > self.position:
                self._held, self._is_little = what, asked is _Asked.NEWS
            else:
                self._give_room()
                if self._is_at_end:
                    self._ask_for_news()
        self._wake()

    def _give_room(self) -> None:
        self._room.give(self._little_bytes)
        self._little_bytes = 0
