"""Whole groups: a few seeds hold, equal seeds are equal, faults bite, and a planted bug is found."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys

import pytest

from tests.sim.groups.cluster import FAULTS_MIN, simulate
from tests.sim.groups.hunt import hunt
from tests.sim.groups.mutants import MUTANTS
from tests.sim.groups.nemesis import KINDS, Fault, plan
from tests.sim.groups.options import draw
from tests.sim.groups.run import DELIVERIES_MIN, explain
from tests.sim.groups.seeds import FOUND

_DIGEST = (
    "from tests.sim.groups.cluster import simulate; print(simulate(4).cluster.world.trace.digest())"
)


@pytest.mark.parametrize("seed", [*range(6), *FOUND])
def test_a_group_keeps_its_rules_whatever_goes_wrong(seed):
    result = simulate(seed)
    assert result.violation is None, explain(seed)
    assert result.faults.total() >= FAULTS_MIN
    assert result.cluster.checker.delivered >= DELIVERIES_MIN


def test_the_same_seed_twice_is_the_same_run():
    one, other = simulate(7), simulate(7)
    assert one.cluster.world.trace.digest() == other.cluster.world.trace.digest()
    assert one.steps == other.steps
    assert simulate(8).cluster.world.trace.digest() != one.cluster.world.trace.digest()


def test_the_same_seed_is_the_same_run_in_another_process():
    def digest(hash_seed):
        return subprocess.run(
            [sys.executable, "-c", _DIGEST],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout

    assert digest("1") == digest("2")


def test_a_group_without_faults_takes_nothing_from_anybody():
    options = dataclasses.replace(draw(3), faults_s=5.0)
    result = simulate(3, options, faults=[])
    assert result.violation is None
    assert result.faults.total() == 0
    counts = result.cluster.world.counts
    assert counts["partitions lost"] == counts["commits refused"] == counts["streams broken"] == 0
    assert counts["commits acknowledged"] > 10


def test_every_kind_of_fault_does_harm_in_some_seed():
    harmed = {}
    for seed in range(12):
        kinds = tuple(sorted(KINDS))[seed % 3 :: 3]
        options = dataclasses.replace(draw(seed), kinds=kinds, mean_gap_s=0.3, static=2)
        harmed.update(simulate(seed, options).faults)
    assert sorted(harmed) == sorted(KINDS)


def test_a_plan_is_fixed_by_its_seed():
    kinds = tuple(sorted(KINDS))
    assert plan(1, kinds, 0.5, 10.0) == plan(1, kinds, 0.5, 10.0)
    assert plan(1, kinds, 0.5, 10.0) != plan(2, kinds, 0.5, 10.0)


@pytest.mark.parametrize(("after_s", "moves"), [(0.05, False), (0.8, False), (4.0, True)])
def test_a_static_member_that_comes_back_in_time_moves_nothing(after_s, moves):
    options = dataclasses.replace(
        draw(1), members=2, static=2, groups=1, session_timeout_ms=2000, half_closed=0.0
    )
    fault = next(
        each
        for each in (Fault(2.0, "member_restarted", seed) for seed in range(100))
        if comes_back_after_s(each) == after_s
    )
    for seed in range(3):
        result = simulate(seed, options, [fault])
        assert result.violation is None
        assert result.faults.total() == 1
        told = [line[2] for line in result.cluster.world.trace._lines if line[0] > 2.0]
        assert ("removed" in told) is ("revoking" in told) is moves
        assert result.cluster.world.counts["partitions lost"] == 0


def comes_back_after_s(fault):
    dice = random.Random(fault.seed)
    dice.choice([0, 1])
    return dice.choice((0.05, 0.4, 0.8, 4.0))


@pytest.mark.parametrize(
    "name", ["answered_before_it_is_committed", "given_before_it_is_given_up", "trimmed_too_early"]
)
def test_a_planted_bug_is_found(name):
    assert hunt(name, 10).seed is not None


def test_a_failing_seed_prints_what_it_takes():
    mutant = MUTANTS["given_before_it_is_given_up"]
    with mutant.plant():
        seed = next(each for each in range(30) if simulate(each).violation is not None)
        text = explain(seed, tries=5)
    assert f"seed {seed} failed: " in text
    assert f"again: make sim-groups SEEDS=1 FROM={seed}" in text
