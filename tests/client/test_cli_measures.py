"""Histograms, schedules and workloads of `perf`."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun import UsageError
from riverrun._core.histogram import Histogram
from riverrun.cli.exits import Exit
from riverrun.cli.measure_produce import measure_produce
from riverrun.cli.measurement import Measurement
from riverrun.cli.perf_produce import ProduceLoad
from riverrun.cli.schedule import TICK_NS, ticks
from riverrun.cli.session import complaint_of
from riverrun.cli.workload import Workload
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.fake_log import FakeRefusal
from tests.client.faults import Plan


@given(st.lists(st.integers(0, 10**12), min_size=1), st.floats(0.01, 1.0))
@settings(max_examples=300, deadline=None)
def test_a_quantile_is_never_too_low_and_less_than_a_hundredth_too_high(latencies, quantile):
    histogram = Histogram()
    for latency in latencies:
        histogram.record(latency)
    ordered = sorted(latencies)
    exact = next(latency for at, latency in enumerate(ordered, 1) if at >= quantile * len(ordered))
    told = histogram.quantile_ns(quantile)
    assert exact <= told <= exact + exact // 128 + 1
    assert histogram.max_ns == ordered[-1]
    assert histogram.quantile_ns(1.0) == ordered[-1]


def test_weights_count_and_clocks_that_differ_do_not_hurt():
    histogram = Histogram()
    histogram.record(1_000_000, 99)
    histogram.record(-5)
    assert histogram.count == 100
    assert histogram.summary_ms() == {"p50": 1.0, "p99": 1.0, "p999": 1.0, "max": 1.0}


def test_nothing_measured_is_told_as_nothing():
    assert Histogram().summary_ms() == {"p50": None, "p99": None, "p999": None, "max": None}


@given(st.integers(1, 200_000), st.integers(1, 3000))
@settings(max_examples=100, deadline=None)
def test_each_record_is_due_once_at_its_time(rate, records):
    due = {}
    last_ns = -1
    for tick in ticks(rate, records):
        assert tick.due_ns > last_ns
        assert last_ns < 0 or tick.due_ns - last_ns >= TICK_NS
        last_ns = tick.due_ns
        for number in tick.records:
            assert number not in due
            due[number] = tick.due_ns
    assert sorted(due) == list(range(records))
    for number, due_ns in due.items():
        ideal_ns = number * 1_000_000_000 / rate
        assert -1 <= due_ns - ideal_ns <= max(TICK_NS, 1_000_000_000 / rate)


@given(st.integers(0, 3000), st.sets(st.integers(0, 3000)))
@settings(max_examples=50, deadline=None)
def test_bulk_and_single_records_are_together_as_many_as_asked_for(records, at):
    workload = Workload(records, 5, 3)
    bulk = 0
    single = 0
    for number, (key, value) in enumerate(workload.bulk()):
        assert len(key) == 3
        assert len(value) == 5
        bulk += 1
        if number in at and workload.one() is not None:
            single += 1
    assert bulk + single == records
    assert workload.one() is None


def test_records_are_pairs_from_small_pools():
    pairs = list(Workload(20_000, 100, 8).bulk())
    assert len({value for _, value in pairs}) == 64
    assert set(Counter(key for key, _ in pairs).values()) == {2}
    assert next(Workload(1, 4, 0).bulk())[0] is None


def test_a_measurement_names_what_the_contract_asks_for():
    histogram = Histogram()
    histogram.record(2_000_000)
    fields = Measurement("produce", "t", 10, 1000, 0.5, histogram, {"mode": "many"}).fields()
    assert fields == {
        "test": "produce",
        "topic": "t",
        "records": 10,
        "seconds": 0.5,
        "records_per_s": 20.0,
        "bytes_per_s": 2000.0,
        "latency_ms": {"p50": 2.0, "p99": 2.0, "p999": 2.0, "max": 2.0},
        "mode": "many",
    }


@pytest.mark.parametrize("records", [1, 5])
def test_a_measurement_without_time_does_not_divide_by_nothing(records):
    assert Measurement("x", "t", records, 1, 0.0, Histogram()).fields()["seconds"] == 0.0


@pytest.mark.parametrize("mode", ["many", "send"])
async def test_a_measurement_that_fails_says_how_many_records_were_written(mode):
    broker = FakeBroker(Plan({2: FakeRefusal("INVALID_RECORD", "no good")}))
    broker.add_topic("t")
    load = ProduceLoad(
        topic="t",
        records=20_000,
        record_size=100,
        key_size=0,
        mode=mode,
        batch_bytes=10_000,
        acks="all",
        compression="none",
        partitions=None,
    )
    async with broker.serving() as address, impatient(address) as client:
        with pytest.raises(UsageError, match="no good") as caught:
            await measure_produce(client, load)
    written = len(broker.partition("t").values())
    assert caught.value.acknowledged_records == written > 0
    assert complaint_of(caught.value).code is Exit.PARTLY
