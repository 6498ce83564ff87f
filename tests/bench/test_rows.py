"""Rows have medians, and ratios of which above one means that Riverrun is ahead."""

from __future__ import annotations

import json

from tests.bench import compare
from tests.bench.kafka_process import Missing
from tests.bench.rows import RATE, TIME, Samples, markdown, ratio
from tests.bench.sides import Answered
from tests.bench.systems import KAFKA, KAFKA_AT_ONCE, KAFKA_FSYNC, RELAXED, RIVERRUN
from tests.bench.workloads import Scale, steps

VERSIONS = {"riverrun": "1.0", "kafka": "4.0"}
SCALE = Scale({100: 1_000}, (1, 2), (50,), 1, 10)


class FakeSide:
    """Does nothing, and says that it was as fast as it is told."""

    def __init__(self, name, figure=1.0, refusal=None):
        self.name, self.figure, self.refusal = name, figure, refusal
        self.running, self.topics = False, set()

    def version(self):
        if isinstance(self.refusal, Missing):
            raise self.refusal
        return VERSIONS[self.name]

    def start(self):
        self.running, self.topics = True, set()

    def stop(self):
        self.running = False

    def create_topic(self, topic, partitions, system):
        assert self.running
        assert topic not in self.topics
        self.topics.add(topic)

    def produce(self, system, topic, records, record_size):
        assert topic in self.topics
        return self.figure

    def read(self, topic, records):
        assert topic in self.topics, "it is read before it is written"
        if self.refusal:
            raise self.refusal
        return self.figure

    def answer(self, system, topic, rate, seconds, record_size):
        return Answered(1.0, 2.0, 3.0)

    def round_trip(self, topic, trips, record_size):
        return self.figure


def row_of(samples, system):
    return next(row for row in samples.rows(VERSIONS) if row.system == system.name)


def test_a_row_has_the_median_and_the_extremes_of_the_rounds():
    samples = Samples()
    for figure in (5.0, 1.0, 2.0):
        samples.add("produce", KAFKA, RATE, figure)
    row = row_of(samples, KAFKA)
    assert (row.min, row.median, row.max, row.rounds, row.version) == (1.0, 2.0, 5.0, 3, "4.0")


def test_a_higher_rate_and_a_lower_latency_are_ahead():
    assert ratio(300.0, 100.0, RATE) == 3.0
    assert ratio(2.0, 10.0, TIME) == 5.0


def test_a_latency_below_what_the_tool_tells_has_no_ratio():
    assert ratio(0.4, 0.0, TIME) is None
    samples = Samples()
    samples.add("ack", RIVERRUN, TIME, 0.4)
    samples.add("ack", KAFKA_AT_ONCE, TIME, 0.0)
    assert row_of(samples, KAFKA_AT_ONCE).ratio is None


def test_the_ratio_is_to_riverruns_defaults_and_beside_it_to_equal_durability():
    samples = Samples()
    for system, figure in ((RIVERRUN, 100.0), (RELAXED, 150.0), (KAFKA, 50.0), (KAFKA_FSYNC, 10.0)):
        samples.add("produce", system, RATE, figure)
    assert (row_of(samples, KAFKA).ratio, row_of(samples, KAFKA).like_for_like) == (2.0, 3.0)
    assert (row_of(samples, KAFKA_FSYNC).ratio, row_of(samples, KAFKA_FSYNC).like_for_like) == (
        10.0,
        10.0,
    )
    assert row_of(samples, RIVERRUN).ratio is None


def test_one_system_alone_has_no_ratio():
    samples = Samples()
    samples.add("produce", KAFKA, RATE, 50.0)
    assert row_of(samples, KAFKA).ratio is None


def test_the_markdown_table_is_as_wide_in_every_line():
    samples = Samples()
    samples.add("produce", RIVERRUN, RATE, 1_234_567.0)
    lines = markdown(samples.rows(VERSIONS)).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "1,234,567" in lines[2]


def test_both_sides_are_asked_for_the_same():
    samples = Samples()
    for name in ("riverrun", "kafka"):
        side = FakeSide(name)
        side.start()
        for step in steps(side, SCALE, samples):
            step.run()
    for workload, systems in samples.figures.items():
        assert {system.broker for system in systems} == {"riverrun", "kafka"}, workload
    assert len(samples.figures) == 2 * 2 + 3 + 1


def test_sides_begin_in_turn_and_never_run_together():
    sides = [FakeSide("riverrun"), FakeSide("kafka")]
    order = []
    for side, other in (sides, reversed(sides)):

        def start(side=side, other=other, go=side.start):
            assert not other.running
            order.append(side.name)
            go()

        side.start = start
    bench = compare.Bench(sides, SCALE)
    bench.round(0)
    bench.round(1)
    assert order == ["riverrun", "kafka", "kafka", "riverrun"]
    assert not bench.failures


def test_a_measurement_that_fails_is_told_and_the_others_are_made():
    bench = compare.Bench([FakeSide("riverrun", refusal=RuntimeError("no leader"))], SCALE)
    bench.round(0)
    failed = [failure.partition(":")[0] for failure in bench.failures]
    assert failed == ["read, 100 B, 1 partition", "read, 100 B, 2 partitions"]
    assert "no leader" in bench.failures[0]
    assert any(row.workload.startswith("produce") for row in bench.rows())


def test_what_is_missing_on_this_machine_is_told_and_the_other_side_is_measured(tmp_path):
    sides = [FakeSide("riverrun"), FakeSide("kafka", refusal=Missing("no `java` on the path"))]
    bench = compare.Bench(sides, SCALE)
    bench.round(0)
    assert bench.failures == ["kafka: no `java` on the path"]
    compare.write(tmp_path, bench.rows(), 1)
    rows = json.loads((tmp_path / "latest.json").read_text())["rows"]
    assert {row["system"] for row in rows} == {RIVERRUN.name, RELAXED.name}
    assert {"workload", "system", "version", "min", "median", "max", "unit", "ratio"} <= set(
        rows[0]
    )


def test_a_zero_rate_has_no_ratio():
    assert ratio(0.0, 1.0, RATE) is None
