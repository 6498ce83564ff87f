"""What is computed of a measured group: gaps, stalls, and who was given what."""

from __future__ import annotations

import math

from tests.bench.groups_failover import (
    MEMBER_DIES,
    Phase,
    Run,
    complaints,
    deliveries,
    gaps,
    lines,
    moved,
    p99,
    stalls,
)
from tests.cluster.group_chaos.diary import Assigned, Diary, Joined, Lease, Processed


def diary(*times, partition=0, given_s=0.5):
    return Diary(
        "m",
        [
            Joined(0.1, "m", "one:1"),
            Lease(0.1, 100.0),
            Assigned(given_s, 1, [[partition, 0, 1]], [], True),
            *(Processed(at_s, partition, 1, n, n + 1, []) for n, at_s in enumerate(times)),
        ],
    )


def test_gaps_are_of_the_phase_and_of_the_partitions_that_are_asked_for():
    phase = Phase("p", 10.0, 20.0)
    both = [diary(9.0, 10.0, 11.0, 14.0, 21.0), diary(10.0, 19.0, partition=1)]
    times = deliveries(both, phase)
    assert times == {0: [10.0, 11.0, 14.0], 1: [10.0, 19.0]}
    assert gaps(times, frozenset({0})) == [1.0, 3.0]
    assert gaps(times, frozenset({0, 1, 2})) == [1.0, 3.0, 9.0]


def test_the_99th_of_a_hundred():
    assert p99([float(n) for n in range(100)]) == 99.0
    assert p99([float(n) for n in range(1000)]) == 990.0
    assert p99([]) == math.inf


def test_a_stall_counts_from_the_fault_and_one_that_never_ends_is_endless():
    phase = Phase("p", 10.0, 30.0, frozenset({0, 1, 2}))
    both = [diary(9.9, 17.0, 18.0, 18.5), diary(10.5, 16.5, partition=1)]
    assert stalls(deliveries(both, phase), phase) == {0: 7.0, 1: 6.0, 2: math.inf}


def test_a_partition_has_moved_where_somebody_was_given_it_in_the_phase():
    phase = Phase("p", 10.0, 20.0)
    assert moved([diary(11.0), diary(12.0, partition=1, given_s=10.0)], phase) == {1}


def run_of(times, failures=(), hurt=(), name="nothing"):
    phase = Phase(name, 0.6, 30.0, frozenset(hurt))
    return Run([phase], [diary(*times)], 100.0, [*failures])


def test_what_is_told_of_two_runs_has_every_phase():
    told = list(lines(run_of([1.0, 2.0, 3.0]), run_of([1.0, 3.0, 5.0])))
    assert "p99 2000 ms" in told[1]
    assert told[1].endswith("without faults p99 1000 ms, ratio 2.00")


def test_gaps_of_what_is_untouched_may_be_three_times_as_long():
    calm = run_of([1.0, 2.0, 3.0])
    assert not list(complaints(calm, run_of([1.0, 4.0, 7.0])))
    (line,) = complaints(calm, run_of([1.0, 4.5, 8.0]))
    assert line.startswith("nothing: gaps of what is untouched are 3.50 times as long")


def test_partitions_of_the_dead_flow_again_a_second_after_its_session_timeout():
    def told(at_s):
        hurt = run_of([0.7, at_s], hurt=[0], name=MEMBER_DIES)
        beside = diary(1.0, 2.0, 3.0, partition=1)
        calm = run_of([1.0, 2.0, 3.0])
        return [*complaints(calm, Run(hurt.phases, [*hurt.diaries, beside], 1.0, []))]

    assert not told(11.6)
    (line,) = told(11.8)
    assert "stood still for 11.10 s" in line


def test_what_is_wrong_with_either_run_is_told():
    (line,) = complaints(run_of([1.0, 2.0], ["UNFINISHED"]), run_of([1.0, 2.0]))
    assert line == "without faults: UNFINISHED"
