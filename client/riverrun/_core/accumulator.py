"""Single records gather here until their partition's batch is full, or the stream has time for it.

A batch that is not full goes out once it has lingered and its partition has less than two batches
under way, so records gather by themselves while answers are slow (Nagle's rule), and a lone record
leaves at once.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from riverrun._core.encoding import MAX_BATCH_RECORDS, Row, encode_rows
from riverrun._core.outgoing import OutgoingBatch, Receipt
from riverrun._core.records import TopicPartition

_NO_LIMIT = 1 << 62
R = TypeVar("R", bound=Receipt)


@dataclass(slots=True)
class OpenBatch(Generic[R]):
    """Records of one partition that are not encoded yet.

    Attributes:
        receipt: whom to tell; knows the records by their place here.
        created_s: when the first record came, on the monotonic clock.
        accepted_s: when it was taken, which is earlier where its topic had to be learnt first.
    """

    receipt: R
    created_s: float
    accepted_s: float
    rows: list[Row] = field(default_factory=list)
    size_bytes: int = 0


class UnencodableError(Exception):
    """An open batch that cannot be encoded, by a bug: a record should have been refused.

    Attributes:
        batch: what is to be resolved; without records.
        cause: what went wrong.
    """

    def __init__(self, batch: OutgoingBatch, cause: Exception) -> None:
        super().__init__(f"{batch.partition}: {type(cause).__name__}: {cause}")
        self.batch = batch
        self.cause = cause


class Accumulator(Generic[R]):
    """The open batches of a producer, one a partition, oldest first.

    Args:
        new_receipt: makes what is told about a batch's records.
        batch_bytes: how large a batch may grow; a larger record gets one of its own.
        linger_s: how long a batch that is not full waits for more.
        delivery_timeout_s: from the first record to the batch's deadline.
    """

    def __init__(
        self,
        new_receipt: Callable[[TopicPartition], R],
        *,
        batch_bytes: int,
        linger_s: float,
        delivery_timeout_s: float,
    ) -> None:
        self._new_receipt = new_receipt
        self.batch_bytes = batch_bytes
        self._linger_s = linger_s
        self._delivery_timeout_s = delivery_timeout_s
        self._open: dict[TopicPartition, OpenBatch[R]] = {}

    def __len__(self) -> int:
        """How many batches are open."""
        return len(self._open)

    def is_full(self, partition: TopicPartition, size_bytes: int, limit_bytes: int) -> bool:
        """Whether a record of this size needs the partition's open batch to be sealed first."""
        batch = self._open.get(partition)
        if batch is None:
            return False
        limit_bytes = min(limit_bytes, self.batch_bytes)
        return batch.size_bytes + size_bytes > limit_bytes or len(batch.rows) >= MAX_BATCH_RECORDS

    def append(
        self,
        partition: TopicPartition,
        row: Row,
        size_bytes: int,
        now_s: float,
        accepted_s: float | None = None,
    ) -> R:
        """Put a record, whose `size_bound` is `size_bytes`, behind the others of its partition.

        Args:
            partition: where to.
            row: the record.
            size_bytes: what it takes at the most.
            now_s: the time.
            accepted_s: when the producer took it; None is now.

        Returns:
            The batch's receipt, for which this is the newest record.
        """
        batch = self._open.get(partition)
        if batch is None:
            taken_s = now_s if accepted_s is None else accepted_s
            batch = OpenBatch(self._new_receipt(partition), now_s, taken_s)
            self._open[partition] = batch
        batch.rows.append(row)
        batch.size_bytes += size_bytes
        return batch.receipt

    def seal(self, partition: TopicPartition) -> OutgoingBatch | None:
        """Encode the partition's open batch, if there is one.

        Raises:
            UnencodableError: a record has a part that its sender should have refused.
        """
        batch = self._open.pop(partition, None)
        if batch is None:
            return None
        try:
            encoded = encode_rows(batch.rows, _NO_LIMIT)
            assert encoded.record_count == len(batch.rows), "an open batch holds no more than fits"
        except Exception as error:
            raise UnencodableError(self._sealed(partition, batch, b""), error) from error
        return self._sealed(partition, batch, encoded.data)

    def _sealed(
        self, partition: TopicPartition, batch: OpenBatch[R], records: bytes
    ) -> OutgoingBatch:
        times = [row[2] for row in batch.rows]
        return OutgoingBatch(
            partition=partition,
            records=records,
            record_count=len(batch.rows),
            first_timestamp_ms=times[0],
            max_timestamp_ms=max(times),
            deadline_s=batch.accepted_s + self._delivery_timeout_s,
            reserved_bytes=batch.size_bytes,
            receipt=batch.receipt,
            accepted_s=batch.accepted_s,
        )

    def partitions(self) -> list[TopicPartition]:
        """Return the partitions with an open batch, oldest first."""
        return [*self._open]

    def due(self, now_s: float, is_idle: Callable[[TopicPartition], bool]) -> TopicPartition | None:
        """Return the partition whose open batch should go out: it has lingered, and has its turn."""
        latest = now_s - self._linger_s
        for partition, batch in self._open.items():
            if batch.created_s > latest:
                return None
            if is_idle(partition):
                return partition
        return None

    def overdue(self, now_s: float) -> list[TopicPartition]:
        """Return the partitions whose open batch has passed its deadline unsent."""
        latest = now_s - self._delivery_timeout_s
        return [p for p, batch in self._open.items() if batch.accepted_s <= latest]

    def next_linger_s(self, of: Container[TopicPartition], now_s: float) -> float | None:
        """When the next open batch of these partitions has lingered; without those that have."""
        for partition, batch in self._open.items():
            if batch.created_s + self._linger_s > now_s and partition in of:
                return batch.created_s + self._linger_s
        return None

    def next_deadline_s(self) -> float | None:
        """When the oldest open batch gives up."""
        if not self._open:
            return None
        return min(batch.accepted_s for batch in self._open.values()) + self._delivery_timeout_s
