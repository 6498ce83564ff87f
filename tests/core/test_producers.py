"""The producer table against a model that keeps every batch and recomputes everything."""

from __future__ import annotations

from array import array
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import BatchHeader, Stamp
from riverrun_server.core.producers import (
    FRESH,
    GAP_COUNTED_AT_MOST_MS,
    MAX_UNACKNOWLEDGED_BATCHES,
    Duplicate,
    ProducerEntry,
    ProducersSnapshot,
    ProducerTable,
)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def header(base: int, count: int = 1, *, pid: int = 1, epoch: int = 0) -> BatchHeader:
    return BatchHeader(count, 100, pid, epoch, base)


def stamp(offset: int, count: int = 1, time_ms: int = 0) -> Stamp:
    return Stamp(offset, count - 1, 0, time_ms, time_ms)


def table_with(*batches: tuple[BatchHeader, int], max_producers: int = 10) -> ProducerTable:
    table = ProducerTable(max_producers)
    for batch, offset in batches:
        table.appended(batch, stamp(offset, batch.record_count))
    return table


def refusal(table: ProducerTable, batch: BatchHeader) -> Refusal:
    with pytest.raises(Refusal) as caught:
        table.check(batch)
    assert caught.value.meaning.definite
    return caught.value


def test_a_batch_without_producer_id_is_never_tracked():
    table = table_with((header(0, pid=0), 0))
    assert table.check(header(0, pid=0)) is FRESH
    assert len(table) == 0


def test_a_producer_goes_on_where_it_stopped():
    table = table_with((header(0, 3), 10))
    assert table.check(header(3, 2)) is FRESH


def test_a_producer_new_to_the_partition_starts_at_zero():
    table = ProducerTable(10)
    assert table.check(header(0)) is FRESH
    assert refusal(table, header(5)).reason is Reason.UNKNOWN_PRODUCER


def test_a_new_epoch_starts_at_zero_and_ends_the_old_one():
    table = table_with((header(0, 3), 10))
    assert refusal(table, header(3, epoch=1)).reason is Reason.UNKNOWN_PRODUCER
    assert table.check(header(0, epoch=1)) is FRESH
    table.appended(header(0, epoch=1), stamp(13))
    assert refusal(table, header(3)).reason is Reason.PRODUCER_FENCED
    assert refusal(table, header(0)).reason is Reason.PRODUCER_FENCED


def test_a_gap_is_refused_with_the_expected_sequence():
    table = table_with((header(0, 3), 10))
    error = refusal(table, header(5))
    assert (error.reason, error.expected_sequence) == (Reason.OUT_OF_ORDER_SEQUENCE, 3)


def test_a_partial_overlap_is_refused_with_the_expected_sequence():
    table = table_with((header(0, 3), 10))
    error = refusal(table, header(1, 3))
    assert (error.reason, error.expected_sequence) == (Reason.OUT_OF_ORDER_SEQUENCE, 3)


def test_a_duplicate_has_the_offsets_of_its_original():
    table = table_with((header(0, 3), 10), (header(3, 2), 20))
    assert table.check(header(0, 3)) == Duplicate(10, 12)
    assert table.check(header(3, 2)) == Duplicate(20, 21)


def test_a_duplicate_cut_in_other_batches_is_still_one():
    table = table_with((header(0, 3), 10), (header(3, 2), 20))
    assert table.check(header(1, 3)) == Duplicate(11, 20)


def test_a_forgotten_duplicate_is_still_one_and_waits_for_what_came_after():
    table = table_with(*((header(n), 100 + n) for n in range(MAX_UNACKNOWLEDGED_BATCHES + 2)))
    assert table.check(header(1)) == Duplicate(None, 101)
    assert table.check(header(0)) == Duplicate(None, 101)
    assert table.check(header(2)) == Duplicate(102, 102)
    assert table.check(header(1, 2)) == Duplicate(None, 102)


def test_a_full_table_refuses_a_new_producer_until_one_expires():
    table = table_with((header(0, pid=1), 0), (header(0, pid=2), 1), max_producers=2)
    assert refusal(table, header(0, pid=3)).reason is Reason.LIMIT_EXCEEDED
    assert table.check(header(1, pid=2)) is FRESH
    for minute in range(25 * 60):
        table.expire(minute * 60_000, DAY_MS)
    assert table.check(header(0, pid=3)) is FRESH


def test_a_clock_that_leaps_a_year_expires_nobody():
    table = table_with((header(0), 0))
    assert table.expire(365 * DAY_MS, DAY_MS) == 0
    table.appended(header(0, pid=2), stamp(1, time_ms=365 * DAY_MS))
    assert table.expire(365 * DAY_MS, DAY_MS) == 0
    assert len(table) == 2


