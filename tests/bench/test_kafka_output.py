"""What Kafka's tools print is read as it is, and what is not there is said."""

from __future__ import annotations

import pytest

from tests.bench.kafka_output import consumed, produced, round_trip_ms
from tests.bench.kafka_process import version

PRODUCED = """\
Reading payloads from: values-100
Number of records read: 64
Warmup first 500000 records. Steady state results will print after the complete test summary.
92601 records sent, 18501.7 records/sec (1.76 MB/sec), 1587.4 ms avg latency, 2881.0 ms max latency.
In steady state.
676062 records sent, 135185.4 records/sec (12.89 MB/sec), 2504.1 ms avg latency, 3242.0 ms max latency.
2000000 records sent, 97991.180794 records/sec (9.35 MB/sec), 2525.64 ms avg latency, 4369.00 ms max latency, 2095 ms 50th, 4199 ms 95th, 4324 ms 99th, 4353 ms 99.9th.
"""
STEADY = "1500000 steady state records sent, 108139.283397 records/sec (10.31 MB/sec), 2229.78 ms avg latency, 3526.00 ms max latency, 1917 ms 50th, 3316 ms 95th, 3430 ms 99th, 3448 ms 99.9th.\n"
CONSUMED = """\
start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec
2026-11-30 12:11:58:700, 2026-11-30 12:12:07:540, 381.4697, 43.1527, 4000000, 452488.6878, 4526, 4314, 88.4260, 927213.7228
"""
ROUND_TRIPS = """\
0\t159.81241500000002
2000\t7.869927
Avg latency: 10.0317 ms
Percentiles: 50th = 7, 99th = 39, 99.9th = 91
"""


def test_what_was_produced_after_the_warm_up_counts():
    found = produced(PRODUCED + STEADY)
    assert found.records == 1_500_000
    assert found.records_per_s == 108_139.283397
    assert (found.p50_ms, found.p99_ms, found.p999_ms) == (1917, 3430, 3448)


def test_without_a_warm_up_the_whole_run_counts():
    found = produced(PRODUCED)
    assert found.records == 2_000_000
    assert found.records_per_s == 97_991.180794


def test_the_time_until_partitions_are_assigned_does_not_count_in_reading():
    assert consumed(CONSUMED, 4_000_000) == 927_213.7228


def test_a_reader_that_stopped_early_is_no_measurement():
    with pytest.raises(ValueError, match=r"read 4000000 records, 4000001 are there"):
        consumed(CONSUMED, 4_000_001)


def test_round_trips_are_told_by_their_mean():
    assert round_trip_ms(ROUND_TRIPS) == 10.0317


@pytest.mark.parametrize("read", [produced, lambda text: consumed(text, 1), round_trip_ms])
def test_output_of_another_kind_is_shown(read):
    with pytest.raises(ValueError, match="TimeoutException: no leader"):
        read("ERROR TimeoutException: no leader\n")


def test_kafkas_version_is_the_pinned_one():
    assert version().startswith("4.")
