"""Make batches of what `send_many` is given: gather by partition, encode whole batches at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias, cast
from zlib import crc32

from riverrun._core.encoding import (
    MAX_BATCH_RECORDS,
    Encoded,
    Row,
    encode_pairs,
    encode_rows,
    encode_values,
)
from riverrun._core.partitioner import StickyPartitioner
from riverrun._core.records import NewRecord, Record
from riverrun.errors import Reason, UsageError

Sendable: TypeAlias = bytes | tuple[bytes | None, bytes | None] | NewRecord | Record | None
"""What `send_many` takes: a value, a (key, value) pair, or a record with all its parts."""

BATCH_BYTES_MAX = 3 << 20
"""What a batch may hold, before compression."""

# What a record takes beside its value, roughly, until the first batch has been measured.
_OVERHEAD_GUESS = 24


class Chunk(NamedTuple):
    """One batch's worth of records, encoded."""

    partition: int
    records: bytes
    record_count: int
    first_timestamp_ms: int
    max_timestamp_ms: int


class Chunker:
    """Gathers items by partition, and encodes a partition's when there is a batch of them.

    How many records make a batch is learnt from the batch before, so lengths are looked at only
    once, by the encoder; what does not fit stays for the next batch.

    Args:
        route: spreads records without a key, and knows how many partitions there are.
        partition: where all go, whatever their keys; None to go by keys.
        batch_bytes: how large a batch may grow.
        limit_bytes: returns what a partition is known to take at the most.
        hold_bytes: how much may be gathered in all, about; then the largest goes out early.
        now_ms: returns the time for records that have none.
    """

    def __init__(
        self,
        route: StickyPartitioner,
        *,
        partition: int | None,
        batch_bytes: int,
        limit_bytes: Callable[[int], int],
        hold_bytes: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._route = route
        self._partition = partition
        self._batch_bytes = batch_bytes
        self._limit_bytes = limit_bytes
        self._hold_bytes = hold_bytes
        self._now_ms = now_ms
        self._gathered: dict[int, list[Sendable]] = {}
        self._held = 0
        self._taken = 0
        self._record_bytes = 0.0

    def wanted(self) -> int:
        """Return how many items to feed next: about a batch of them."""
        if not self._record_bytes:
            return 64
        return max(1, min(MAX_BATCH_RECORDS, int(self._batch_bytes / self._record_bytes) + 1))

    def feed(self, items: list[Sendable]) -> Iterator[Chunk]:
        """Take items; yield the batches that they complete.

        Raises:
            UsageError: an item is nothing that can be sent, or too large. Items before it were
                taken.
        """
        if not items:
            return
        if not self._record_bytes:
            self._record_bytes = _guess(items[0])
        touched = self._gather(items)
        self._held += len(items)
        wanted = self.wanted()
        for partition in touched:
            while len(self._gathered[partition]) >= wanted:
                yield self._encode(partition)
                wanted = self.wanted()
        while self._held * self._record_bytes > self._hold_bytes:
            largest = max(self._gathered, key=lambda p: len(self._gathered[p]))
            yield self._encode(largest)

    def drain(self) -> Iterator[Chunk]:
        """Yield what is left, in batches that may be small."""
        for partition, items in self._gathered.items():
            while items:
                yield self._encode(partition)

    def _gather(self, items: list[Sendable]) -> Sequence[int]:
        """Put each item to the others of its partition; return the partitions."""
        if self._partition is not None or self._route.partitions == 1:
            partition = self._partition or 0
            self._gathered.setdefault(partition, []).extend(items)
            return (partition,)
        first = items[0]
        if type(first) is tuple:
            try:
                return self._gather_pairs(cast("list[tuple[bytes, bytes]]", items))
            except (TypeError, ValueError):
                pass
        elif type(first) is bytes and set(map(type, items)) == {bytes}:
            partition = self._route.partition()
            self._gathered.setdefault(partition, []).extend(items)
            return (partition,)
        return self._gather_any(items)

    def _gather_pairs(self, pairs: list[tuple[bytes, bytes]]) -> Sequence[int]:
        """Gather pairs by key.

        Raises:
            TypeError: a key is not bytes.
            ValueError: an item is not a pair.
        """
        count = self._route.partitions
        lists: list[list[Sendable]] = [[] for _ in range(count)]
        appends = [some.append for some in lists]
        for pair in pairs:
            key, _ = pair
            appends[crc32(key) % count](pair)
        touched = [partition for partition, some in enumerate(lists) if some]
        for partition in touched:
            self._gathered.setdefault(partition, []).extend(lists[partition])
        return touched

    def _gather_any(self, items: list[Sendable]) -> Sequence[int]:
        touched: set[int] = set()
        for index, item in enumerate(items):
            key = self._row(index, item, 0)[0]
            if key is None:
                partition = self._route.partition()
            else:
                partition = crc32(key) % self._route.partitions
            self._gathered.setdefault(partition, []).append(item)
            touched.add(partition)
        return [*touched]

    def _encode(self, partition: int) -> Chunk:
        """Encode one batch of a partition's items, and leave the rest."""
        items = self._gathered[partition]
        now_ms = self._now_ms()
        limit_bytes = min(self._batch_bytes, self._limit_bytes(partition))
        # A little more than should fit, so that the encoder decides and yet looks at few in vain.
        some = items[: int(limit_bytes / self._record_bytes * 1.25) + 8]
        encoded, first_ms, max_ms = self._encoded(some, now_ms, limit_bytes)
        count = encoded.record_count
        check_size(len(encoded.data) if count == 1 else 0)
        del items[:count]
        self._held -= count
        self._taken += count
        self._record_bytes = max(1.0, len(encoded.data) / count)
        if self._partition is None and self._route.partition() == partition:
            self._route.move_on()
        return Chunk(partition, encoded.data, count, first_ms, max_ms)

    def _encoded(
        self, items: list[Sendable], now_ms: int, limit_bytes: int
    ) -> tuple[Encoded, int, int]:
        """Try the encoder that suits the first item; if others differ, take each by itself."""
        first = items[0]
        try:
            if type(first) is bytes:
                values = cast("list[bytes]", items)
                return encode_values(values, now_ms, limit_bytes), now_ms, now_ms
            if type(first) is tuple:
                pairs = cast("list[tuple[bytes, bytes]]", items)
                return encode_pairs(pairs, now_ms, limit_bytes), now_ms, now_ms
        except (TypeError, ValueError):
            pass
        rows = [self._row(index, item, now_ms) for index, item in enumerate(items)]
        encoded = encode_rows(rows, limit_bytes)
        return encoded, rows[0][2], max(row[2] for row in rows[: encoded.record_count])

    def _row(self, index: int, item: Sendable, now_ms: int) -> Row:
        """Take one item apart and look at its types.

        Raises:
            UsageError: it is nothing that can be sent.
        """
        row: Row
        if item is None or isinstance(item, bytes):
            return (None, item, now_ms, ())
        if isinstance(item, (NewRecord, Record)):
            timestamp_ms = now_ms if item.timestamp_ms is None else item.timestamp_ms
            row = (item.key, item.value, timestamp_ms, item.headers)
        elif type(item) is tuple and len(item) == 2:
            row = (*item, now_ms, ())
        else:
            raise self._unsendable(index, item)
        check_row(row)
        return row

    def _unsendable(self, index: int, item: object) -> UsageError:
        return UsageError(
            f"record {self._taken + index} of send_many is of type {type(item).__name__}; records "
            "are bytes, None, (key, value) pairs, NewRecord or Record; encode text first: "
            "text.encode()",
            reason=Reason.INVALID_REQUEST,
        )


def check_size(record_bytes: int) -> None:
    """Refuse a record that no broker takes: its message would break the stream for all others.

    Raises:
        UsageError: it is larger than a batch may be.
    """
    if record_bytes > BATCH_BYTES_MAX:
        raise UsageError(
            f"the record takes {record_bytes} bytes; a batch, and so a record, has at most "
            f"{BATCH_BYTES_MAX}: send it in parts, or where it can be fetched",
            reason=Reason.BATCH_TOO_LARGE,
        )


def check_row(row: Row) -> None:
    """Look at the types of a record's parts, while its sender can still be told.

    Raises:
        UsageError: a part has the wrong type, or a header's name cannot be encoded.
    """
    key, value, timestamp_ms, headers = row
    for name, part in (("key", key), ("value", value)):
        if part is not None and type(part) is not bytes:
            raise UsageError(
                f"the {name} is of type {type(part).__name__}; it must be bytes or None; encode "
                "text first: text.encode()",
                reason=Reason.INVALID_REQUEST,
            )
    if type(timestamp_ms) is not int or not -(1 << 63) <= timestamp_ms < 1 << 63:
        raise UsageError(
            f"the timestamp is {timestamp_ms!r}; it must be an int, ms since 1970",
            reason=Reason.INVALID_TIMESTAMP,
        )
    for header in headers:
        name_part, content = header
        if type(name_part) is not str or type(content) is not bytes:
            raise UsageError(
                f"the header {header!r} must be a pair of str and bytes",
                reason=Reason.INVALID_REQUEST,
            )
        if not name_part.isascii():
            _check_utf8(name_part)


def _check_utf8(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the header name {name!r} is no UTF-8: {error.reason} at position {error.start}; "
            "names are text, only what they name may be any bytes",
            reason=Reason.INVALID_RECORD,
        ) from None


def _guess(item: Sendable) -> float:
    """Guess what records like this one take."""
    if isinstance(item, (NewRecord, Record)):
        item = (item.key, item.value)
    parts = item if isinstance(item, tuple) else (item,)
    return float(_OVERHEAD_GUESS + sum(len(part) for part in parts if isinstance(part, bytes)))
