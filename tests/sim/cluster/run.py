"""Runs many seeds of the simulated cluster; a failure prints its seed and the least that it takes.

    python -m tests.sim.cluster.run --seeds 2000 --from 0

The last line is `seeds=... steps=... faults=... failures=... seconds=...`; faults are those that did
harm. A seed that failed once stays in `seeds.py`, with what it found.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from tests.sim.cluster.cluster import FAULTS_MIN, simulate
from tests.sim.cluster.trace import minimise

_LINES = 120
STEPS_MIN = 500
"""A run of fewer tells nothing."""


class Outcome(NamedTuple):
    """What a seed came to, small enough to be sent between processes."""

    seed: int
    steps: int
    acknowledged: int
    checks: int
    faults: Counter[str]
    events: Counter[str]
    failure: str | None


def run_seed(seed: int) -> Outcome:
    """Run one seed."""
    result = simulate(seed)
    failure = None if result.violation is None else explain(seed)
    if failure is None and (result.steps < STEPS_MIN or result.faults.total() < FAULTS_MIN):
        failure = (
            f"seed {seed} was too calm to tell anything: {result.steps} steps, of {STEPS_MIN}, and "
            f"{result.faults.total()} faults that did harm, of {FAULTS_MIN}"
        )
    return Outcome(
        seed,
        result.steps,
        result.acknowledged,
        result.checks,
        result.faults,
        result.events,
        failure,
    )


def explain(seed: int, tries: int = 60) -> str:
    """Return a failure as it is to be looked at: what, how to see it again, the least it takes."""
    first = simulate(seed)
    assert first.violation is not None, seed
    rule = first.violation.rule

    def fails(faults: Iterable[object]) -> bool:
        found = simulate(seed, first.cluster.options, list(faults)).violation
        return found is not None and found.rule == rule

    least = minimise(first.cluster.faults, fails, tries)
    last = simulate(seed, first.cluster.options, least)
    violation = last.violation or first.violation
    cause = violation.__cause__
    parts = [
        f"seed {seed} failed: {violation}",
        f"{len(least)} of {len(first.cluster.faults)} planned faults are needed:",
        *(f"  {each}" for each in least),
        f"options: {first.cluster.options}",
        "the end of the trace:",
        last.cluster.world.trace.text(_LINES),
    ]
    if cause is not None:
        parts.append("".join(traceback.format_exception(cause)))
    parts.append(f"again: make sim SEEDS=1 FROM={seed}")
    return "\n".join(parts)


def say(text: str) -> None:
    """Write a line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run seeds side by side; return 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--failures", type=int, default=5, help="stop after so many")
    arguments = parser.parse_args()
    began = time.monotonic()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    faults: Counter[str] = Counter()
    events: Counter[str] = Counter()
    done = steps = acknowledged = checks = failures = 0
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for outcome in pool.map(run_seed, seeds, chunksize=4):
            done += 1
            steps += outcome.steps
            acknowledged += outcome.acknowledged
            checks += outcome.checks
            faults += outcome.faults
            events += outcome.events
            if outcome.failure is not None:
                failures += 1
                say(outcome.failure)
                if failures >= arguments.failures:
                    pool.shutdown(cancel_futures=True)
                    break
    say("faults that did harm: " + _listed(faults))
    say(f"events: {_listed(events)}, batches acknowledged {acknowledged}, checks {checks}")
    seconds = time.monotonic() - began
    say(
        f"seeds={done} steps={steps} faults={faults.total()} failures={failures} "
        f"seconds={seconds:.0f}"
    )
    return 1 if failures else 0


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
