"""The machine of one partition: offsets, times, signposts, watermarks, trims."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import BatchHeader, Stamp
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.log.state import LogState
from riverrun_server.core.producers import Duplicate, ProducerTable


def machine(state: LogState | None = None, *, interval: int = 1000) -> PartitionMachine:
    return PartitionMachine(
        state or LogState(), ProducerTable(100), leader_epoch=3, index_interval_bytes=interval
    )


def append(
    it: PartitionMachine, header: BatchHeader, *, size: int = 100, now_ms: int = 1_000
) -> Stamp | Duplicate:
    decided = it.decide(header, None, now_ms)
    if isinstance(decided, Stamp):
        it.appended(header, decided, it.rows(header, decided, size))
    return decided


def test_offsets_are_dense_and_in_the_current_epoch():
    it = machine()
    first = append(it, BatchHeader(3, 50))
    second = append(it, BatchHeader(2, 50))
    assert (first.base_offset, first.next_offset) == (0, 3)
    assert (second.base_offset, second.next_offset) == (3, 5)
    assert second.leader_epoch == 3
    assert it.log_end == 5


def test_a_decision_changes_nothing_until_the_write_has_returned():
    it = machine()
    header = BatchHeader(3, 50, producer_id=9)
    stamp = it.decide(header, None, 1_000)
    it.rows(header, stamp, 100)
    assert it.state == LogState()
    assert it.decide(header, None, 1_000) == stamp  # not a duplicate: nothing was written


def test_the_append_time_never_goes_back():
    it = machine()
    append(it, BatchHeader(1, 10), now_ms=5_000)
    assert append(it, BatchHeader(1, 10), now_ms=4_000).append_time_ms == 5_000


def test_a_batch_without_timestamps_has_the_time_of_its_append():
    it = machine()
    assert append(it, BatchHeader(1, 10), now_ms=7_000).partition_max_timestamp_ms == 7_000


def test_the_running_maximum_of_timestamps_never_goes_back():
    it = machine()
    append(it, BatchHeader(1, 10, max_timestamp_ms=900))
    assert append(it, BatchHeader(1, 10, max_timestamp_ms=500)).partition_max_timestamp_ms == 900


def test_an_expected_offset_must_be_the_log_end():
    it = machine()
    append(it, BatchHeader(3, 50))
    with pytest.raises(Refusal) as refused:
        it.decide(BatchHeader(1, 10), 2, 1_000)
    assert refused.value.reason is Reason.EXPECTED_OFFSET_MISMATCH
    assert refused.value.available == (0, 3)
    assert it.decide(BatchHeader(1, 10), 3, 1_000).base_offset == 3


def test_a_duplicate_is_recognised_before_the_expected_offset_is_looked_at():
    it = machine()
    header = BatchHeader(3, 50, producer_id=9)
    append(it, header)
    assert it.decide(header, 0, 1_000) == Duplicate(0, 2)


def test_the_watermark_follows_the_disk_and_not_the_append():
    it = machine()
    append(it, BatchHeader(3, 50))
    assert it.high_watermark == 0
    assert it.synced(3)
    assert it.high_watermark == 3
    assert not it.synced(2)  # an older capture proves nothing new
    assert it.high_watermark == 3


def test_more_than_was_appended_cannot_be_synced():
    it = machine()
    with pytest.raises(AssertionError):
        it.synced(1)


def replicated(state: LogState | None = None) -> PartitionMachine:
    return PartitionMachine(
        state or LogState(), ProducerTable(100), leader_epoch=3, replicated=True
    )


def test_with_other_replicas_the_watermark_waits_for_more_than_the_disk():
    it = replicated()
    append(it, BatchHeader(5, 50))
    assert not it.synced(5)
    assert (it.durable_end, it.high_watermark) == (5, 0)
    assert it.committed(3)
    assert not it.committed(2)
    assert (it.durable_end, it.high_watermark) == (5, 3)


def test_what_is_not_on_the_disk_is_not_committed():
    it = replicated()
    append(it, BatchHeader(5, 50))
    it.synced(4)
    with pytest.raises(AssertionError):
        it.committed(5)


def test_what_is_cut_off_is_not_on_the_disk_any_more():
    it = replicated()
    append(it, BatchHeader(5, 50))
    it.synced(5)
    it.cut(replace(it.state, log_end_offset=2))
    assert (it.durable_end, it.log_end) == (2, 2)
    append(it, BatchHeader(5, 50))
    assert it.durable_end == 2


def test_producers_of_batches_that_a_snapshot_knew_are_not_counted_again():
    it = replicated()
    it.producers_known_to = 4
    append(it, BatchHeader(2, 50, producer_id=1))
    append(it, BatchHeader(2, 50, producer_id=2))
    append(it, BatchHeader(2, 50, producer_id=3))
    known = it.producers.snapshot(6).producers
    assert [each.producer_id for each in known] == [3]


def test_a_trim_stops_at_the_watermark():
    it = machine()
    append(it, BatchHeader(10, 50))
    it.synced(10)
    append(it, BatchHeader(10, 50))
    with pytest.raises(Refusal) as refused:
        it.trim_plan(11, 0)
    assert refused.value.reason is Reason.OFFSET_OUT_OF_RANGE
    assert refused.value.available == (0, 10)
    it.trimmed(it.trim_plan(-1, 0))
    assert it.log_start == 10


def test_the_log_start_never_goes_back():
    it = machine()
    append(it, BatchHeader(10, 50))
    it.synced(10)
    it.trimmed(it.trim_plan(6, 0))
    assert it.trim_plan(4, 0) is None


@pytest.mark.parametrize("offset", [3, 21])
def test_offsets_below_the_start_and_above_the_end_are_out_of_range(offset):
    it = machine()
    append(it, BatchHeader(20, 50))
    it.synced(20)
    it.trimmed(it.trim_plan(4, 0))
    with pytest.raises(Refusal) as refused:
        it.readable(offset)
    assert refused.value.available == (4, 20)
    side = "was deleted" if offset < 4 else "does not exist yet"
    assert refused.value.message == (
        f"offset {offset} {side}: the first record is 4, the last is 19, the next will be 20"
    )


def test_of_a_partition_without_records_it_is_told_where_the_next_one_comes():
    it = machine()
    append(it, BatchHeader(20, 50))
    it.synced(20)
    it.trimmed(it.trim_plan(-1, 0))
    with pytest.raises(Refusal, match="the partition has no records, the next will be 20"):
        it.readable(3)


def test_between_watermark_and_end_a_reader_may_wait():
    it = machine()
    append(it, BatchHeader(20, 50))
    it.readable(15)
    it.readable(20)


def test_a_signpost_is_due_after_an_hour_however_little_was_written():
    it = machine(interval=1 << 20)
    append(it, BatchHeader(1, 10), now_ms=1_000)
    hour = 3_600_000
    header = BatchHeader(1, 10)
    before = it.rows(header, it.decide(header, None, hour + 999), 100)
    due = it.rows(header, it.decide(header, None, hour + 1_000), 100)
    assert before.index is None
    assert due.index is not None
    assert due.index.append_time_ms == due.state.indexed_append_time_ms == hour + 1_000


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 900), st.integers(0, 3_000)), max_size=40)
)
def test_signposts_stand_where_a_naive_count_puts_them(batches):
    it = machine(interval=1000)
    rows = []
    sizes: list[int] = []
    times: list[int] = []
    since = 0
    for count, size, timestamp in batches:
        header = BatchHeader(count, size, max_timestamp_ms=timestamp)
        stamp = it.decide(header, None, 1_500)
        row = it.rows(header, stamp, size).index
        before = sum(sizes)
        due = not sizes or before - sum(sizes[:since]) >= 1000
        assert (row is not None) == due
        if row is not None:
            assert row.base_offset == stamp.base_offset
            assert row.bytes_before == before
            assert row.max_timestamp_before_ms == max(times, default=0)
            assert row.interval_max_timestamp_ms == max(times[since:], default=0)
            since = len(sizes)
            rows.append(row)
        it.appended(header, stamp, it.rows(header, stamp, size))
        sizes.append(size)
        times.append(timestamp or 1_500)
        assert it.state.interval_max_timestamp_ms == max(times[since:])
        assert it.state.indexed_bytes == sum(sizes[:since])
    assert it.size_bytes == sum(sizes)
