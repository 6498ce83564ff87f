"""How a service reaches a partition, wherever it is led: here, or through a gateway elsewhere."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from riverrun_server.core.errors import LeaderHint, Refusal
from riverrun_server.core.log.batch import IncomingBatch, PartitionId, StoredBatch


class Acks(enum.IntEnum):
    """When an append is answered, numbered as on the wire."""

    ALL = 1
    LEADER = 2
    NONE = 3


class Appended(NamedTuple):
    """The answer to an append.

    Attributes:
        base_offset: the first record's offset; None where it failed, or where it is a duplicate so
            old that its offset is forgotten.
        record_count: of the batch.
        duplicate: it had been written before and was not written again.
        log_start_offset: the first offset that can be read.
        error: why it was not appended, or why nobody knows.
        leader: who leads the partition, where that is another broker.
    """

    base_offset: int | None
    record_count: int
    log_start_offset: int = 0
    duplicate: bool = False
    error: Refusal | None = None
    leader: LeaderHint | None = None


@dataclass(slots=True)
class Append:
    """One batch on its way into a partition.

    Attributes:
        batch: validated, without a stamp yet.
        acks: when `done` is called.
        done: called exactly once, on the loop, perhaps before `submit` returns. Refusals overtake
            appends that wait for their acks: who promises an order keeps it.
        expected_offset: append only if the log end is this.
    """

    batch: IncomingBatch
    acks: Acks
    done: Callable[[Appended], None]
    expected_offset: int | None = None

    def refuse(self, refusal: Refusal, log_start_offset: int = 0) -> None:
        """Answer it: nothing of it was appended."""
        count = self.batch.header.record_count
        self.done(Appended(None, count, log_start_offset, error=refusal))


@dataclass(frozen=True, slots=True)
class Watermarks:
    """The offsets that bound a partition.

    Attributes:
        log_start_offset: the first offset that can be read.
        high_watermark: what lies below it is committed and can be read.
        log_end_offset: what the next record gets.
        leader_epoch: the current one.
        size_bytes: of the stored batches from the log start on.
        lags: for each broker that follows, how many offsets lie between what it is known to have on
            its disk and the log end.
    """

    log_start_offset: int
    high_watermark: int
    log_end_offset: int
    leader_epoch: int
    size_bytes: int
    lags: Mapping[int, int] = field(default_factory=dict)


class Flow(Protocol):
    """What has passed through a partition; counts of this process, but for what was appended."""

    @property
    def appended_bytes(self) -> int:
        """Bytes of all batches ever appended, as stored."""
        ...

    @property
    def delivered_records(self) -> int:
        """Records handed to readers, counted by offsets."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes of batches handed to readers from memory."""
        ...

    @property
    def disk_bytes(self) -> int:
        """Bytes of batches handed to readers that were read from the disk."""
        ...


class NoFlow:
    """Implements Flow for what nothing passes through."""

    appended_bytes = delivered_records = memory_bytes = disk_bytes = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of committed batches, read in one step.

    Attributes:
        first_offset: the position it was read from; the first batch may begin before it.
        next_offset: the position to go on from. Batches end at or before it.
        batches: in order; may be empty only where offsets have a gap.
        high_watermark: at the time of reading.
        log_start_offset: at the time of reading.
    """

    first_offset: int
    next_offset: int
    batches: list[StoredBatch]
    high_watermark: int
    log_start_offset: int


class Cursor(Protocol):
    """One reader's place in one partition.

    A cursor never buffers more than one chunk. `wake`, given to `PartitionAccess.cursor`, is called
    on the loop whenever `take` is worth calling again after it returned None; it may be called
    without need.
    """

    @property
    def position(self) -> int:
        """The next offset to be read."""
        ...

    @property
    def reads_ahead(self) -> bool:
        """Whether it reads or holds something that was not taken yet, from elsewhere than memory."""
        ...

    def in_memory(self, max_bytes: int) -> int | None:
        """Return how many bytes `take` would return from memory; None where it would read the disk."""
        ...

    def take(self, max_bytes: int, *, read_ahead: bool = True) -> Chunk | None:
        """Return the next chunk and move behind it, or None where nothing is ready.

        With `read_ahead` the cursor may begin to read the one after it.
        At least one batch is returned where there is one, then as many as fit into `max_bytes`.

        Raises:
            Refusal: OFFSET_OUT_OF_RANGE, LOG_TRUNCATED, CORRUPT_DATA, PARTITION_OFFLINE; the cursor
                stays where it is and may be moved by `seek`.
        """
        ...

    def seek(self, offset: int, leader_epoch: int | None = None) -> None:
        """Go elsewhere; what was being read is dropped.

        `leader_epoch` is that of the record before `offset`, where the reader has read it.
        """
        ...

    def close(self) -> None:
        """Let go of everything; `wake` is not called again."""
        ...


class PartitionAccess(Protocol):
    """One partition as a service sees it."""

    @property
    def topic(self) -> str:
        """The topic's name."""
        ...

    @property
    def id(self) -> PartitionId:
        """The partition for good."""
        ...

    @property
    def max_batch_bytes(self) -> int:
        """The largest batch that the topic allows, also expanded."""
        ...

    @property
    def flow(self) -> Flow:
        """What has passed through the partition."""
        ...

    @property
    def led_here(self) -> bool:
        """Whether another broker has no part in what is asked of it just now."""
        ...

    def direct(self) -> PartitionAccess:
        """Return the partition for a client that reaches the leader itself.

        It is the partition where it is led here; else it refuses everything, NOT_LEADER with a hint.
        """
        ...

    def submit(self, append: Append) -> None:
        """Append a batch; never raises, the answer comes through `append.done`."""
        ...

    async def watermarks(self) -> Watermarks:
        """Return the partition's offsets.

        Raises:
            Refusal: PARTITION_OFFLINE, OFFSET_NOT_AVAILABLE.
        """
        ...

    async def offset_at_time(self, time_ms: int) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record at or after a time, or None.

        Raises:
            Refusal: as `watermarks`.
        """
        ...

    def cursor(self, offset: int, wake: Callable[[], None]) -> Cursor:
        """Begin to read at an offset."""
        ...

    async def trim(self, before_offset: int) -> int:
        """Delete the records before an offset (-1: all that is committed); return the log start.

        Raises:
            Refusal: OFFSET_OUT_OF_RANGE above the high watermark; storage reasons.
        """
        ...


class Directory(Protocol):
    """Finds partitions by name."""

    def partition(self, topic: str, topic_id: bytes, partition: int) -> PartitionAccess:
        """Return one partition; `topic` or `topic_id` may be empty, not both.

        Raises:
            Refusal: TOPIC_NOT_FOUND, PARTITION_NOT_FOUND, TOPIC_ID_MISMATCH, INVALID_REQUEST.
        """
        ...

    def partitions(self, topic: str, topic_id: bytes = b"") -> list[PartitionAccess]:
        """Return all partitions of a topic in order.

        Raises:
            Refusal: as `partition`.
        """
        ...

    def is_internal(self, topic: str) -> bool:
        """Return whether a topic belongs to the brokers."""
        ...
