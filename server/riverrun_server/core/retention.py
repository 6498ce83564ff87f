"""Where a partition's log should begin: by age and by size, looking at its sparse index only.

A trim writes a range deletion, which every later read near it has to step over, so trims are rare
and large: they end at index rows, and wait until enough has gathered or the oldest of it is well
overdue. What is deleted lies below the high watermark, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from riverrun_server.core.log.state import IndexRow, LogState
from riverrun_server.core.time_lookup import ROWS_PER_STEP, NeedRows

STEP_BYTES = 64 << 20
"""A trim of this size does not wait. At 300 MB/s, five a second on the whole broker."""

STEP_SHARE = 8
"""Nor does one of this part of the limit, so that a small limit is kept as well as a large one."""

OVERDUE_MAX_MS = 3_600_000
"""Nor does what should have gone an hour ago; at a low rate that is a trim an hour at most."""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """How much is kept.

    Attributes:
        retention_ms: for how long after its append; None is for ever.
        retention_bytes: of how many bytes at least; None is all. What is older goes, up to a step
            of a trim.
        time_paused: the clock is not to be trusted: nothing goes because of its age.
    """

    retention_ms: int | None = None
    retention_bytes: int | None = None
    time_paused: bool = False


@dataclass(frozen=True, slots=True)
class TrimTo:
    """Let the log begin later.

    Attributes:
        log_start: the first offset to keep, the start of a batch or the log end.
        trimmed_bytes: of all batches below it, since the partition began.
    """

    log_start: int
    trimmed_bytes: int


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave the log as it is, for now."""


Decision: TypeAlias = NeedRows | TrimTo | Keep


class RetentionScan:
    """One look at a partition: `start`, then `on_rows` as often as rows are asked for.

    Transitions: scanning -> scanning (every row of the page may be the log start, take the next
    page) | decided.

    Everything below a row may go by age if the row's own append is older than the limit, for append
    times never go back; and by size if what stands from the row on still is the limit. Both hold for
    a prefix of the rows, so the scan stops at the first row for which neither does. The log end
    counts as one more row: a partition to which nobody writes becomes empty.

    Args:
        state: of the partition, as of now; a trim that comes in between does no harm.
        rule: how much is kept.
        now_ms: by the guarded clock.
        rows_per_step: how many rows are asked for at once.
    """

    __slots__ = (
        "_by_age",
        "_by_size",
        "_first_by_age",
        "_now_ms",
        "_rows_per_step",
        "_rule",
        "_state",
    )

    def __init__(
        self,
        state: LogState,
        rule: RetentionRule,
        now_ms: int,
        *,
        rows_per_step: int = ROWS_PER_STEP,
    ) -> None:
        self._state = state
        self._rule = rule
        self._now_ms = now_ms
        self._rows_per_step = rows_per_step
        self._first_by_age: IndexRow | None = None
        self._by_age: IndexRow | None = None  # the last row up to which everything may go
        self._by_size: IndexRow | None = None

    def start(self) -> Decision:
        """Begin."""
        state = self._state
        if state.log_start_offset == state.high_watermark:
            return Keep()
        end = IndexRow(state.log_end_offset, state.last_append_time_ms, state.appended_bytes, 0, 0)
        if self._may_begin_at(end):
            return TrimTo(end.base_offset, end.bytes_before)
        if self._rule.retention_ms is None or self._rule.time_paused:
            limit = self._rule.retention_bytes
            if limit is None or state.appended_bytes - state.trimmed_bytes <= limit:
                return Keep()
        return NeedRows(state.log_start_offset + 1, self._rows_per_step)

    def on_rows(self, rows: Sequence[IndexRow]) -> Decision:
        """Take in the rows that were asked for, in order, fewer only where there are no more."""
        for row in rows:
            if not self._may_begin_at(row):
                return self._decide()
        if len(rows) < self._rows_per_step:
            return self._decide()
        return NeedRows(rows[-1].base_offset + 1, self._rows_per_step)

    def _may_begin_at(self, row: IndexRow) -> bool:
        if row.base_offset > self._state.high_watermark:
            return False
        by_age, by_size = self._is_old(row), self._is_enough_from(row)
        if by_age:
            self._by_age = row
            self._first_by_age = self._first_by_age or row
        if by_size:
            self._by_size = row
        return by_age or by_size

    def _is_old(self, row: IndexRow) -> bool:
        return self._overdue_ms(row) > 0

    def _overdue_ms(self, row: IndexRow) -> int:
        """Return for how long everything below a row has been too old."""
        rule = self._rule
        if rule.retention_ms is None or rule.time_paused:
            return 0
        return max(self._now_ms - rule.retention_ms - row.append_time_ms, 0)

    def _is_enough_from(self, row: IndexRow) -> bool:
        limit = self._rule.retention_bytes
        return limit is not None and self._state.appended_bytes - row.bytes_before >= limit

    def _decide(self) -> TrimTo | Keep:
        candidates = [row for row in (self._by_age, self._by_size) if row is not None]
        if not candidates or not (self._age_is_due() or self._size_is_due()):
            return Keep()
        row = max(candidates, key=lambda row: row.base_offset)
        return TrimTo(row.base_offset, row.bytes_before)

    def _age_is_due(self) -> bool:
        if self._by_age is None or self._first_by_age is None or self._rule.retention_ms is None:
            return False
        patience_ms = min(OVERDUE_MAX_MS, self._rule.retention_ms // STEP_SHARE)
        overdue_ms = self._overdue_ms(self._first_by_age)
        return self._freed(self._by_age) >= STEP_BYTES or overdue_ms > patience_ms

    def _size_is_due(self) -> bool:
        if self._by_size is None or self._rule.retention_bytes is None:
            return False
        step_bytes = min(STEP_BYTES, self._rule.retention_bytes // STEP_SHARE)
        return self._freed(self._by_size) >= step_bytes

    def _freed(self, row: IndexRow) -> int:
        return row.bytes_before - self._state.trimmed_bytes
