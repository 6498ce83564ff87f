"""The judge of a soak finds what leaks, and what was lost; and leaves saw teeth alone."""

from __future__ import annotations

import dataclasses
import math
import random
import xml.etree.ElementTree as ET

import pytest

from tests.e2e.soak.judge import BOUNDS, TRENDS_FROM_S, judge, verdicts
from tests.e2e.soak.ledger import Following, Lane, Ledger, read_value, value_of
from tests.e2e.soak.plot import draw
from tests.e2e.soak.samples import Sample, percentiles

LEVEL = Sample(
    at_s=0.0,
    rss_mib=160.0,
    handles=300.0,
    threads=20.0,
    cpu=0.3,
    disk_mib=120.0,
    wal_mib=64.0,
    tables=30.0,
    acks_per_s=500.0,
    p50_ms=4.0,
    p99_ms=20.0,
    loop_lag_ms=8.0,
    collections=3.0,
    uncollectable=0.0,
    load_rss_mib=90.0,
    load_tasks=40.0,
    load_handles=60.0,
    load_threads=8.0,
    load_cpu=0.3,
    cores=2,
    stall_mean_ms=0.1,
    stall_p99_ms=1.0,
    stall_worst_ms=4.0,
    sync_ms=3.0,
)
TIMED = [bound for bound in BOUNDS if bound.stall is not None]
LANE = Lane("t", 0)


def run(minutes=30, every_s=5, **changes):
    """Samples of a run: noise and saw teeth, and per series what `changes` adds at a share of it."""
    dice, count, made = random.Random(1), int(minutes * 60 / every_s), []
    for number in range(1, count + 1):
        at_s = number * every_s
        # Fills up within the first third, as caches do; tables and logs come and go.
        filling, tooth = min(1.0, 3 * number / count), (at_s % 95) / 95
        made.append(
            dataclasses.replace(
                LEVEL,
                at_s=float(at_s),
                rss_mib=100 + 60 * filling + 6 * dice.random(),
                disk_mib=60 + 60 * tooth,
                wal_mib=4 + 60 * tooth,
                tables=20.0 + round(20 * tooth),
                p50_ms=4 + dice.random(),
                p99_ms=20 + 20 * dice.random(),
                loop_lag_ms=8 + 30 * dice.random(),
            )
        )
    return [
        dataclasses.replace(
            sample,
            **{
                name: getattr(sample, name) + more(sample.at_s / made[-1].at_s)
                for name, more in changes.items()
            },
        )
        for sample in made
    ]


def test_a_level_run_with_saw_teeth_is_in_order():
    assert verdicts(run()) == []
    assert verdicts(run(minutes=10)) == []


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.series)
def test_a_series_that_rises_all_the_time_is_found(bound):
    mean = getattr(LEVEL, bound.series)
    rise = 4.0 * max(bound.floor, bound.share * mean)
    (found,) = verdicts(run(**{bound.series: lambda share: rise * share}))
    assert found.startswith(f"grows: {bound.series}: ")


def test_a_handle_that_stays_open_now_and_then_is_found():
    assert verdicts(run(handles=lambda share: math.floor(20 * share)))


def test_what_rises_only_while_caches_fill_is_no_leak():
    assert verdicts(run(rss_mib=lambda share: 100 * min(share, 0.3))) == []


def test_a_stretch_without_answers_has_no_latency_and_is_no_trend():
    samples = run()
    samples[200:220] = [
        dataclasses.replace(sample, p50_ms=None, p99_ms=None) for sample in samples[200:220]
    ]
    assert verdicts(samples) == []


def stalled(samples, bound, which, **changes):
    """The same run, with ten times the figure and a stalled machine in the windows of `which`."""
    return [
        dataclasses.replace(
            sample,
            **{
                bound.series: 10 * getattr(sample, bound.series) + 10 * bound.floor,
                bound.stall.series: 2 * bound.stall.limit_ms,
                **changes,
            },
        )
        if which(number)
        else sample
        for number, sample in enumerate(samples)
    ]


