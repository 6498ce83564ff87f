"""Make batches of what `send_many` is given: gather by partition, encode whole batches at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, cast

from riverrun._core.encoding import (
    MAX_BATCH_RECORDS,
    Encoded,
    Row,
    encode_pairs,
    encode_rows,
    encode_values,
)
from riverrun._core.headers import own_headers
from riverrun._core.partitioner import KeyRoute, OwnRoute, RoundRobinRoute, Route
from riverrun._core.records import NewRecord, Record
from riverrun._core.row_checks import check_row, check_size
from riverrun.errors import Reason, UsageError

Sendable: TypeAlias = bytes | tuple[bytes | None, bytes | None] | NewRecord | Record | None
"""What `send_many` takes: a value, a (key, value) pair, or a record with all its parts."""

# What a record takes beside its value, roughly, until the first batch has been measured.
_OVERHEAD_GUESS = 24


# So many of a partition's items, or a whole batch of them, are encoded at a time: fewer would cost
# more than they are, and many more have left the processor's cache when they are looked at again.
_STRETCH = 128
_RUN = 8192


class Chunk(NamedTuple):
    """One batch's worth of records, encoded."""

    partition: int
    records: bytes
    record_count: int
    first_timestamp_ms: int
    max_timestamp_ms: int


@dataclass(slots=True)
class _Filling:
    """One partition's next batch: stretches that are encoded already, and items that are not.

    Record sets are joined by joining their bytes, so a batch may be encoded in stretches.

    Attributes:
        items: behind what is encoded.
        stretches: encoded, in order.
        size_bytes: of the stretches.
        record_count: in them.
        first_timestamp_ms: of the first record in them.
        max_timestamp_ms: the largest in them.
        short_bytes: by how much the first batch is shorter than others. Keys spread evenly, so
            without it the batches of all partitions were full at the same moment, again and again.
    """

    items: list[Sendable] = field(default_factory=list)
    stretches: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    record_count: int = 0
    first_timestamp_ms: int = 0
    max_timestamp_ms: int = 0
    short_bytes: int = 0

    def add(self, encoded: Encoded, first_ms: int, max_ms: int) -> None:
        """Put a stretch behind the others."""
        if not self.stretches:
            self.first_timestamp_ms, self.max_timestamp_ms = first_ms, max_ms
        self.stretches.append(encoded.data)
        self.size_bytes += len(encoded.data)
        self.record_count += encoded.record_count
        self.max_timestamp_ms = max(self.max_timestamp_ms, max_ms)

    def close(self, partition: int) -> Chunk:
        """Return what is encoded as a batch, and begin the next one."""
        stretches = self.stretches
        chunk = Chunk(
            partition,
            stretches[0] if len(stretches) == 1 else b"".join(stretches),
            self.record_count,
            self.first_timestamp_ms,
            self.max_timestamp_ms,
        )
        self.stretches = []
        self.size_bytes = self.record_count = self.short_bytes = 0
        return chunk


