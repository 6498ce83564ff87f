"""Read record sets: which of a batch's records were asked for, at which offsets, with what in them.

upb parses a record set in C and makes Python objects only of what is touched, so everything here
touches as little as it can: values alone cost 150 ns a record, whole records about a microsecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple, Protocol, TypeAlias

from riverrun._core.records import Record

CONTROL, EXPLICIT_OFFSETS = 1, 8
"""Bits of RecordBatch.attributes."""


class WireHeader(Protocol):
    """The fields of riverrun.v1.Header."""

    @property
    def key(self) -> str: ...
    @property
    def value(self) -> bytes: ...


class WireRecord(Protocol):
    """The fields of riverrun.v1.Record."""

    @property
    def key(self) -> bytes: ...
    @property
    def value(self) -> bytes: ...
    @property
    def timestamp_ms(self) -> int: ...
    @property
    def offset_delta(self) -> int: ...
    @property
    def headers(self) -> Sequence[WireHeader]: ...


Offsets: TypeAlias = range | list[int]


class Span(NamedTuple):
    """Which records of a batch are wanted: their places in it, and their offsets."""

    places: slice | list[int]
    offsets: Offsets


def dense_span(base_offset: int, record_count: int, first: int, end: int) -> Span:
    """Find the records with offsets in [first, end) where the index gives the offset."""
    low = min(max(0, first - base_offset), record_count)
    high = max(low, min(record_count, end - base_offset))
    return Span(slice(low, high), range(base_offset + low, base_offset + high))


def sparse_span(records: Sequence[WireRecord], base_offset: int, first: int, end: int) -> Span:
    """Find them in a batch that a broker has rewritten, where each record has its own delta."""
    places: list[int] = []
    offsets: list[int] = []
    for place, record in enumerate(records):
        offset = base_offset + record.offset_delta
        if first <= offset < end:
            places.append(place)
            offsets.append(offset)
    return Span(places, offsets)


def values_of(records: Sequence[WireRecord]) -> list[bytes | None]:
    """Return the value of each record, None for a tombstone."""
    # Absent and empty look the same until one asks, and asking every record would cost as much
    # again as reading it.
    return [record.value or _absent_or_empty(record, "value") for record in records]


def keys_of(records: Sequence[WireRecord]) -> list[bytes | None]:
    """Return the key of each record, None where it has none."""
    return [record.key or _absent_or_empty(record, "key") for record in records]


def timestamps_of(records: Sequence[WireRecord], append_time_ms: int) -> list[int]:
    """Return the timestamp of each record: its own, else that of the append."""
    return [
        record.timestamp_ms or (0 if _has(record, "timestamp_ms") else append_time_ms)
        for record in records
    ]


def records_of(
    topic: str,
    partition: int,
    offsets: Offsets,
    records: Sequence[WireRecord],
    append_time_ms: int,
) -> list[Record]:
    """Return whole records."""
    # Held in a list, each message is wrapped for Python once instead of once for each of its parts.
    records = list(records)
    headers = [
        tuple([(header.key, header.value) for header in found]) if found else ()
        for found in [record.headers for record in records]
    ]
    rows = zip(
        repeat(topic),
        repeat(partition),
        offsets,
        timestamps_of(records, append_time_ms),
        keys_of(records),
        values_of(records),
        headers,
        strict=False,
    )
    # What Record._make does, without a call of Python for each.
    return [*map(tuple.__new__, repeat(Record), rows)]


def _absent_or_empty(record: WireRecord, name: str) -> bytes | None:
    return b"" if _has(record, name) else None


def _has(record: WireRecord, name: str) -> bool:
    present: bool = record.HasField(name)  # type: ignore[attr-defined]
    return present
