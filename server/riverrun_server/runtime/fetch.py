"""Reading once: collect until there is enough or the time is up, never polling in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import StoredBatch
from riverrun_server.core.reading.events import Delivery
from riverrun_server.core.reading.limits import PIECE_OVERHEAD_BYTES, ReadingLimits
from riverrun_server.core.reading.places import Position
from riverrun_server.ports.partitions import Chunk, Cursor, PartitionAccess
from riverrun_server.ports.threads import Threads
from riverrun_server.runtime.delivery_room import Room, unlimited
from riverrun_server.runtime.sources import unpacked
from riverrun_server.wire.deliveries import pieces_bytes
from riverrun_server.wire.forms import Form
from riverrun_server.wire.unpacking import Source

# What is read, and the answer that is made of it.
_COPIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchTerms:
    """When a fetch is answered, and how large the answer is.

    Attributes:
        min_bytes: answer when there is so much; at least 1.
        max_bytes: aim at no more.
        max_wait_s: answer after so long in any case.
        first: which of the partitions is asked first; let it change from call to call.
    """

    min_bytes: int
    max_bytes: int
    max_wait_s: float
    first: int = 0


@dataclass(slots=True, eq=False)
class _Part:
    """What is collected of one partition."""

    access: PartitionAccess
    begin: Position
    cursor: Cursor
    next_offset: int
    high_watermark: int
    log_start_offset: int
    pieces: list[StoredBatch] = field(default_factory=list)
    refusal: Refusal | None = None
    full: bool = False

    @property
    def has_more(self) -> bool:
        """Whether there is something committed that has not been read."""
        return not self.full and self.refusal is None and self.next_offset < self.high_watermark

    def delivery(self) -> Delivery:
        """Return what was collected as one delivery."""
        begin, pieces = self.begin, self.pieces
        return Delivery(
            begin.topic,
            begin.id,
            begin.offset,
            self.next_offset,
            self.high_watermark,
            self.log_start_offset,
            pieces,
            self.next_offset - begin.offset,
            pieces_bytes(pieces),
            pieces[-1].leader_epoch if pieces else begin.leader_epoch or 0,
        )


class Fetch:
    """One long poll.

    Transitions: sweeping (every partition is asked) -> waiting (for a cursor's wake) -> sweeping
    ... -> answered: there is enough, a partition failed, or the time is up and nothing that is
    known to be there is still on its way from the disk.

    Args:
        threads: where large and compressed batches are taken apart.
        limits: the bounds of reading.
        form: how deliveries look.
        terms: when it is answered.
        room: for what is collected, and the answer; where there is none, the answer is what there
            is.
    """

    def __init__(
        self,
        threads: Threads,
        limits: ReadingLimits,
        form: Form,
        terms: FetchTerms,
        room: Room | None = None,
    ) -> None:
        assert terms.min_bytes >= 1, terms
        self._threads = threads
        self._limits = limits
        self._form = form
        self._terms = terms
        self._room = room or unlimited()
        self._crowded = False
        self._parts: list[_Part] = []
        self._wake = asyncio.Event()
        # What was collected, with what each piece costs in the message.
        self._size_bytes = 0

    async def run(
        self, accesses: Sequence[PartitionAccess], positions: Sequence[Position]
    ) -> list[Delivery | Refusal]:
        """Read from some positions; a delivery or a refusal for each, in order."""
        try:
            for access, position in zip(accesses, positions, strict=True):
                self._parts.append(self._part(access, position))
            await self._collect()
            # From here on only the answer is held, until it has been sent.
            self._room.hold(self._room_bytes(0))
            return [await self._answer(part) for part in self._parts]
        finally:
            for part in self._parts:
                part.cursor.close()

    def _part(self, access: PartitionAccess, position: Position) -> _Part:
        cursor = access.cursor(position.offset, self._wake.set)
        if position.leader_epoch is not None:
            cursor.seek(position.offset, position.leader_epoch)
        return _Part(
            access,
            position,
            cursor,
            position.offset,
            position.high_watermark,
            position.log_start_offset,
        )

    async def _collect(self) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._terms.max_wait_s
        disk_deadline = max(deadline, clock() + self._limits.disk_wait_s_max)
        while True:
            self._wake.clear()
            await self._sweep()
            if self._is_enough():
                return
            until = deadline
            if clock() >= deadline:
                # Time is up, but what is there is delivered: "at once" does not mean "only what
                # happens to be in memory".
                if self._size_bytes or not any(part.has_more for part in self._parts):
                    return
                until = disk_deadline
                if clock() >= until:
                    return
            await self._woken_by(until)

    async def _woken_by(self, deadline: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._wake.wait()

    def _is_enough(self) -> bool:
        if self._crowded:
            return True
        return self._size_bytes >= self._terms.min_bytes or any(
            part.refusal is not None or part.full for part in self._parts
        )

    async def _sweep(self) -> None:
        """Ask every partition in turn for its share, until nobody has more or there is enough."""
        parts = self._parts
        first = self._terms.first % len(parts)
        waiting = parts[first:] + parts[:first]
        share = max(1, self._terms.max_bytes // len(parts))
        while waiting:
            again = []
            for part in waiting:
                if self._size_bytes >= self._terms.max_bytes:
                    return
                if not self._found_room(part):
                    self._crowded = True
                    return
                if await self._ask(part, self._share(share)):
                    again.append(part)
            waiting = again
        self._room.hold(self._room_bytes(0))

    def _share(self, share_bytes: int) -> int:
        """Return how much of a partition is read next."""
        left = min(share_bytes, self._terms.max_bytes - self._size_bytes)
        held = self._room.held_bytes >= _COPIES * (self._size_bytes + 1)
        return left if held else min(left, self._limits.crowded_bytes)

    def _found_room(self, part: _Part) -> bool:
        """Take room for a partition's next chunk; what is little and in memory needs none.

        Raises:
            Refusal: OVERLOADED, where there is nothing to answer with either.
        """
        if part.cursor.reads_ahead:
            return True  # for which there was room
        if self._room.hold(self._room_bytes(part.access.max_batch_bytes)):
            return True
        little = self._limits.crowded_bytes - self._size_bytes
        size = part.cursor.in_memory(little) if little > 0 else None
        if size is not None and size <= little:
            return True
        if self._size_bytes:
            return False
        raise Refusal(
            Reason.OVERLOADED,
            "the broker has as much on its way to readers as this connection, or all of them, "
            "may have (limits.max_delivery_bytes); read what was sent, then ask again",
        )

    def _room_bytes(self, more: int) -> int:
        """Return how much room is needed: for what was and will be read, and the answer."""
        ahead = sum(
            [part.access.max_batch_bytes for part in self._parts if part.cursor.reads_ahead]
        )
        return _COPIES * (self._size_bytes + more) + ahead

    async def _ask(self, part: _Part, share_bytes: int) -> bool:
        """Take a partition's next chunk; return whether it is worth asking it again."""
        if part.full or part.refusal is not None:
            return False
        try:
            chunk = part.cursor.take(share_bytes)
            if chunk is None:
                return False
            await self._add(part, chunk, share_bytes)
        except Refusal as refusal:
            part.full = True
            if not part.pieces:
                part.refusal = refusal
            return False
        return not part.full

    async def _add(self, part: _Part, chunk: Chunk, share_bytes: int) -> None:
        """Add a chunk, or as much of it as fits the message.

        Raises:
            Refusal: CORRUPT_DATA.
        """
        pieces: Sequence[StoredBatch] = chunk.batches
        next_offset, whole = chunk.next_offset, True
        unpack = self._form.unpacks(chunk.batches)
        if unpack is not None:
            step = await unpacked(
                self._form,
                self._threads,
                unpack,
                Source(part.access.topic, part.access.id),
                chunk.batches,
                chunk.first_offset,
                share_bytes,
            )
            pieces, whole = step.pieces, not step.rest
            next_offset = chunk.next_offset if whole else step.next_offset
        part.high_watermark = max(part.high_watermark, chunk.high_watermark)
        part.log_start_offset = max(part.log_start_offset, chunk.log_start_offset)
        for piece in pieces:
            size = len(piece.data) + PIECE_OVERHEAD_BYTES
            if self._size_bytes and self._size_bytes + size > self._limits.frame_bytes_max:
                part.full = True
                return
            part.pieces.append(piece)
            part.next_offset = max(part.next_offset, piece.next_offset)
            self._size_bytes += size
        part.next_offset = max(part.next_offset, next_offset)
        part.full = not whole

    async def _answer(self, part: _Part) -> Delivery | Refusal:
        if part.refusal is not None:
            return part.refusal
        if not part.pieces:
            try:
                marks = await part.access.watermarks()
            except Refusal as refusal:
                return refusal
            part.high_watermark = marks.high_watermark
            part.log_start_offset = marks.log_start_offset
        return part.delivery()
