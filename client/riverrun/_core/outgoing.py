"""One encoded batch on its way to a partition, and whom to tell what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from riverrun._core.records import TopicPartition
from riverrun.errors import RiverrunError


class Receipt(Protocol):
    """Whoever waits for the records of a batch. Calls cover a run of its records, in any order."""

    def acknowledged(self, first: int, count: int, base_offset: int | None) -> None:
        """Records `first` to `first + count` are written, at `base_offset` and behind it.

        The offset is None where they had been written so long ago that it is forgotten.
        """
        ...

    def failed(self, first: int, count: int, error: RiverrunError) -> None:
        """Records `first` to `first + count` are not written, or nobody knows."""
        ...


@dataclass(slots=True, eq=False)
class OutgoingBatch:
    """Records of one partition, encoded, and how far they have come.

    Attributes:
        partition: where to.
        records: a serialised record set; compressed just before it is first sent, if at all.
        record_count: how many there are.
        first_timestamp_ms: of the first record.
        max_timestamp_ms: of the latest record.
        deadline_s: when to give up, on the monotonic clock.
        reserved_bytes: what it takes of the producer's buffer.
        receipt: whom to tell.
        first_index: which of the receipt's records is the first one here.
        accepted_s: when its first record was taken, on the monotonic clock.
        codec: how `records` is compressed; 0 as long as it is not.
        crc: of `records` as they stand; None before it was taken.
        attempts: how often it was sent, by the batch that it is a half of too.
        base_sequence: None before it was first sent.
        tag: of its newest append on the current stream; 0 while no answer is awaited.
        doubtful: an append of it may have been written without our knowing.
        behind_gap: something before it is known not to be written, so it cannot be written either.
        restart: it has to be given a sequence of the next epoch before it is sent again.
    """

    partition: TopicPartition
    records: bytes
    record_count: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    deadline_s: float
    reserved_bytes: int
    receipt: Receipt
    first_index: int = 0
    accepted_s: float = 0.0
    codec: int = 0
    crc: int | None = None
    attempts: int = 0
    base_sequence: int | None = None
    epoch: int = 0
    tag: int = 0
    doubtful: bool = False
    behind_gap: bool = False
    restart: bool = False
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        """Remember the size, which counts against windows whatever compression makes of it."""
        self.size_bytes = len(self.records)

    @property
    def uncertain(self) -> bool:
        """Whether it may have been written, or may still be."""
        return self.doubtful or (bool(self.tag) and not self.behind_gap)


class Resolution(NamedTuple):
    """What became of a batch for good.

    Attributes:
        batch: the batch.
        base_offset: the first record's offset; None where forgotten, and on an error.
        error: why it is not written, or why nobody knows; None where it is written.
    """

    batch: OutgoingBatch
    base_offset: int | None
    error: RiverrunError | None

    def deliver(self) -> None:
        """Tell whoever waits."""
        batch = self.batch
        if self.error is None:
            batch.receipt.acknowledged(batch.first_index, batch.record_count, self.base_offset)
        else:
            batch.receipt.failed(batch.first_index, batch.record_count, self.error)
