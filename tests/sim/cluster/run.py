"""Runs many seeds of the simulated cluster; a failure prints its seed and the least that it takes.

    python -m tests.sim.cluster.run --seeds 2000 --from 0

A seed that failed once stays in `seeds.py`, with what it found.
"""

from __future__ import annotations

import sys
from collections import Counter

from tests.sim import running
from tests.sim.cluster.cluster import FAULTS_MIN, simulate
from tests.sim.running import Failing, Outcome, run_seeds

STEPS_MIN = 500
"""A run of fewer tells nothing."""


def run_seed(seed: int) -> Outcome:
    """Run one seed."""
    result = simulate(seed)
    failure = None if result.violation is None else explain(seed)
    if failure is None and (result.steps < STEPS_MIN or result.faults.total() < FAULTS_MIN):
        failure = (
            f"seed {seed} was too calm to tell anything: {result.steps} steps, of {STEPS_MIN}, and "
            f"{result.faults.total()} faults that did harm, of {FAULTS_MIN}"
        )
    events = result.events + Counter({"batches acknowledged": result.acknowledged})
    return Outcome(seed, result.steps, result.checks, result.faults, events, failure)


def explain(seed: int, tries: int = 60) -> str:
    """Return a failure as it is to be looked at: what, how to see it again, the least it takes."""
    first = simulate(seed)
    assert first.violation is not None, seed
    rule, options = first.violation.rule, first.cluster.options

    def again(faults):
        result = simulate(seed, options, list(faults))
        if result.violation is None or result.violation.rule != rule:
            return None
        return Failing(result.violation, result.cluster.world.trace)

    command = f"make sim-cluster SEEDS=1 FROM={seed}"
    return running.explain(seed, options, first.cluster.faults, again, command, tries)


if __name__ == "__main__":
    sys.exit(run_seeds(run_seed, __doc__))
