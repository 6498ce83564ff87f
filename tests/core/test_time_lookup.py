"""Lookup by time against looking at every record."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.log.state import IndexRow
from riverrun_server.core.time_lookup import (
    ROWS_PER_STEP,
    Found,
    NeedBatches,
    NeedRows,
    NotFound,
    TimeLookup,
)


@dataclass
class Stored:
    """A log with an index, as a partition writes it, and what a lookup asked of it."""

    batches: list[list[tuple[int, int]]] = field(default_factory=list)
    rows: list[IndexRow] = field(default_factory=list)
    asked: list[object] = field(default_factory=list)
    max_ms: int = 0
    interval_max_ms: int = 0
    end: int = 0

    def append(self, timestamps: list[int], *, row: bool) -> None:
        if row or not self.batches:
            self.rows.append(IndexRow(self.end, 0, 0, self.max_ms, self.interval_max_ms))
            self.interval_max_ms = 0
        self.batches.append([(self.end + n, at) for n, at in enumerate(timestamps)])
        self.max_ms = max(self.max_ms, *timestamps)
        self.interval_max_ms = max(self.interval_max_ms, *timestamps)
        self.end += len(timestamps)

    def lookup(self, lookup: TimeLookup, per_step: int = 2) -> tuple[int, int] | None:
        step = lookup.start()
        while True:
            self.asked.append(step)
            assert len(self.asked) < 1000
            match step:
                case NeedRows(from_offset, limit):
                    rows = [row for row in self.rows if row.base_offset >= from_offset]
                    step = lookup.on_rows(rows[:limit])
                case NeedBatches(from_offset, end):
                    assert from_offset < end <= lookup._end
                    wanted = [
                        batch
                        for batch in self.batches
                        if batch[-1][0] >= from_offset and batch[0][0] < end
                    ][:per_step]
                    records = [record for batch in wanted for record in batch]
                    step = lookup.on_batches(records, records[-1][0] + 1 if records else 0)
                case Found(offset, timestamp_ms):
                    return offset, timestamp_ms
                case NotFound():
                    return None

    def brute_force(self, time_ms: int, log_start: int, end: int) -> tuple[int, int] | None:
        records = (record for batch in self.batches for record in batch)
        late = ((n, at) for n, at in records if log_start <= n < end and at >= time_ms)
        return next(late, None)


batches = st.lists(
    st.tuples(st.lists(st.integers(1, 12), min_size=1, max_size=3), st.booleans()), max_size=30
)


@settings(max_examples=500, deadline=None)
@given(batches, st.integers(0, 13), st.data())
def test_a_lookup_finds_what_looking_at_every_record_finds(batches, time_ms, data):
    stored = Stored()
    for timestamps, row in batches:
        stored.append(timestamps, row=row)
    end = data.draw(st.sampled_from([0, *(batch[-1][0] + 1 for batch in stored.batches)]))
    log_start = data.draw(st.integers(0, end))
    if data.draw(st.booleans()):  # a trim: batches and rows that nothing needs any more are gone
        stored.batches = [batch for batch in stored.batches if batch[-1][0] >= log_start]
        first = stored.batches[0][0][0] if stored.batches else log_start
        stored.rows = [row for row in stored.rows if row.base_offset >= first]
    lookup = TimeLookup(
        time_ms,
        log_start,
        end,
        stored.max_ms,
        rows_per_step=data.draw(st.sampled_from([1, 2, 3, 256])),
    )
    found = stored.lookup(lookup, per_step=data.draw(st.integers(1, 3)))
    assert found == stored.brute_force(time_ms, log_start, end)


def rising(records: int, per_batch: int = 10) -> Stored:
    stored = Stored()
    for base in range(0, records, per_batch):
        stored.append(list(range(base + 1, base + per_batch + 1)), row=base % (5 * per_batch) == 0)
    return stored


def test_a_time_behind_everything_asks_for_nothing():
    stored = rising(100)
    assert stored.lookup(TimeLookup(101, 0, 100, stored.max_ms)) is None
    assert stored.asked == [NotFound()]


def test_an_empty_log_has_nothing():
    assert Stored().lookup(TimeLookup(0, 0, 0, 0)) is None


def test_a_long_index_is_searched_by_halving_and_read_in_one_place():
    stored = rising(100_000)
    assert len(stored.rows) > 5 * ROWS_PER_STEP
    assert stored.lookup(TimeLookup(77_777, 0, 100_000, stored.max_ms)) == (77_776, 77_777)
    assert len(stored.asked) < 25
    reads = [step for step in stored.asked if isinstance(step, NeedBatches)]
    assert all(77_600 < step.from_offset <= step.end < 77_900 for step in reads)


def test_the_record_just_before_a_row_is_not_searched_past():
    stored = rising(100_000)
    assert any(row.max_timestamp_before_ms == 50_000 for row in stored.rows)
    assert stored.lookup(TimeLookup(50_000, 0, 100_000, stored.max_ms)) == (49_999, 50_000)


def test_a_maximum_left_by_a_deleted_record_costs_time_and_nothing_else():
    stored = Stored()
    stored.append([1_000_000], row=True)
    for n in range(1, 2000):
        stored.append([n], row=True)
    found = stored.lookup(TimeLookup(1500, 1, stored.end, stored.max_ms))
    assert found == (1500, 1500)
    reads = [step for step in stored.asked if isinstance(step, NeedBatches)]
    assert reads == [NeedBatches(1500, 1501)]


def test_every_step_is_bounded():
    stored = rising(50_000)
    stored.lookup(TimeLookup(49_000, 10, 50_000, stored.max_ms))
    for step in stored.asked:
        if isinstance(step, NeedRows):
            assert step.limit <= ROWS_PER_STEP
        if isinstance(step, NeedBatches):
            assert step.end - step.from_offset <= 50


def test_what_a_trim_deletes_meanwhile_is_passed_over():
    stored = rising(1000)
    lookup = TimeLookup(500, 0, 1000, stored.max_ms)
    step = lookup.start()
    assert isinstance(step, NeedRows)
    step = lookup.on_rows(stored.rows)
    assert isinstance(step, NeedBatches)
    # Nothing is stored below 700 any more: batches from there on come back instead.
    step = lookup.on_batches([(700, 701)], 710)
    assert step == Found(700, 701)


def test_a_timestamp_at_the_time_is_late_enough():
    stored = rising(100)
    assert stored.lookup(TimeLookup(1, 0, 100, stored.max_ms)) == (0, 1)
    assert stored.lookup(TimeLookup(100, 0, 100, stored.max_ms)) == (99, 100)
    assert stored.lookup(TimeLookup(100, 0, 99, stored.max_ms)) is None
