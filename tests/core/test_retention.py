"""Retention against a log that knows the age and size of every batch."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.log.state import IndexRow, LogState
from riverrun_server.core.retention import (
    OVERDUE_MAX_MS,
    STEP_BYTES,
    Keep,
    RetentionRule,
    RetentionScan,
    TrimTo,
)
from riverrun_server.core.time_lookup import NeedRows

DAY_MS = 86_400_000


@dataclass
class Stored:
    """Batches of one record each, as (append time, bytes), and the index over them."""

    batches: list[tuple[int, int]] = field(default_factory=list)
    rows: list[IndexRow] = field(default_factory=list)
    start: int = 0
    behind_watermark: int = 0

    @property
    def bytes_total(self) -> int:
        return sum(size for _, size in self.batches)

    def append(self, time_ms: int, size: int, *, row: bool = True) -> None:
        if row or not self.batches:
            self.rows.append(IndexRow(len(self.batches), time_ms, self.bytes_total, 0, 0))
        self.batches.append((time_ms, size))

    def state(self) -> LogState:
        end = len(self.batches)
        return LogState(
            log_start_offset=self.start,
            log_end_offset=end,
            high_watermark=max(end - self.behind_watermark, self.start),
            last_append_time_ms=self.batches[-1][0] if self.batches else 0,
            appended_bytes=self.bytes_total,
            trimmed_bytes=sum(size for _, size in self.batches[: self.start]),
        )

    def decide(self, rule: RetentionRule, now_ms: int, rows_per_step: int = 256) -> TrimTo | Keep:
        scan = RetentionScan(self.state(), rule, now_ms, rows_per_step=rows_per_step)
        step = scan.start()
        steps = 0
        while isinstance(step, NeedRows):
            steps += 1
            assert steps <= len(self.rows) + 1
            assert step.limit == rows_per_step
            assert step.from_offset > self.start
            rows = [row for row in self.rows if row.base_offset >= step.from_offset]
            step = scan.on_rows(rows[: step.limit])
        return step


def stored(*batches: tuple[int, int], start: int = 0, behind_watermark: int = 0) -> Stored:
    log = Stored(start=start, behind_watermark=behind_watermark)
    for time_ms, size in batches:
        log.append(time_ms, size)
    return log


def test_without_limits_everything_stays_and_nothing_is_read():
    scan = RetentionScan(stored((0, 10)).state(), RetentionRule(), 1 << 60)
    assert scan.start() == Keep()


def test_a_partition_below_its_size_is_not_read():
    scan = RetentionScan(stored((0, 10)).state(), RetentionRule(retention_bytes=10), 0)
    assert scan.start() == Keep()


def test_what_is_old_goes_and_what_is_not_stays():
    log = stored(*((n * DAY_MS, 10) for n in range(10)))
    rule = RetentionRule(retention_ms=3 * DAY_MS)
    # At day 9, batches appended before day 6 are too old; the row at 5 is the last such.
    assert log.decide(rule, 9 * DAY_MS) == TrimTo(5, 50)


def test_a_partition_to_which_nobody_writes_becomes_empty():
    log = stored(*((n, 10) for n in range(10)))
    assert log.decide(RetentionRule(retention_ms=DAY_MS), DAY_MS + 10) == TrimTo(10, 100)


def test_what_is_not_committed_stays_however_old():
    log = stored(*((n, 10) for n in range(10)), behind_watermark=3)
    assert log.decide(RetentionRule(retention_ms=DAY_MS), 9 * DAY_MS) == TrimTo(7, 70)


def test_what_exceeds_the_size_goes():
    log = stored(*((0, 100) for _ in range(10)))
    assert log.decide(RetentionRule(retention_bytes=500), 0) == TrimTo(5, 500)


def test_at_least_the_size_stays():
    log = stored(*((0, 300) for _ in range(4)))
    assert log.decide(RetentionRule(retention_bytes=500), 0) == TrimTo(2, 600)


def test_a_clock_in_doubt_pauses_age_and_not_size():
    log = stored(*((0, 100) for _ in range(10)))
    rule = RetentionRule(retention_ms=1, retention_bytes=500, time_paused=True)
    assert log.decide(rule, DAY_MS) == TrimTo(5, 500)
    assert log.decide(RetentionRule(retention_ms=1, time_paused=True), DAY_MS) == Keep()


def test_small_trims_wait_until_they_are_overdue():
    rule = RetentionRule(retention_ms=DAY_MS)
    log = stored((0, 10), (1000, 10), (DAY_MS, 10))
    assert log.decide(rule, DAY_MS + 1001) == Keep()
    assert log.decide(rule, DAY_MS + 1000 + OVERDUE_MAX_MS) == Keep()
    assert log.decide(rule, DAY_MS + 1001 + OVERDUE_MAX_MS) == TrimTo(1, 10)


def test_large_trims_do_not_wait():
    rule = RetentionRule(retention_ms=DAY_MS)
    log = stored((0, STEP_BYTES), (1000, 10), (DAY_MS, 10))
    assert log.decide(rule, DAY_MS + 1001) == TrimTo(1, STEP_BYTES)


def test_a_limit_on_size_is_kept_in_steps_of_an_eighth():
    rule = RetentionRule(retention_bytes=8000)
    assert stored(*((0, 100) for _ in range(89))).decide(rule, 0) == Keep()
    assert stored(*((0, 100) for _ in range(90))).decide(rule, 0) == TrimTo(10, 1000)


@dataclass
class Judge:
    """Says of each batch of a log what a rule means for it."""

    log: Stored
    rule: RetentionRule
    now_ms: int

    def is_old(self, offset: int) -> bool:
        if self.rule.retention_ms is None or self.rule.time_paused:
            return False
        return self.log.batches[offset][0] < self.now_ms - self.rule.retention_ms

    def is_enough_from(self, offset: int) -> bool:
        kept = sum(size for _, size in self.log.batches[offset:])
        return self.rule.retention_bytes is not None and kept >= self.rule.retention_bytes

    def is_overdue(self, row: IndexRow) -> bool:
        if not self.is_old(row.base_offset):
            return False
        patience_ms = min(OVERDUE_MAX_MS, self.rule.retention_ms // 8)
        return self.now_ms - self.rule.retention_ms - row.append_time_ms > patience_ms

    def check_trim(self, trim: TrimTo) -> None:
        state = self.log.state()
        gone = range(self.log.start, trim.log_start)
        assert gone
        assert trim.log_start <= state.high_watermark
        assert trim.log_start in {state.log_end_offset, *(row.base_offset for row in self.log.rows)}
        assert trim.trimmed_bytes == sum(size for _, size in self.log.batches[: trim.log_start])
        assert self.is_enough_from(trim.log_start) or all(map(self.is_old, gone))
        # It is worth a range deletion.
        first = next((row for row in self.log.rows if row.base_offset > self.log.start), None)
        freed = trim.trimmed_bytes - state.trimmed_bytes
        assert (
            trim.log_start == state.log_end_offset
            or freed >= STEP_BYTES
            or (self.rule.retention_bytes is not None and freed >= self.rule.retention_bytes // 8)
            or self.is_overdue(first)
        )

    def check_rest(self, start: int, *, trimmed: bool) -> None:
        """Check that what is left is within the limits at every row, or waits with good reason."""
        state = self.log.state()
        for row in self.log.rows:
            if not start < row.base_offset <= state.high_watermark:
                continue
            waiting = row.bytes_before - state.trimmed_bytes
            if self.is_old(row.base_offset):
                assert not trimmed
                assert waiting < STEP_BYTES
                assert not self.is_overdue(row)
            if self.is_enough_from(row.base_offset):
                assert not trimmed
                assert waiting < min(STEP_BYTES, self.rule.retention_bytes // 8)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, OVERDUE_MAX_MS),
            st.sampled_from([1, 10, STEP_BYTES // 4]),
            st.booleans(),
        ),
        max_size=25,
    ),
    st.data(),
)
def test_what_goes_may_go_and_what_should_go_goes(batches, data):
    log, time_ms = Stored(), 0
    for gap_ms, size, row in batches:
        time_ms += gap_ms
        log.append(time_ms, size, row=row)
    log.start = data.draw(st.integers(0, len(log.batches)))
    log.behind_watermark = data.draw(st.integers(0, 3))
    now_ms = time_ms + data.draw(st.integers(0, 2 * OVERDUE_MAX_MS))
    rule = RetentionRule(
        data.draw(st.none() | st.integers(1, max(now_ms, 1))),
        data.draw(st.none() | st.integers(0, 2 * log.bytes_total)),
        data.draw(st.booleans()),
    )
    decision = log.decide(rule, now_ms)
    assert decision == log.decide(rule, now_ms, rows_per_step=1)
    assert decision == log.decide(rule, now_ms, rows_per_step=3)
    judge = Judge(log, rule, now_ms)
    trimmed = isinstance(decision, TrimTo)
    if trimmed:
        judge.check_trim(decision)
    judge.check_rest(decision.log_start if trimmed else log.start, trimmed=trimmed)
