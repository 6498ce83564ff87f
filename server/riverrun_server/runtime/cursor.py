"""One reader's place in a partition that is led here: the hot tail, else short reads of the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import StoredBatch
from riverrun_server.ports.partitions import Chunk
from riverrun_server.runtime.partition_flow import PartitionFlow


class Readable(Protocol):
    """What a cursor needs of its partition."""

    @property
    def high_watermark(self) -> int:
        """What lies below it is committed."""
        ...

    @property
    def flow(self) -> PartitionFlow:
        """Counts what readers are handed."""
        ...

    @property
    def log_start_offset(self) -> int:
        """The first offset that can be read."""
        ...

    def check_readable(self, offset: int, leader_epoch: int | None) -> None:
        """Raise the Refusal for an offset that cannot be read."""
        ...

    def read_tail(self, offset: int, max_bytes: int) -> list[StoredBatch] | None:
        """Return committed batches from memory, or None where they are not there."""
        ...

    def read_disk(self, offset: int, max_bytes: int) -> asyncio.Future[list[StoredBatch]]:
        """Return committed batches from the disk, read in a thread."""
        ...

    def wait(self, wake: Callable[[], None]) -> None:
        """Call `wake` once, when the high watermark has moved."""
        ...

    def unwait(self, wake: Callable[[], None]) -> None:
        """Take a `wait` back."""
        ...


class LocalCursor:
    """Implements ports.partitions.Cursor.

    While it reads the disk it is one chunk ahead: the next read begins when a chunk is taken, so
    that disk and network work at the same time. It is not where whoever takes it asks for that.

    Transitions: idle -> waiting (at the high watermark) -> idle; idle -> reading (behind the hot
    tail) -> ready | refused -> idle; any -> idle (seek); any -> closed.
    """

    def __init__(self, partition: Readable, offset: int, wake: Callable[[], None]) -> None:
        self._partition = partition
        self._wake = wake
        self.position = offset
        # The epoch of the record before the position: from the reader, then from what it read.
        self._leader_epoch: int | None = None
        self._reading: asyncio.Future[list[StoredBatch]] | None = None
        self._ready: list[StoredBatch] | None = None
        self._refusal: Refusal | None = None
        self._closed = False

    @property
    def reads_ahead(self) -> bool:
        """Whether it reads the disk, or holds what it has read there."""
        return self._reading is not None or self._ready is not None

    def in_memory(self, max_bytes: int) -> int | None:
        """Return how many bytes `take` would return from memory, or None."""
        if self.reads_ahead:
            return None
        if self._refusal or self.position >= self._partition.high_watermark:
            return 0
        batches = self._partition.read_tail(self.position, max_bytes)
        return None if batches is None else sum([len(batch.data) for batch in batches])

    def take(self, max_bytes: int, *, read_ahead: bool = True) -> Chunk | None:
        """Return the next chunk and move behind it, or None where nothing is ready."""
        if self._refusal:
            raise self._refusal
        if self._ready is not None:
            batches, self._ready = self._ready, None
            # A trim may have come while the disk was read: what it deleted is not skipped silently.
            self._partition.check_readable(self.position, self._leader_epoch)
            chunk = self._deliver(batches, from_disk=True)
            if read_ahead:
                self._read_ahead(max_bytes)
            return chunk
        if self._reading:
            return None
        self._partition.check_readable(self.position, self._leader_epoch)
        if self.position >= self._partition.high_watermark:
            self._partition.wait(self._wake)
            return None
        batches_in_tail = self._partition.read_tail(self.position, max_bytes)
        if batches_in_tail is not None:
            return self._deliver(batches_in_tail, from_disk=False)
        self._read(max_bytes)
        return None

    def seek(self, offset: int, leader_epoch: int | None = None) -> None:
        """Go elsewhere; what was being read is dropped."""
        self._partition.unwait(self._wake)
        self._reading = self._ready = self._refusal = None
        self.position, self._leader_epoch = offset, leader_epoch

    def close(self) -> None:
        """Let go of everything."""
        self._closed = True
        self._partition.unwait(self._wake)
        self._reading = self._ready = None

    def _deliver(self, batches: list[StoredBatch], *, from_disk: bool) -> Chunk:
        first = self.position
        high_watermark = self._partition.high_watermark
        if batches:
            self.position = max(first, batches[-1].next_offset)
            self._leader_epoch = batches[-1].leader_epoch
        else:
            # Nothing is stored between here and the watermark: the offsets have a gap.
            self.position = high_watermark
        assert self.position <= high_watermark, (self.position, high_watermark)
        size_bytes = sum(len(batch.data) for batch in batches)
        self._partition.flow.delivered(self.position - first, size_bytes, from_disk=from_disk)
        return Chunk(
            first, self.position, batches, high_watermark, self._partition.log_start_offset
        )

    def _read_ahead(self, max_bytes: int) -> None:
        if self.position >= self._partition.high_watermark:
            return
        # Back in the hot tail, the next `take` needs no disk.
        if self._partition.read_tail(self.position, 1) is None:
            self._read(max_bytes)

    def _read(self, max_bytes: int) -> None:
        self._reading = self._partition.read_disk(self.position, max_bytes)
        self._reading.add_done_callback(self._read_done)

    def _read_done(self, reading: asyncio.Future[list[StoredBatch]]) -> None:
        if self._closed or reading is not self._reading:
            reading.exception() if not reading.cancelled() else None
            return
        self._reading = None
        error = _CANCELLED if reading.cancelled() else reading.exception()
        if error is None:
            self._ready = reading.result()
        else:
            # A bug must not leave the reader waiting either.
            self._refusal = error if isinstance(error, Refusal) else _unreadable(error)
        self._wake()


_CANCELLED = Refusal(
    Reason.SHUTTING_DOWN, "the broker is shutting down and reads its disk no more; ask again"
)


def _unreadable(error: BaseException) -> Refusal:
    return Refusal(Reason.INTERNAL, f"the broker failed to read its disk: {error}")
