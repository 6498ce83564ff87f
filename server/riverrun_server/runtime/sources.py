"""The cursors of one stream, and the one chunk that is being taken apart.

A cursor is asked only when what it has is to be sent next, and a chunk is taken apart in steps, so
what a stream holds does not grow with what there is to read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.core.reading.events import Run
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.partition import PartitionReading
from riverrun_server.core.reading.places import Position
from riverrun_server.ports.partitions import Cursor, PartitionAccess
from riverrun_server.ports.threads import Threads
from riverrun_server.wire.forms import Form
from riverrun_server.wire.unpacking import Source, Unpack, Unpacked


@dataclass(slots=True)
class _Chunk:
    """A chunk that is taken apart in steps, and the batches of it that are left."""

    partition: PartitionId
    unpack: Unpack
    rest: Sequence[StoredBatch]
    whole: Run


async def unpacked(
    form: Form,
    threads: Threads,
    unpack: Unpack,
    source: Source,
    batches: Sequence[StoredBatch],
    first: int,
    limit_bytes: int,
) -> Unpacked:
    """Take batches apart, in a thread unless that would take longer than the work.

    Raises:
        Refusal: CORRUPT_DATA.
    """
    if form.is_cheap(batches):
        return unpack(source, batches, first, limit_bytes)
    return await threads.run(unpack, source, batches, first, limit_bytes)


class Sources:
    """Where a stream reads from.

    Args:
        form: how the stream's deliveries look.
        threads: where large and compressed batches are taken apart.
        limits: the bounds of reading.
        woke: called when a partition may have something to read.
    """

    def __init__(
        self,
        form: Form,
        threads: Threads,
        limits: ReadingLimits,
        woke: Callable[[PartitionId], None],
    ) -> None:
        self._form = form
        self._threads = threads
        self._limits = limits
        self._woke = woke
        self._cursors: dict[PartitionId, Cursor] = {}
        self._chunk: _Chunk | None = None
        self._ahead: dict[PartitionId, int] = {}

    @property
    def ahead_bytes(self) -> int:
        """How much room is spoken for by what was read ahead."""
        return sum(self._ahead.values())

    def room_of(self, partition: PartitionId) -> int | None:
        """Return how much room is spoken for by what was read ahead of a partition, if there is such."""
        return self._ahead.get(partition)

    @property
    def has_chunk(self) -> bool:
        """Whether a chunk is being taken apart, for which there is room."""
        return self._chunk is not None

    def in_memory(self, partition: PartitionId, max_bytes: int) -> bool:
        """Whether the next chunk is in memory, and no larger than this."""
        size = self._cursors[partition].in_memory(max_bytes)
        return size is not None and size <= max_bytes

    def stand(self, access: PartitionAccess, position: Position) -> None:
        """Let a partition be read from a position; what was read of it is dropped."""
        partition = access.id
        self.drop(partition)
        cursor = self._cursors.get(partition)
        if cursor is None:
            cursor = access.cursor(position.offset, lambda: self._woke(partition))
            self._cursors[partition] = cursor
            if position.leader_epoch is None:
                return
        cursor.seek(position.offset, position.leader_epoch)

    def drop(self, partition: PartitionId) -> None:
        """Drop what was read of a partition; its cursor stands wherever it stands."""
        self.drop_chunk(partition)
        self._ahead.pop(partition, None)

    def drop_chunk(self, partition: PartitionId) -> None:
        """Drop what is left of the chunk that is being taken apart, if it is this partition's."""
        if self._chunk is not None and self._chunk.partition == partition:
            self._chunk = None

    def forget(self, partition: PartitionId) -> None:
        """Read a partition no more, if it is read: what was read is dropped, its cursor closed."""
        self.drop(partition)
        if (cursor := self._cursors.pop(partition, None)) is not None:
            cursor.close()

    def close(self) -> None:
        """Let go of every cursor."""
        for cursor in self._cursors.values():
            cursor.close()
        self._chunk = None
        self._ahead.clear()

    async def next_run(
        self,
        reading: PartitionReading,
        room_bytes: int,
        sharing: int,
        speaks_for: int,
        *,
        read_ahead: bool = True,
    ) -> Run | None:
        """Return what to send next of a partition, or None where nothing is ready.

        Args:
            reading: the partition, and where its reader stands.
            room_bytes: what can be sent.
            sharing: how many cursors share what may be read ahead.
            speaks_for: how much room is spoken for by what the cursor reads ahead.
            read_ahead: whether it may go on to read ahead once it is taken from.

        Raises:
            Refusal: of the cursor, or CORRUPT_DATA.
        """
        if self._chunk is None:
            cursor = self._cursors[reading.id]
            taken = cursor.take(self._chunk_bytes(room_bytes, sharing), read_ahead=read_ahead)
            if cursor.reads_ahead:
                # What was taken for it, whatever it would be now: credit comes in between.
                self._ahead.setdefault(reading.id, speaks_for)
            else:
                self._ahead.pop(reading.id, None)
            if taken is None:
                return None
            whole = Run(
                taken.batches, taken.next_offset, taken.high_watermark, taken.log_start_offset
            )
            unpack = self._form.unpacks(taken.batches)
            if unpack is None:
                return whole
            self._chunk = _Chunk(reading.id, unpack, taken.batches, whole)
        return await self._next_step(self._chunk, reading)

    async def _next_step(self, chunk: _Chunk, reading: PartitionReading) -> Run:
        """Take the next step of a chunk apart; what is left stays for the one after."""
        assert chunk.partition == reading.id, (chunk.partition, reading.id)
        self._chunk = None
        source = Source(reading.topic, reading.id)
        step = await unpacked(
            self._form,
            self._threads,
            chunk.unpack,
            source,
            chunk.rest,
            reading.offset,
            self._limits.run_bytes,
        )
        if not step.rest:
            return chunk.whole._replace(pieces=step.pieces)
        chunk.rest = step.rest
        self._chunk = chunk
        return chunk.whole._replace(pieces=step.pieces, next_offset=step.next_offset, more=True)

    def _chunk_bytes(self, room_bytes: int, sharing: int) -> int:
        limits = self._limits
        share = max(limits.chunk_bytes_min, limits.read_ahead_bytes // max(1, sharing))
        if self._form.unpack is not None:
            room_bytes = min(room_bytes, limits.run_bytes)
        return min(room_bytes, share)