def test_a_silence_counts_an_hour_once_somebody_has_written_again():
    table = table_with((header(0), 0))
    for hour in range(1, 20):
        table.expire(hour * HOUR_MS, DAY_MS)
    table.appended(header(0, pid=2), stamp(1, time_ms=20 * HOUR_MS))
    for hour in range(20, 30):
        assert table.expire(hour * HOUR_MS, DAY_MS) == 0


def test_a_restart_is_no_silence():
    table = table_with((header(0), 0))
    table.appended(header(1), stamp(1, time_ms=DAY_MS))
    again = ProducerTable(10)
    again.restore(table.snapshot(2))
    assert again.expire(DAY_MS + 60_000, 120_000) == 0
    assert again.expire(DAY_MS + 121_000, 120_000) == 1


def test_a_silent_producer_expires_while_others_write():
    table = table_with((header(0), 0))
    for hour in range(1, 30):
        table.appended(header(hour - 1, pid=2), stamp(hour, time_ms=hour * HOUR_MS))
        table.expire(hour * HOUR_MS, DAY_MS)
    assert refusal(table, header(1)).reason is Reason.UNKNOWN_PRODUCER
    assert table.check(header(29, pid=2)) is FRESH


def test_a_log_may_show_a_producer_that_had_expired_in_between():
    table = table_with((header(0, 5, epoch=3), 0), (header(0, 2, epoch=3), 5))
    assert table.check(header(2, epoch=3)) is FRESH
    assert table.check(header(0, 2, epoch=3)) == Duplicate(5, 6)
    (known,) = table.snapshot(7).producers
    assert list(known.batches) == [0, 5, 2]
    table.appended(header(0, epoch=1), stamp(7))
    assert table.check(header(1, epoch=1)) is FRESH


class Model:
    """Every batch of the log, and from where on each producer has not expired."""

    def __init__(self) -> None:
        self.log: list[tuple[BatchHeader, Stamp]] = []
        self.forgotten: dict[int, int] = {}
        self.observed: list[int] = []

    def copy(self, cut: int) -> Model:
        other = Model()
        other.log = self.log[:cut]
        other.forgotten = dict(self.forgotten)
        return other

    def tracked(self) -> list[tuple[BatchHeader, Stamp]]:
        return [entry for entry in self.log if entry[0].producer_id]

    def run(self, pid: int) -> list[tuple[BatchHeader, Stamp]]:
        """The unbroken run of batches with which a producer's history ends."""
        run: list[tuple[BatchHeader, Stamp]] = []
        for batch, place in self.log[self.forgotten.get(pid, 0) :]:
            if batch.producer_id != pid:
                continue
            last = run[-1][0] if run else None
            if last and (last.producer_epoch, last.last_sequence + 1) != (
                batch.producer_epoch,
                batch.base_sequence,
            ):
                run = []
            run.append((batch, place))
        return run

    def known(self) -> list[int]:
        """Known producers, in the order of their newest batches."""
        order = dict.fromkeys(batch.producer_id for batch, _ in reversed(self.tracked()))
        return [pid for pid in reversed(order) if self.run(pid)]

    def age_ms(self, pid: int) -> int:
        tracked = self.tracked()
        newest = max(n for n, (batch, _) in enumerate(tracked) if batch.producer_id == pid)
        times = [place.append_time_ms for _, place in tracked[newest:]]
        return sum(min(b - a, HOUR_MS) for a, b in pairwise(times))

    def expire(self, now_ms: int, retention_ms: int) -> None:
        self.observed.append(now_ms)
        times = [self.tracked()[-1][1].append_time_ms if self.tracked() else 0, *self.observed]
        quiet_ms = sum(min(max(b - a, 0), HOUR_MS) for a, b in pairwise(times))
        for pid in self.known():
            if self.age_ms(pid) + quiet_ms > retention_ms:
                self.forgotten[pid] = len(self.log)

    def verdict(self, batch: BatchHeader, limit: int) -> object:
        run = self.run(batch.producer_id)
        if batch.producer_id == 0:
            return FRESH
        if not run or run[-1][0].producer_epoch < batch.producer_epoch:
            if batch.base_sequence:
                return Reason.UNKNOWN_PRODUCER
            return FRESH if run or len(self.known()) < limit else Reason.LIMIT_EXCEEDED
        if run[-1][0].producer_epoch > batch.producer_epoch:
            return Reason.PRODUCER_FENCED
        expected = run[-1][0].last_sequence + 1
        if batch.base_sequence == expected:
            return FRESH
        if batch.last_sequence >= expected:
            return (Reason.OUT_OF_ORDER_SEQUENCE, expected)
        offsets = {
            old.base_sequence + n: place.base_offset + n
            for old, place in run[-MAX_UNACKNOWLEDGED_BATCHES:]
            for n in range(old.record_count)
        }
        below = min(offsets.values()) - 1
        return Duplicate(offsets.get(batch.base_sequence), offsets.get(batch.last_sequence, below))

    def snapshot(self, offset: int) -> ProducersSnapshot:
        entries = []
        for pid in self.known():
            run = self.run(pid)
            entries.append(
                ProducerEntry(
                    pid,
                    run[-1][0].producer_epoch,
                    run[-1][0].last_sequence,
                    self.tracked()[-1][1].append_time_ms - self.age_ms(pid),
                    array(
                        "q",
                        [
                            number
                            for old, place in run[-MAX_UNACKNOWLEDGED_BATCHES:]
                            for number in (
                                old.base_sequence,
                                place.base_offset,
                                old.record_count,
                            )
                        ],
                    ),
                )
            )
        return ProducersSnapshot(offset, tuple(entries))


