"""Serialise record sets many records at a time, without protobuf's cost for each of them.

A serialised RecordSet is a run of records, each a short header (tag and length) before its fields.
Headers depend on lengths only, so they come from tables, or are one constant where all lengths are
equal; keys, values and headers are laid out by slice assignment and joined once. In ns a record
(8-byte key, 100-byte value): upb's builder 800, rows through tables 230, lengths all equal 120,
values alone 40. Fields come in the order of their numbers, so the bytes equal protobuf's own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from riverrun._core.records import Headers
from riverrun._core.varints import (
    HEADER,
    HEADER_NAME,
    HEADER_VALUE,
    KEY,
    RECORD,
    TABLE,
    TIMESTAMP,
    VALUE,
    TimestampFields,
    tables,
    timestamp_field,
    value_record_head,
    value_record_tables,
    varint,
)

Row: TypeAlias = tuple[bytes | None, bytes | None, int, Headers]
"""Key, value, timestamp in ms since 1970, headers."""

MAX_BATCH_RECORDS = 65_536
"""No broker takes more in one batch."""

_ROW_OVERHEAD, _HEADER_OVERHEAD = 32, 15
_BEYOND_TABLES = 1 << 40
_FEW = 16


class Encoded(NamedTuple):
    """A record set and how many of the given records are in it."""

    data: bytes
    record_count: int


def encode_values(values: Sequence[bytes], timestamp_ms: int, limit_bytes: int) -> Encoded:
    """Encode values without keys, as many as fit into `limit_bytes` and at least one.

    Raises:
        TypeError: something in `values` is not bytes.
    """
    values = values[:MAX_BATCH_RECORDS]
    lengths = [*map(len, values)]
    tail = timestamp_field(timestamp_ms)
    length = lengths[0]
    if lengths.count(length) == len(lengths):
        head = value_record_head(length, len(tail))
        size = len(head) + length + len(tail)
        count = min(len(values), max(1, limit_bytes // size))
        data = b"".join((head, (tail + head).join(values[:count]), tail))
        return Encoded(_sized(data, size * count), count)
    if max(lengths) >= TABLE:
        return encode_rows([(None, value, timestamp_ms, ()) for value in values], limit_bytes)
    heads, sizes = value_record_tables(len(tail))
    count, total = _fitting([*map(sizes.__getitem__, lengths)], limit_bytes)
    parts: list[bytes] = [tail] * (3 * count)
    parts[0::3] = map(heads.__getitem__, lengths[:count])
    parts[1::3] = values[:count]
    return Encoded(_sized(b"".join(parts), total), count)


def encode_pairs(
    pairs: Sequence[tuple[bytes, bytes]], timestamp_ms: int, limit_bytes: int
) -> Encoded:
    """Encode (key, value) pairs, as many as fit into `limit_bytes` and at least one.

    Raises:
        TypeError: a key or a value is not bytes.
        ValueError: something in `pairs` is not a pair.
    """
    pairs = pairs[:MAX_BATCH_RECORDS]
    key_length, value_length = map(len, pairs[0])
    if (key_length, value_length) != tuple(map(len, pairs[-1])):
        # Most mixtures show at once, and need not be taken apart to be recognised.
        return _pairs_of_any_length(pairs, timestamp_ms, limit_bytes)
    # Not zip(*pairs): that makes an iterator of every pair, of which the garbage collector hears.
    keys, values, count = [key for key, _ in pairs], [value for _, value in pairs], len(pairs)
    if not [*map(len, keys)].count(key_length) == [*map(len, values)].count(value_length) == count:
        return _pairs_of_any_length(pairs, timestamp_ms, limit_bytes)
    tail = timestamp_field(timestamp_ms)
    key_head, value_head = KEY + varint(key_length), VALUE + varint(value_length)
    body = len(key_head) + key_length + len(value_head) + value_length + len(tail)
    head = RECORD + varint(body) + key_head
    size = len(head) - len(key_head) + body
    count = min(count, max(1, limit_bytes // size))
    parts: list[bytes] = [tail + head, b"", value_head, b""] * count
    parts[0] = head
    parts[1::4] = keys[:count]
    parts[3::4] = values[:count]
    parts.append(tail)
    return Encoded(_sized(b"".join(parts), size * count), count)


def _pairs_of_any_length(
    pairs: Sequence[tuple[bytes, bytes]], timestamp_ms: int, limit_bytes: int
) -> Encoded:
    key_heads, value_heads, key_sizes, value_sizes, record_heads, record_sizes = tables()
    parts: list[bytes] = []
    extend = parts.extend
    tail = timestamp_field(timestamp_ms)
    total, count, tail_length = 0, len(pairs), len(tail)
    try:
        for index, (key, value) in enumerate(pairs):
            key_length, value_length = len(key), len(value)
            body = key_sizes[key_length] + value_sizes[value_length] + tail_length
            size = record_sizes[body]
            if total + size > limit_bytes and index:
                count = index
                break
            total += size
            key_head, value_head = key_heads[key_length], value_heads[value_length]
            extend((record_heads[body], key_head, key, value_head, value, tail))
    except IndexError:
        return encode_rows([(key, value, timestamp_ms, ()) for key, value in pairs], limit_bytes)
    return Encoded(_sized(b"".join(parts), total), count)


def encode_rows(rows: Sequence[Row], limit_bytes: int) -> Encoded:
    """Encode whole rows, whatever they lack or have, as many as fit and at least one.

    Raises:
        TypeError: a part of a row has the wrong type.
    """
    if len(rows) <= _FEW:
        return _few_rows(rows, limit_bytes)
    key_heads, value_heads, key_sizes, value_sizes, record_heads, record_sizes = tables()
    parts: list[bytes] = []
    extend = parts.extend
    total = count = 0
    tail, last_timestamp_ms = b"", None
    times = TimestampFields()
    for key, value, timestamp_ms, headers in rows[:MAX_BATCH_RECORDS]:
        if timestamp_ms != last_timestamp_ms:
            last_timestamp_ms, tail = timestamp_ms, times.field(timestamp_ms)
        key_head = value_head = b""
        body = len(tail)
        try:
            if headers:
                body = _BEYOND_TABLES
            if key is not None:
                key_head = key_heads[len(key)]
                body += key_sizes[len(key)]
            if value is not None:
                value_head = value_heads[len(value)]
                body += value_sizes[len(value)]
            size = record_sizes[body]
            record: tuple[bytes, ...] = (
                record_heads[body],
                key_head,
                key or b"",
                value_head,
                value or b"",
                tail,
            )
        except IndexError:
            record = (_record_beyond_tables(key, value, tail, headers),)
            size = len(record[0])
        if total + size > limit_bytes and count:
            break
        extend(record)
        total, count = total + size, count + 1
    return Encoded(_sized(b"".join(parts), total), count)


def _few_rows(rows: Sequence[Row], limit_bytes: int) -> Encoded:
    """Encode a handful of rows: making the tables would cost more than all of them."""
    records: list[bytes] = []
    total = 0
    for key, value, timestamp_ms, headers in rows:
        tail = TIMESTAMP + varint(timestamp_ms)
        record = _record_beyond_tables(key, value, tail, headers)
        total += len(record)
        if records and total > limit_bytes:
            break
        records.append(record)
    return Encoded(b"".join(records), len(records))


def size_bound(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Return at least as many bytes as the record takes in a record set."""
    size = _ROW_OVERHEAD
    if key is not None:
        size += len(key)
    if value is not None:
        size += len(value)
    for name, content in headers:
        name_bytes = len(name) if name.isascii() else len(name.encode())
        size += _HEADER_OVERHEAD + name_bytes + len(content)
    return size