@pytest.mark.parametrize("bound", TIMED, ids=lambda bound: bound.series)
def test_windows_in_which_the_machine_stalled_are_left_out_and_counted(bound):
    # Five minutes of the last part, of which six and two thirds are judged.
    samples = stalled(run(), bound, lambda number: 295 <= number < 340)
    assert verdicts(samples) == []
    trend = next(trend for trend in judge(samples).trends if trend.bound is bound)
    assert trend.left_out >= 45
    assert f"{trend.left_out} windows left out: the machine stalled" in str(trend)
    assert judge(run()).trends[-1].left_out == 0


@pytest.mark.parametrize("bound", TIMED, ids=lambda bound: bound.series)
def test_a_few_slow_windows_are_no_trend(bound):
    assert verdicts(stalled(run(), bound, lambda n: n % 20 == 0)) == []


@pytest.mark.parametrize("bound", TIMED, ids=lambda bound: bound.series)
@pytest.mark.parametrize("part", ["first", "last"])
def test_a_part_in_which_the_machine_stalled_nearly_all_the_time_is_inconclusive(bound, part):
    begin, end = (120, 200) if part == "first" else (280, 360)
    samples = stalled(run(), bound, lambda number: begin <= number < end)
    (found,) = verdicts(samples)
    assert found.startswith(f"inconclusive: {bound.series}: in ")
    assert f"windows of the {part} part the machine stalled" in found
    assert "took 0.6 cores" in found


@pytest.mark.parametrize("bound", TIMED, ids=lambda bound: bound.series)
def test_a_machine_that_the_broker_itself_is_busy_with_excuses_nothing(bound):
    samples = stalled(run(), bound, lambda number: number >= 280, cpu=1.3)
    (found,) = verdicts(samples)
    assert found.startswith(f"grows: {bound.series}: ")


@pytest.mark.parametrize("bound", TIMED, ids=lambda bound: bound.series)
def test_windows_without_a_witness_are_left_out(bound):
    samples = [dataclasses.replace(s, **{bound.stall.series: None}) for s in run()]
    (found,) = verdicts(samples)
    assert found.startswith(f"inconclusive: {bound.series}: ")


@pytest.mark.parametrize("bound", TIMED, ids=lambda bound: bound.series)
def test_windows_in_which_the_disk_was_slow_count_for_what_does_not_wait_for_it(bound):
    def slow(samples, begin):
        return stalled(samples, bound, lambda n: begin <= n, sync_ms=30.0, **calm)

    calm = {bound.stall.series: 0.1}
    found = verdicts(slow(run(), 295))
    if not bound.stall.disk:
        assert [line for line in found if line.startswith(f"grows: {bound.series}: ")]
        return
    (inconclusive,) = [line for line in found if line.startswith(f"inconclusive: {bound.series}: ")]
    assert "or a sync took more than" in inconclusive
    assert not [line for line in verdicts(slow(run(), 340)) if bound.series in line]


def test_a_disk_that_is_slow_all_the_time_excuses_nothing():
    (found,) = verdicts(run(sync_ms=lambda _: 200.0, p50_ms=lambda share: 20 * share))
    assert found.startswith("grows: p50_ms: ")


def test_lateness_is_judged_only_where_the_machine_ran_for_as_long_as_it_looks_back():
    (bound,) = [bound for bound in TIMED if bound.stall.looks_back_s]
    # Every fifth window is stalled, and each of the others has one in the twenty seconds before it.
    samples = run()
    samples = [
        dataclasses.replace(s, **{bound.stall.series: 100.0}) if n % 5 == 0 else s
        for n, s in enumerate(samples)
    ]
    (found,) = verdicts(samples)
    assert found.startswith(f"inconclusive: {bound.series}: ")


def test_a_run_without_enough_samples_cannot_be_judged():
    found = verdicts(run(minutes=30, every_s=120))
    assert len(found) == len(BOUNDS)
    for bound, line in zip(BOUNDS, found, strict=True):
        assert line.startswith("inconclusive: ")
        assert bound.series in line
        assert f"{20 if bound.stall is None else 8} are needed" in line
    assert verdicts([]) == ["no sample was taken"]


def test_a_run_of_seconds_has_no_trends():
    short = run(minutes=1, every_s=1, rss_mib=lambda share: 500 * share)
    assert short[-1].at_s < TRENDS_FROM_S
    assert verdicts(short) == []
    assert next(trend for trend in judge(short).trends if trend.bound.series == "rss_mib").grows


def test_garbage_that_cannot_be_collected_is_found():
    (found,) = verdicts(run(uncollectable=lambda _: 3.0))
    assert found == "3 objects could not be collected"


