"""A partition for a client that asks its leader only: where this broker does not lead, it says who does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from riverrun_server.core.errors import Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.partitions import (
    Append,
    Chunk,
    Cursor,
    Flow,
    PartitionAccess,
    Watermarks,
)


class Routed(PartitionAccess, Protocol):
    """A partition that may be led elsewhere."""

    @property
    def not_led_here(self) -> Refusal | None:
        """NOT_LEADER with who leads it; None where this broker does."""
        ...


class DirectPartition:
    """Implements ports.partitions.PartitionAccess by never passing anything on.

    Args:
        routed: the partition.
    """

    def __init__(self, routed: Routed) -> None:
        self._routed = routed

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._routed.topic

    @property
    def id(self) -> PartitionId:
        """The partition for good."""
        return self._routed.id

    @property
    def max_batch_bytes(self) -> int:
        """The largest batch that the topic allows."""
        return self._routed.max_batch_bytes

    @property
    def flow(self) -> Flow:
        """What has passed through the partition."""
        return self._routed.flow

    @property
    def led_here(self) -> bool:
        """Whether another broker has no part in what is asked: it never has."""
        return True

    def direct(self) -> DirectPartition:
        """Return it."""
        return self

    def submit(self, append: Append) -> None:
        """Append a batch here, or refuse it."""
        refusal = self._routed.not_led_here
        if refusal is not None:
            append.refuse(refusal)
        else:
            self._routed.submit(append)

    async def watermarks(self) -> Watermarks:
        """Return the partition's offsets."""
        self._check()
        return await self._routed.watermarks()

    async def offset_at_time(self, time_ms: int) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record at or after a time, or None."""
        self._check()
        return await self._routed.offset_at_time(time_ms)

    async def trim(self, before_offset: int) -> int:
        """Delete the records before an offset."""
        self._check()
        return await self._routed.trim(before_offset)

    def cursor(self, offset: int, wake: Callable[[], None]) -> Cursor:
        """Begin to read at an offset."""
        return DirectCursor(self._routed, self._routed.cursor(offset, wake))

    def _check(self) -> None:
        refusal = self._routed.not_led_here
        if refusal is not None:
            raise refusal


class DirectCursor:
    """Implements ports.partitions.Cursor.

    Args:
        routed: the partition.
        inner: reads it, wherever it is led.
    """

    def __init__(self, routed: Routed, inner: Cursor) -> None:
        self._routed = routed
        self._inner = inner

    @property
    def position(self) -> int:
        """The next offset to be read."""
        return self._inner.position

    @property
    def reads_ahead(self) -> bool:
        """Whether it reads or holds something that was not taken yet."""
        return self._inner.reads_ahead

    def in_memory(self, max_bytes: int) -> int | None:
        """Return how many bytes `take` would return from memory."""
        return 0 if self._routed.not_led_here is not None else self._inner.in_memory(max_bytes)

    def take(self, max_bytes: int, *, read_ahead: bool = True) -> Chunk | None:
        """Return the next chunk; NOT_LEADER as soon as this broker leads no more."""
        refusal = self._routed.not_led_here
        if refusal is not None:
            raise refusal
        return self._inner.take(max_bytes, read_ahead=read_ahead)

    def seek(self, offset: int, leader_epoch: int | None = None) -> None:
        """Go elsewhere."""
        self._inner.seek(offset, leader_epoch)

    def close(self) -> None:
        """Let go of everything."""
        self._inner.close()