def _fitting(sizes: list[int], limit_bytes: int) -> tuple[int, int]:
    """Return how many records of these sizes fit, at least one, and their size together."""
    total = sum(sizes)
    if total <= limit_bytes:
        return len(sizes), total
    ends = [*accumulate(sizes)]
    count = max(1, bisect_right(ends, limit_bytes))
    return count, ends[count - 1]


def _sized(data: bytes, expected: int) -> bytes:
    """Refuse what lied about its length, such as a memoryview of larger items."""
    if len(data) != expected:
        raise TypeError(f"the parts have {len(data)} bytes and said {expected}; send bytes")
    return data


def _record_beyond_tables(
    key: bytes | None, value: bytes | None, timestamp: bytes, headers: Headers
) -> bytes:
    fields: list[bytes] = []
    if key is not None:
        fields += (KEY, varint(len(key)), key)
    if value is not None:
        fields += (VALUE, varint(len(value)), value)
    fields.append(timestamp)
    for name, content in headers:
        field = _header(name.encode(), content)
        fields += (HEADER, varint(len(field)), field)
    body = b"".join(fields)
    return b"".join((RECORD, varint(len(body)), body))


def _header(name: bytes, content: bytes) -> bytes:
    """Encode a header; like protobuf, leave out what is empty."""
    fields: list[bytes] = []
    if name:
        fields += (HEADER_NAME, varint(len(name)), name)
    if content:
        fields += (HEADER_VALUE, varint(len(content)), content)
    return b"".join(fields)