def test_percentiles_are_of_all_latencies():
    assert percentiles([float(n) for n in range(101)]) == (50.0, 99.0)
    assert percentiles([]) == (None, None)


def test_the_charts_are_an_svg_with_a_line_for_each_series():
    root = ET.fromstring(draw(run(minutes=6), "title & more"))
    name = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{name}svg"
    assert len(root.findall(f".//{name}polyline")) == 19
    assert "title & more" in {text.text for text in root.iter(f"{name}text")}


def test_the_charts_of_a_run_that_is_judged_have_its_limits():
    def dashed(minutes):
        root = ET.fromstring(draw(run(minutes=minutes), "title"))
        lines = root.iter("{http://www.w3.org/2000/svg}line")
        return [line for line in lines if line.get("stroke-dasharray")]

    # Of the clients' tasks no chart is drawn.
    assert len(dashed(30)) == len(BOUNDS) - 1
    assert dashed(6) == []


def test_a_run_may_begin_anywhere_in_a_tooth():
    # The slope of a line through these goes with where they begin.
    for begin in range(0, 100, 10):
        teeth = run(
            minutes=30, rss_mib=lambda share, begin=begin: 100 * ((18.9 * share + begin / 100) % 1)
        )
        assert verdicts(teeth) == []


def following(*numbers, writer="w", start=0):
    reader, wrong = Following({LANE: start}, from_the_first=True), []
    for offset, number in enumerate(numbers, start):
        wrong += reader.take(LANE, offset, value_of(writer, number, b"x/y"))
    return reader, wrong


def test_a_value_tells_who_wrote_it():
    assert read_value(value_of("w", 12, b"/1/")) == ("w", 12)
    for value in (None, b"", b"w", b"w/x/", b"w/1"):
        with pytest.raises(ValueError, match="nobody has written"):
            read_value(value)


def test_records_one_after_the_other_are_in_order():
    assert following(0, 1, 2)[1] == []


@pytest.mark.parametrize(
    ("numbers", "what"),
    [((0, 2), "lost"), ((1,), "lost"), ((0, 1, 1), "repeated"), ((0, 1, 0), "out of order")],
)
def test_a_record_that_is_not_the_next_is_told(numbers, what):
    assert what in following(*numbers)[1][0]


def test_a_reader_that_begins_later_takes_any_number_first():
    reader = Following({LANE: 40})
    assert reader.take(LANE, 40, value_of("w", 17, b"")) == []
    assert "lost" in reader.take(LANE, 41, value_of("w", 19, b""))[0]


def test_an_offset_that_is_left_out_is_told():
    reader = Following({LANE: 0})
    assert "not at 0" in reader.take(LANE, 1, value_of("w", 0, b""))[0]


def test_what_was_acknowledged_and_never_read_is_lost():
    ledger = Ledger()
    for number in range(3):
        assert ledger.acked(LANE, "w", number) == []
    assert ledger.lost(following(0, 1, 2)[0]) == []
    assert "2 was acknowledged, the last that was read is 1" in ledger.lost(following(0, 1)[0])[0]
    assert ledger.lost(Following({}))
    assert ledger.acknowledged == 3


@pytest.mark.parametrize("acknowledged_first", [True, False])
def test_a_record_stands_where_it_was_acknowledged(acknowledged_first):
    ledger = Ledger()
    ledger.exact("w")

    def told(offset):
        return ledger.acked(LANE, "w", 0, offset)

    def read(offset):
        return ledger.seen(LANE, offset, value_of("w", 0, b""))

    first, second = (told, read) if acknowledged_first else (read, told)
    assert first(5) == []
    assert "read at another" in second(6)[0]
    assert first(5) == []
    assert second(5) == []


def test_an_acknowledgement_without_an_offset_is_told_where_one_is_promised():
    ledger = Ledger()
    ledger.exact("w")
    assert "without an offset" in ledger.acked(LANE, "w", 0)[0]


def test_each_writer_counts_by_itself_in_each_partition():
    ledger = Ledger()
    other = Lane("t", 1)
    assert [ledger.number(LANE, "w"), ledger.number(LANE, "w")] == [0, 1]
    assert [ledger.number(other, "w"), ledger.number(LANE, "v")] == [0, 0]
