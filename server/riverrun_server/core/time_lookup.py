"""Finds the first record at or after a time: through the sparse index, one bounded piece at a time.

Producers set timestamps as they like, so they do not rise with the offset. What does rise is the
running maximum that each index row carries: no record before a row is as late as T where the row's
maximum before it is below T. That allows a binary search for where to begin; from there on each
interval between rows is skipped by its own maximum or read. After a trim the running maximum may be
that of a deleted record, which makes the search begin too early and costs only time.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from riverrun_server.core.log.state import IndexRow

ROWS_PER_STEP = 256
"""How many index rows are asked for at once: some 10 KB, and a quarter of a GiB of log."""


@dataclass(frozen=True, slots=True)
class NeedRows:
    """Give `on_rows` up to `limit` index rows, the first ones at or behind an offset."""

    from_offset: int
    limit: int


@dataclass(frozen=True, slots=True)
class NeedBatches:
    """Give `on_batches` the records of at least one batch, from the one that holds an offset on.

    Batches that begin at or behind `end` are not wanted; up to there it is about a MiB.
    """

    from_offset: int
    end: int


@dataclass(frozen=True, slots=True)
class Found:
    """The first record that is late enough."""

    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class NotFound:
    """No record is late enough."""


Step: TypeAlias = NeedRows | NeedBatches | Found | NotFound


class _Phase(enum.Enum):
    STARTING = enum.auto()
    SEARCHING = enum.auto()
    SCANNING = enum.auto()
    READING = enum.auto()


class TimeLookup:
    """One lookup: `start`, then `on_rows` and `on_batches` with what the step before asked for.

    Every record below the position is too early, or does not count. Transitions:

    - STARTING -> SEARCHING: the rows from the log start on do not reach to the place where the
      running maximum is late enough; halve the range of offsets in which that may be, a row a step.
    - STARTING -> SCANNING: they do. SEARCHING -> SCANNING: the range is down to nothing.
    - SCANNING -> READING: an interval between two rows, or behind the last one, may have the record.
    - SCANNING -> SCANNING: this page of rows has no such interval, take the next one.
    - READING -> READING: the interval goes on. READING -> SCANNING: it has ended.
    - READING -> Found. STARTING, SCANNING -> NotFound.

    Args:
        time_ms: a record is late enough if its timestamp is at least this.
        log_start: the first offset that counts.
        end: the first offset that does not count; a high watermark as of now.
        max_timestamp_ms: of all records that the partition ever had.
        rows_per_step: how many index rows are asked for at once.
    """

    __slots__ = (
        "_end",
        "_high",
        "_interval_end",
        "_max_timestamp_ms",
        "_middle",
        "_more_rows",
        "_phase",
        "_position",
        "_rows",
        "_rows_per_step",
        "_time_ms",
    )

    def __init__(
        self,
        time_ms: int,
        log_start: int,
        end: int,
        max_timestamp_ms: int,
        *,
        rows_per_step: int = ROWS_PER_STEP,
    ) -> None:
        self._time_ms = time_ms
        self._position = log_start
        self._end = end
        self._max_timestamp_ms = max_timestamp_ms
        self._rows_per_step = rows_per_step
        self._phase = _Phase.STARTING
        self._high = end  # SEARCHING: no row from here on has a running maximum below the time
        self._middle = 0  # SEARCHING: where the row asked for begins at the earliest
        self._rows: list[IndexRow] = []  # SCANNING: this page, the next row last
        self._more_rows = False  # SCANNING: whether another page may follow
        self._interval_end = 0  # READING

    def start(self) -> Step:
        """Begin."""
        if self._max_timestamp_ms < self._time_ms or self._position >= self._end:
            return NotFound()
        return NeedRows(self._position, self._rows_per_step)

    def on_rows(self, rows: Sequence[IndexRow]) -> Step:
        """Take in the rows that were asked for, in order, fewer only where there are no more."""
        match self._phase:
            case _Phase.STARTING:
                return self._first_page(rows)
            case _Phase.SEARCHING:
                return self._halve(rows[0] if rows else None)
            case _Phase.SCANNING:
                return self._new_page(rows)
            case _:
                raise AssertionError(self._phase)

    def on_batches(self, records: Sequence[tuple[int, int]], next_offset: int) -> Step:
        """Take in (offset, timestamp) of the records of the batches that were asked for.

        Args:
            records: in the order of offsets; those that are too early may be left out.
            next_offset: where the last batch that was looked at ends; anything below what was asked
                for means that nothing is stored there.
        """
        assert self._phase is _Phase.READING, self._phase
        for offset, timestamp_ms in records:
            if timestamp_ms >= self._time_ms and self._position <= offset < self._end:
                return Found(offset, timestamp_ms)
        if self._position < next_offset < self._interval_end:
            self._position = next_offset
            return NeedBatches(next_offset, self._interval_end)
        self._position = self._interval_end
        return self._scan()

    def _first_page(self, rows: Sequence[IndexRow]) -> Step:
        last = rows[-1] if len(rows) == self._rows_per_step else None
        if last is None or last.base_offset >= self._end or not self._is_too_early(last):
            return self._new_page(rows)
        self._phase = _Phase.SEARCHING
        return self._halve(last)

    def _halve(self, row: IndexRow | None) -> Step:
        """Take in the first row at or behind the middle, and ask for the next one."""
        if row is not None and row.base_offset < self._high and self._is_too_early(row):
            self._position = max(self._position, row.base_offset)
        else:
            self._high = self._middle
        if self._high - self._position <= 1:
            self._phase = _Phase.SCANNING
            return NeedRows(self._position, self._rows_per_step)
        self._middle = (self._position + self._high) // 2
        return NeedRows(self._middle, 1)

    def _is_too_early(self, row: IndexRow) -> bool:
        return row.max_timestamp_before_ms < self._time_ms

    def _new_page(self, rows: Sequence[IndexRow]) -> Step:
        self._phase = _Phase.SCANNING
        self._rows = list(reversed(rows))
        self._more_rows = len(rows) == self._rows_per_step
        return self._scan()

    def _scan(self) -> Step:
        """Look at interval after interval, each of which ends at a row."""
        while self._rows and self._position < self._end:
            row = self._rows.pop()
            interval_end = min(row.base_offset, self._end)
            if interval_end <= self._position:
                continue
            if row.interval_max_timestamp_ms >= self._time_ms:
                return self._read_until(interval_end)
            self._position = interval_end
        if self._position >= self._end:
            return NotFound()
        if self._more_rows:
            self._phase = _Phase.SCANNING
            return NeedRows(self._position + 1, self._rows_per_step)
        return self._read_until(self._end)

    def _read_until(self, interval_end: int) -> NeedBatches:
        self._phase = _Phase.READING
        self._interval_end = interval_end
        return NeedBatches(self._position, interval_end)