class Chunker:
    """Gathers items by partition, encodes them in stretches, and yields full batches.

    How many records make a batch is learnt from those before, so lengths are looked at only once,
    by the encoder; what does not fit stays for the next batch.

    Args:
        route: chooses partitions, and knows how many there are.
        partition: where all go, whatever the route; None to ask it.
        batch_bytes: how large a batch may grow.
        limit_bytes: returns what a partition is known to take at the most.
        hold_bytes: how much may be gathered in all, about; then the largest goes out early.
        now_ms: returns the time for records that have none.
    """

    def __init__(
        self,
        route: Route,
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
        self._filling: dict[int, _Filling] = {}
        # The only partition that fills just now, or None where keys spread over many.
        self._filled: tuple[int, _Filling] | None = None
        self._items = 0
        self._encoded_bytes = 0
        self._taken = 0
        self._record_bytes = 0.0

    def wanted(self) -> int:
        """Return how many items to feed next: what completes a batch, more for many partitions."""
        if not self._record_bytes:
            return 1
        if self._filled is None:
            wanted = min(_RUN, int(self._hold_bytes / 4 / self._record_bytes))
        else:
            partition, filling = self._filled
            room_bytes = self._limit(partition, filling) - self._held_by(partition)
            wanted = int(room_bytes / self._record_bytes)
        return max(1, min(MAX_BATCH_RECORDS, wanted))

    def feed(self, items: list[Sendable]) -> Iterator[Chunk]:
        """Take items; yield the batches that they complete.

        Raises:
            UsageError: an item is nothing that can be sent, or too large. It is forgotten, with
                those behind it in its partition; `drain` yields everything before it.
        """
        if not items:
            return
        if not self._record_bytes:
            self._record_bytes = _guess(items[0])
        touched = self._gather(_values_of_keyless(items) or items)
        self._items += len(items)
        for partition in touched:
            filling = self._filling[partition]
            gathered = len(filling.items)
            if gathered >= _STRETCH or self._is_full(partition, filling, gathered + 1):
                yield from self._encode(partition, filling)
        while self._encoded_bytes + self._items * self._record_bytes > self._hold_bytes:
            yield from self._close(max(self._filling, key=self._held_by))

    def drain(self) -> Iterator[Chunk]:
        """Yield what is left, in batches that may be small."""
        for partition in self._filling:
            yield from self._close(partition)

    def _gather(self, items: list[Sendable]) -> Sequence[int]:
        """Put each item to the others of its partition; return the partitions.

        Raises:
            UsageError: an item is nothing that can be sent, or the application chose no partition
                that there is.
        """
        route = self._route
        if self._partition is not None:
            return self._gather_all(self._partition, items)
        if isinstance(route, OwnRoute):
            return self._gather_any(items)
        if route.partitions == 1:
            return self._gather_all(0, items)
        if isinstance(route, RoundRobinRoute):
            return self._deal(route, items)
        if isinstance(route, KeyRoute):
            return self._gather_by_key(route, items)
        return self._gather_all(route.partition(), items)

    def _gather_all(self, partition: int, items: list[Sendable]) -> Sequence[int]:
        filling = self._of(partition)
        filling.items.extend(items)
        self._filled = (partition, filling)
        return (partition,)

    def _gather_by_key(self, route: KeyRoute, items: list[Sendable]) -> Sequence[int]:
        first = items[0]
        if type(first) is tuple:
            try:
                return self._gather_pairs(route, cast("list[tuple[bytes, bytes]]", items))
            except (TypeError, ValueError):
                pass
        elif type(first) is bytes and set(map(type, items)) == {bytes}:
            return self._gather_all(route.partition(), items)
        return self._gather_any(items)

    def _gather_pairs(self, route: KeyRoute, pairs: list[tuple[bytes, bytes]]) -> Sequence[int]:
        """Gather pairs by key.

        Raises:
            TypeError: a key is not bytes.
            ValueError: an item is not a pair.
        """
        count, hash_of = route.partitions, route.hash_of
        lists: list[list[Sendable]] = [[] for _ in range(count)]
        appends = [some.append for some in lists]
        for pair in pairs:
            key, _ = pair
            appends[hash_of(key) % count](pair)
        return self._gather_lists(lists)

    def _deal(self, route: RoundRobinRoute, items: list[Sendable]) -> Sequence[int]:
        """Give the items out in turn."""
        count, first = route.partitions, route.deal(len(items))
        return self._gather_lists([items[(p - first) % count :: count] for p in range(count)])

    def _gather_lists(self, lists: list[list[Sendable]]) -> Sequence[int]:
        self._filled = None
        touched = [partition for partition, some in enumerate(lists) if some]
        for partition in touched:
            self._of(partition).items.extend(lists[partition])
        return touched

    def _gather_any(self, items: list[Sendable]) -> Sequence[int]:
        self._filled = None
        touched: set[int] = set()
        for index, item in enumerate(items):
            key, value, _, _ = self._row(index, item, 0)
            partition = self._route.choose(key, value)
            self._of(partition).items.append(item)
            touched.add(partition)
        return [*touched]

    def _of(self, partition: int) -> _Filling:
        filling = self._filling.get(partition)
        if filling is None:
            filling = self._filling[partition] = _Filling()
            if self._partition is None:
                count = self._route.partitions
                short = len(self._filling) % count / count
                filling.short_bytes = int(short * self._batch_bytes)
        return filling

    def _held_by(self, partition: int) -> float:
        filling = self._filling[partition]
        return filling.size_bytes + len(filling.items) * self._record_bytes

    def _limit(self, partition: int, filling: _Filling) -> int:
        return min(self._batch_bytes - filling.short_bytes, self._limit_bytes(partition))

    def _is_full(self, partition: int, filling: _Filling, more: int = 1) -> bool:
        """Whether so many more records do not fit into a batch."""
        if filling.record_count >= MAX_BATCH_RECORDS:
            return True
        return filling.size_bytes + more * self._record_bytes > self._limit(partition, filling)

    def _encode(self, partition: int, filling: _Filling) -> Iterator[Chunk]:
        """Encode all items of a partition; yield the batches that are full with them."""
        items, at = filling.items, 0
        filling.items = []
        while at < len(items):
            room_bytes = max(1, self._limit(partition, filling) - filling.size_bytes)
            # A little more than should fit, so that the encoder decides and yet looks at few in
            # vain.
            few = int(room_bytes / self._record_bytes * 1.25) + 8
            few = min(few, MAX_BATCH_RECORDS - filling.record_count)
            some = items[at : at + few] if at or few < len(items) else items
            encoded, first_ms, max_ms = self._encoded(some, self._now_ms(), room_bytes)
            size_bytes, count = len(encoded.data), encoded.record_count
            check_size(size_bytes if count == 1 else 0)
            if filling.record_count and size_bytes > room_bytes:
                yield self._closed(partition, filling)
            at += count
            self._items -= count
            self._taken += count
            self._encoded_bytes += size_bytes
            self._record_bytes = max(1.0, size_bytes / count)
            filling.add(encoded, first_ms, max_ms)
            if self._is_full(partition, filling):
                yield self._closed(partition, filling)

    def _close(self, partition: int) -> Iterator[Chunk]:
        """Yield whatever a partition has."""
        filling = self._filling[partition]
        yield from self._encode(partition, filling)
        if filling.record_count:
            yield self._closed(partition, filling)

    def _closed(self, partition: int, filling: _Filling) -> Chunk:
        self._encoded_bytes -= filling.size_bytes
        if self._partition is None and self._route.partition() == partition:
            self._route.move_on()
        return filling.close(partition)

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
        rows = self._rows(items, now_ms)
        encoded = encode_rows(rows, limit_bytes)
        return encoded, rows[0][2], max(row[2] for row in rows[: encoded.record_count])

    def _rows(self, items: list[Sendable], now_ms: int) -> list[Row]:
        """Take items apart, up to one that cannot be sent, unless that is the first.

        Raises:
            UsageError: the first item cannot be sent.
        """
        rows: list[Row] = []
        try:
            for index, item in enumerate(items):
                rows.append(self._row(index, item, now_ms))
        except UsageError:
            if not rows:
                raise
        return rows

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
            row = (item.key, item.value, timestamp_ms, own_headers(item.headers))
        elif type(item) is tuple and len(item) == 2:
            row = (*item, now_ms, ())
        else:
            raise self._unsendable(index, item)
        check_row(row)
        return row

    def _unsendable(self, index: int, item: object) -> UsageError:
        return UsageError(
            f"record {self._taken + index} of send_many is of type {type(item).__name__}; records "
            "are bytes, None, (key, value) pairs, NewRecord or Record: encode them, or give the "
            "producer a value_serializer",
            reason=Reason.INVALID_REQUEST,
        )


def _values_of_keyless(items: list[Sendable]) -> list[Sendable] | None:
    """Return the values of pairs that all have no key: those are gathered and encoded 5 times as fast.

    None where one of them is anything else, which is told of later.
    """
    first = items[0]
    if type(first) is not tuple or first[:1] != (None,):
        return None
    try:
        values = [value for key, value in cast("list[tuple[None, bytes]]", items) if key is None]
    except (TypeError, ValueError):
        return None
    if len(values) < len(items) or set(map(type, values)) != {bytes}:
        return None
    return cast("list[Sendable]", values)


def _guess(item: Sendable) -> float:
    """Guess what records like this one take."""
    if isinstance(item, (NewRecord, Record)):
        item = (item.key, item.value)
    parts = item if isinstance(item, tuple) else (item,)
    return float(_OVERHEAD_GUESS + sum(len(part) for part in parts if isinstance(part, bytes)))
