"""Protobuf's variable-length numbers, ready-made for every length that is common."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

RECORD, KEY, VALUE, TIMESTAMP, HEADER = b"\x0a", b"\x0a", b"\x12", b"\x18", b"\x22"
"""Tags of RecordSet.records and of the fields of Record, wire types included."""
HEADER_NAME, HEADER_VALUE = b"\x0a", b"\x12"
"""Tags of the fields of Header."""

TABLE = 16_384
"""Longer keys and values go one by one: beside copying 16 KiB a microsecond is nothing."""


def varint(number: int) -> bytes:
    """Return protobuf's base-128 form; negative numbers take ten bytes, as int64 does."""
    number &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class Tables(NamedTuple):
    """Headers by length, and what a field of that length takes together with its header."""

    keys: list[bytes]
    values: list[bytes]
    key_sizes: list[int]
    value_sizes: list[int]
    records: list[bytes]
    record_sizes: list[int]


@functools.cache
def tables() -> Tables:
    """Make the tables at their first use: 15 ms, which an import should not cost."""

    def sizes(heads: Iterable[bytes]) -> list[int]:
        return [len(head) + length for length, head in enumerate(heads)]

    # A record holds a key and a value of the largest length, and their headers and timestamp.
    lengths = [varint(length) for length in range(2 * TABLE + 32)]
    keys = [KEY + length for length in lengths[:TABLE]]
    values = [VALUE + length for length in lengths[:TABLE]]
    records = [RECORD + length for length in lengths]
    return Tables(keys, values, sizes(keys), sizes(values), records, sizes(records))


def value_record_head(length: int, timestamp_length: int) -> bytes:
    """Return what stands before the value in a record without key."""
    value = VALUE + varint(length)
    return RECORD + varint(len(value) + length + timestamp_length) + value


@functools.cache
def value_record_tables(timestamp_length: int) -> tuple[list[bytes], list[int]]:
    """Return that for every length of the table, and the sizes of those records."""
    heads = [value_record_head(length, timestamp_length) for length in range(TABLE)]
    return heads, [len(head) + length + timestamp_length for length, head in enumerate(heads)]


def timestamp_field(timestamp_ms: int) -> bytes:
    """Return the field that ends a record without headers."""
    return TIMESTAMP + varint(timestamp_ms)


class TimestampFields:
    """The same for many times that are close together: those of each 16 s share all but 14 bits."""

    __slots__ = ("_high", "_high_bits", "_low")

    def __init__(self) -> None:
        self._low = _low_bits()
        self._high = b""
        self._high_bits = 0

    def field(self, timestamp_ms: int) -> bytes:
        """Return the field for one of them."""
        high_bits = timestamp_ms // TABLE
        if high_bits != self._high_bits:
            if high_bits <= 0:
                # Too few bits to be split, or a time before 1970.
                return timestamp_field(timestamp_ms)
            self._high_bits, self._high = high_bits, varint(high_bits)
        if not high_bits:
            return timestamp_field(timestamp_ms)
        return self._low[timestamp_ms % TABLE] + self._high


@functools.cache
def _low_bits() -> list[bytes]:
    """Make the field's tag and its low 14 bits, both bytes marked as followed by another."""
    return [TIMESTAMP + bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(TABLE)]
