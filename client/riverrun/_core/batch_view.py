"""Records of one partition as they were produced together: checked, expanded, read on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from riverrun._core import checksums, codecs
from riverrun._core.decoding import (
    CONTROL,
    EXPLICIT_OFFSETS,
    Offsets,
    Span,
    WireRecord,
    dense_span,
    keys_of,
    records_of,
    sparse_span,
    timestamps_of,
    values_of,
)
from riverrun._core.records import Record, TopicPartition
from riverrun.errors import CorruptDataError, Reason

W = TypeVar("W", bound=WireRecord)


class WireBatch(checksums.Batch, Protocol):
    """The fields of riverrun.v1.RecordBatch."""

    @property
    def records(self) -> bytes: ...


class BatchView(Generic[W]):
    """A batch without what was not asked for.

    Attributes:
        topic: where its records stand.
        partition: where they stand.
        offsets: the offset of each record.
        next_offset: where to go on from, and what to commit. It may lie beyond the last record.
        leader_epoch: of the records, to be committed with `next_offset`.
        high_watermark: the partition's, when this was sent.

    Args:
        place: where the batch stands.
        topic_id: of its topic.
        batch: as it came.
        parse: makes records of a serialised record set.
        first: the first offset that was asked for.
        end: the offset behind the last one that was asked for.
        next_offset: where to go on from.
        high_watermark: the partition's.

    Raises:
        CorruptDataError: a checksum is wrong.

    Example:
        async for batch in client.consumer("orders", stop_at_end=True).batches():
            print(batch.partition, batch.offsets[0], len(batch))
    """

    __slots__ = (
        "_batch",
        "_data",
        "_parse",
        "_records",
        "_span",
        "high_watermark",
        "leader_epoch",
        "next_offset",
        "partition",
        "topic",
    )

    def __init__(
        self,
        place: TopicPartition,
        topic_id: bytes,
        batch: WireBatch,
        parse: Callable[[bytes], Sequence[W]],
        *,
        first: int,
        end: int,
        next_offset: int,
        high_watermark: int,
    ) -> None:
        self._data = batch.records
        checksums.verify(place.topic, topic_id, place.partition, batch, self._data)
        self.topic, self.partition = place
        self.next_offset = next_offset
        self.leader_epoch = batch.leader_epoch
        self.high_watermark = high_watermark
        self._batch = batch
        self._parse = parse
        self._records: Sequence[W] | None = None
        if batch.attributes & CONTROL:
            self._span = Span(slice(0, 0), range(0))
        elif batch.attributes & EXPLICIT_OFFSETS:
            self._span = sparse_span(self._all(), batch.base_offset, first, end)
        else:
            self._span = dense_span(batch.base_offset, batch.record_count, first, end)

    @property
    def offsets(self) -> Offsets:
        """The offset of each record."""
        return self._span.offsets

    @property
    def records(self) -> Sequence[W]:
        """The records as protobuf messages."""
        if self._records is None:
            places, everything = self._span.places, self._all()
            if isinstance(places, list):
                self._records = [everything[place] for place in places]
            elif len(self.offsets) == len(everything):
                self._records = everything
            else:
                self._records = everything[places]
        return self._records

    def values(self) -> list[bytes | None]:
        """Return the value of each record, None for a tombstone: the fastest way to touch them.

        Example:
            async for batch in client.consumer("orders", stop_at_end=True).batches():
                total = sum(len(value) for value in batch.values() if value is not None)
        """
        return values_of(self.records)

    def keys(self) -> list[bytes | None]:
        """Return the key of each record, None where it has none.

        Example:
            async for batch in client.consumer("orders", stop_at_end=True).batches():
                customers = set(batch.keys())
        """
        return keys_of(self.records)

    def timestamps_ms(self) -> list[int]:
        """Return the timestamp of each record, in ms since 1970: its own, else the append's.

        Example:
            async for batch in client.consumer("orders", stop_at_end=True).batches():
                newest_ms = max(batch.timestamps_ms())
        """
        return timestamps_of(self.records, self._batch.append_time_ms)

    def to_records(self) -> list[Record]:
        """Return the records with all their parts.

        Example:
            async for batch in client.consumer("orders", stop_at_end=True).batches():
                print(batch.to_records()[0].headers)
        """
        time_ms = self._batch.append_time_ms
        return records_of(self.topic, self.partition, self.offsets, self.records, time_ms)

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._span.offsets)

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the records with all their parts."""
        return iter(self.to_records())

    def _all(self) -> Sequence[W]:
        """Expand and parse the whole batch.

        Raises:
            CorruptDataError: it cannot be, or has another number of records than it says.
        """
        batch = self._batch
        where = f"the batch at offset {batch.base_offset} of {self.topic}[{self.partition}]"
        try:
            records = self._parse(codecs.expand(batch.codec, self._data))
        except CorruptDataError:
            raise
        except Exception as error:
            # protobuf's own class of error is not to be named in a pure module.
            text = f"{where} holds no record set: {error}"
            raise CorruptDataError(text, reason=Reason.CORRUPT_DATA) from error
        if len(records) != batch.record_count:
            raise CorruptDataError(
                f"{where} says that it has {batch.record_count} records and has {len(records)}",
                reason=Reason.CORRUPT_DATA,
            )
        return records
