"""Reading once: collect until there is enough or the time is up, never polling in between.

What has to be read from the disk is read a few partitions at a time, and for each there is room before
it is. So whoever asks for more partitions than there is room for at once gets them in turns, or as many
as the disk and the room allow. Partitions are asked in turn, another one first in each call
(runtime/fetch_terms), and what the first has is collected before all others: where it is on the disk,
they wait for that. So none of them starves, neither beside busier ones that are in memory nor behind
those that are read faster.
"""

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
from riverrun_server.runtime.fetch_terms import FetchTerms, first_of_turn
from riverrun_server.runtime.sources import unpacked
from riverrun_server.wire.deliveries import pieces_bytes
from riverrun_server.wire.forms import Form
from riverrun_server.wire.unpacking import Source

# What is read, and the answer that is made of it.
_COPIES = 2


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
    # What it may take, or reads ahead: so much room is held for it, and for the answer of that.
    room_bytes: int = 0
    # Asked of its cursor once and not in every sweep: it stays so until it is read.
    known_cold: bool = False

    @property
    def may_have_more(self) -> bool:
        """Whether it is worth asking."""
        return not self.full and self.refusal is None

    @property
    def is_cold(self) -> bool:
        """Whether it has something that has to be read from the disk, and is not."""
        if not self.known_cold and not self.cursor.reads_ahead:
            self.known_cold = self.cursor.in_memory(1) is None
        return self.known_cold

    @property
    def ahead_bytes(self) -> int:
        """How much is on its way from the disk, or has been read there and is not collected."""
        return self.room_bytes if self.cursor.reads_ahead else 0

    @property
    def has_more(self) -> bool:
        """Whether there is something committed that has not been read."""
        return self.may_have_more and self.next_offset < self.high_watermark

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
    ... -> answered: there is enough, a partition failed, or the time is up; and nothing that is
    known to be there is still on its way from the disk, unless that takes too long.

    Args:
        threads: where large and compressed batches are taken apart.
        limits: the bounds of reading.
        form: how deliveries look.
        terms: when it is answered.
        room: for what is collected, and the answer; where there is no more, the answer is what there
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
        self._is_late = False
        self._parts: list[_Part] = []
        self._wake = asyncio.Event()
        # What was collected, with what each piece costs in the message.
        self._size_bytes = 0
        # Of all parts.
        self._ahead_bytes = 0

    async def run(
        self, accesses: Sequence[PartitionAccess], positions: Sequence[Position]
    ) -> list[Delivery | Refusal]:
        """Read from some positions; a delivery or a refusal for each, in order."""
        try:
            for access, position in zip(accesses, positions, strict=True):
                self._parts.append(self._part(access, position))
            await self._collect()
            # From here on only the answer is held, until it has been sent; what is still read from
            # the disk is dropped as it comes.
            self._ahead_bytes = 0
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
        began, limits = clock(), self._limits
        deadline = began + self._terms.max_wait_s
        disk_deadline = max(deadline, began + limits.disk_wait_s_max)
        answer_deadline = began + limits.answer_wait_s_max
        first = first_of_turn(self._terms.turn, len(self._parts))
        in_turn = self._parts[first:] + self._parts[:first]
        while True:
            self._wake.clear()
            self._is_late = clock() >= answer_deadline
            await self._sweep(in_turn)
            if self._crowded:
                return
            if self._waits_for_disk():
                until = answer_deadline
            elif self._is_enough():
                return
            elif clock() < deadline:
                until = deadline
            # Time is up, but what is there is delivered: "at once" does not mean "only what happens
            # to be in memory".
            elif self._size_bytes or not any(part.has_more for part in self._parts):
                return
            elif clock() < disk_deadline:
                until = disk_deadline
            else:
                return
            await self._woken_by(until)

    async def _woken_by(self, deadline: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._wake.wait()

    def _is_enough(self) -> bool:
        return self._size_bytes >= self._terms.min_bytes or any(
            not part.may_have_more for part in self._parts
        )

    def _waits_for_disk(self) -> bool:
        """Whether something is on its way, of a partition of which there is nothing yet."""
        return not (self._is_late or self._size_bytes >= self._terms.max_bytes) and any(
            part.cursor.reads_ahead and not part.pieces for part in self._parts
        )

    async def _sweep(self, in_turn: Sequence[_Part]) -> None:
        """Ask every partition in turn for its share, until nobody has more or there is enough.

        Those for which there is no room are passed over, until others have given theirs back.

        Raises:
            Refusal: OVERLOADED, where there is nothing to answer with and nothing on its way.
        """
        self._ahead_bytes = sum([part.ahead_bytes for part in in_turn])
        share = max(1, self._terms.max_bytes // len(in_turn))
        waiting, passed_over = in_turn, list[_Part]()
        while waiting:
            size_bytes, again, passed_over = self._size_bytes, list[_Part](), list[_Part]()
            disk_is_busy = False
            for part in waiting:
                if self._size_bytes >= self._terms.max_bytes:
                    return
                if disk_is_busy and part.known_cold:
                    passed_over.append(part)
                elif not part.may_have_more or self._is_left(part, in_turn[0]):
                    continue
                elif not self._found_room(part, share):
                    passed_over.append(part)
                    disk_is_busy = disk_is_busy or part.known_cold
                elif await self._ask(part, share):
                    again.append(part)
            waiting = [*passed_over, *again] if again or self._size_bytes > size_bytes else []
        self._room.hold(self._room_bytes(0))
        # A read that failed meanwhile has woken it.
        if passed_over and not self._ahead_bytes and not self._wake.is_set():
            self._no_room()

    def _is_left(self, part: _Part, first: _Part) -> bool:
        """Whether a partition is not asked now."""
        if part.is_cold:
            # The answer is not kept waiting for a second chunk, nor for a disk that is slow.
            enough = self._size_bytes >= self._terms.min_bytes
            return enough and (self._is_late or bool(part.pieces))
        # What the first has, has room in the answer.
        on_its_way = first.cursor.reads_ahead and not first.pieces and not self._is_late
        return on_its_way and part is not first

    def _found_room(self, part: _Part, share_bytes: int) -> bool:
        """Take room for what a partition may give next; what is little and in memory needs none."""
        if part.cursor.reads_ahead:
            return True  # for which there was room
        left = min(share_bytes, self._terms.max_bytes - self._size_bytes)
        largest = part.access.max_batch_bytes
        for size in (left, largest) if left > largest else (largest,):
            if part.is_cold and self._is_too_much_ahead(size):
                continue
            # What is little and in memory was collected without room; with it, it is no one batch.
            one_batch = size == largest and not self._size_bytes
            if self._room.hold(self._room_bytes(size), one_batch=one_batch):
                part.room_bytes = size
                return True
        part.room_bytes = self._limits.crowded_bytes - self._size_bytes
        if part.is_cold or part.room_bytes <= 0:
            return False
        little = part.cursor.in_memory(part.room_bytes)
        return little is not None and little <= part.room_bytes

    def _is_too_much_ahead(self, size_bytes: int) -> bool:
        """Whether so much is on its way from the disk that no more should be begun."""
        ahead_bytes, limit = self._ahead_bytes, self._limits.read_ahead_bytes
        return bool(ahead_bytes) and ahead_bytes + size_bytes > limit

    def _no_room(self) -> None:
        """Answer with what there is.

        Raises:
            Refusal: OVERLOADED, where there is nothing.
        """
        self._crowded = True
        if not self._size_bytes and all(part.refusal is None for part in self._parts):
            raise Refusal(
                Reason.OVERLOADED,
                "the broker has as much on its way to readers as this connection, or all of them, "
                "may have (limits.max_delivery_bytes); read what was sent, then ask again",
            )

    def _room_bytes(self, more: int) -> int:
        """Return how much room is needed: for what was and will be read, and the answer."""
        return _COPIES * (self._size_bytes + self._ahead_bytes + more)

    async def _ask(self, part: _Part, share_bytes: int) -> bool:
        """Take a partition's next chunk; return whether it is worth asking it again."""
        left = min(share_bytes, self._terms.max_bytes - self._size_bytes, part.room_bytes)
        ahead_bytes, part.known_cold = part.ahead_bytes, False
        try:
            # Each reads one chunk in its turn; the next one's turn may come before its second.
            chunk = part.cursor.take(left, read_ahead=False)
            if chunk is None:
                return False
            await self._add(part, chunk, left)
        except Refusal as refusal:
            part.full = True
            if not part.pieces:
                part.refusal = refusal
            return False
        finally:
            self._ahead_bytes += part.ahead_bytes - ahead_bytes
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