class TableAgainstModel(RuleBasedStateMachine):
    """Appends, expiry, restarts and truncations leave what recomputation from the log gives."""

    limit = 4

    def __init__(self) -> None:
        super().__init__()
        self.table = ProducerTable(self.limit)
        self.model = Model()
        self.now_ms = DAY_MS
        self.snapshots = [(0, self.table.snapshot(0), self.model.copy(0))]

    @property
    def end(self) -> int:
        return self.model.log[-1][1].next_offset if self.model.log else 0

    def check(self, batch: BatchHeader) -> object:
        try:
            found: object = self.table.check(batch)
        except Refusal as error:
            found = error.reason
            if error.reason is Reason.OUT_OF_ORDER_SEQUENCE:
                found = (error.reason, error.expected_sequence)
        assert found == self.model.verdict(batch, self.limit)
        return found

    @rule(
        pid=st.integers(0, 6),
        epoch=st.sampled_from([0, 0, 0, 1, -1]),
        skip=st.sampled_from([0, 0, 0, 0, 0, 1, -1, -2, -5, -70, None]),
        count=st.integers(1, 4),
        times=st.sampled_from([1, 1, 1, 1, MAX_UNACKNOWLEDGED_BATCHES + 3]),
    )
    def send(self, pid, epoch, skip, count, times):
        run = self.model.run(pid)
        last = run[-1][0] if run else header(-1, pid=pid)
        base = 0 if skip is None or epoch == 1 else max(last.last_sequence + 1 + skip, 0)
        epoch = max(last.producer_epoch + epoch, 0)
        for _ in range(times):
            batch = header(base, count, pid=pid, epoch=epoch)
            if self.check(batch) is FRESH:
                place = stamp(self.end, count, self.now_ms)
                self.table.appended(batch, place)
                self.model.log.append((batch, place))
                self.model.observed = [] if pid else self.model.observed
            base += count

    @rule(ms=st.sampled_from([0, 1, 60_000, HOUR_MS // 2, HOUR_MS, HOUR_MS + 1, 50 * HOUR_MS]))
    def pass_time(self, ms):
        self.now_ms += ms

    @rule(hours=st.integers(0, 5), slow=st.booleans())
    def expire(self, hours, slow):
        now_ms = self.now_ms - HOUR_MS if slow else self.now_ms
        self.table.expire(now_ms, hours * HOUR_MS)
        self.model.expire(now_ms, hours * HOUR_MS)

    @rule()
    def take_snapshot(self):
        index = len(self.model.log)
        self.snapshots.append((index, self.table.snapshot(self.end), self.model.copy(index)))

    @rule(data=st.data())
    def restart_or_truncate(self, data):
        cut = data.draw(st.integers(0, len(self.model.log)))
        usable = [taken for taken in self.snapshots if taken[0] <= cut]
        index, snapshot, model = data.draw(st.sampled_from(usable))
        log = self.model.log[:cut]
        self.snapshots = usable
        self.table = ProducerTable(self.limit)
        self.table.restore(snapshot)
        for entry in log[index:]:
            self.table.appended(*entry)
        self.model = model.copy(index)
        self.model.log = log

    @invariant()
    def the_state_is_what_the_log_says(self):
        assert self.table.snapshot(self.end) == self.model.snapshot(self.end)
        assert len(self.table) == len(self.model.known())


TestTableAgainstModel = TableAgainstModel.TestCase
TestTableAgainstModel.settings = settings(
    max_examples=150,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_a_gap_counts_an_hour():
    assert GAP_COUNTED_AT_MOST_MS == HOUR_MS
