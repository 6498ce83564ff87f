"""A record batch as the machines see it: what the producer said, the broker's stamp, stored bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

FORMAT_VERSION = 1


class PartitionId(NamedTuple):
    """A partition for good: a topic made anew under the same name has another topic id."""

    topic_id: bytes
    partition: int

    def __str__(self) -> str:
        """Name it for logs."""
        return f"{self.topic_id.hex()}-{self.partition}"


class BatchHeader(NamedTuple):
    """What a validated batch says of itself; every field is filled in.

    Attributes:
        record_count: records in the batch, at least 1.
        size_bytes: of the record set as it stands, compressed if compressed.
        producer_id: 0 for a producer that is not idempotent.
        producer_epoch: of the producer id.
        base_sequence: the first record's sequence.
        max_timestamp_ms: the largest timestamp of its records; 0 where none has one, which stands
            for the time of the append.
    """

    record_count: int
    size_bytes: int
    producer_id: int = 0
    producer_epoch: int = 0
    base_sequence: int = 0
    max_timestamp_ms: int = 0

    @property
    def last_sequence(self) -> int:
        """The last record's sequence."""
        return self.base_sequence + self.record_count - 1


class Stamp(NamedTuple):
    """What the broker says of a batch: its place, its time, its epoch."""

    base_offset: int
    last_offset_delta: int
    leader_epoch: int
    append_time_ms: int
    partition_max_timestamp_ms: int
    attributes: int = 0
    format_version: int = FORMAT_VERSION

    @property
    def next_offset(self) -> int:
        """Where the next batch begins: never base plus count, for batches may have gaps."""
        return self.base_offset + self.last_offset_delta + 1


class StoredBatch(NamedTuple):
    """A stamped batch as it is stored and delivered.

    Attributes:
        base_offset: the first record's offset.
        next_offset: where the next batch begins.
        leader_epoch: of its append.
        data: a serialised riverrun.v1.RecordBatch.
    """

    base_offset: int
    next_offset: int
    leader_epoch: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ScannedBatch:
    """Everything that recovery needs to know of a stored batch, its checksums verified."""

    header: BatchHeader
    stamp: Stamp
    data: bytes


class IncomingBatch(Protocol):
    """A batch that has passed validation and waits for its stamp."""

    @property
    def header(self) -> BatchHeader:
        """What the batch says of itself."""
        ...

    def stamped(self, partition: PartitionId, stamp: Stamp) -> bytes:
        """Return the bytes to store: the batch with its stamp and the checksum over its place."""
        ...

    def unstamped(self) -> bytes:
        """Return the bytes that another broker takes over to stamp them; before `stamped` only."""
        ...
