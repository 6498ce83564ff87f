"""Runs many seeds of a simulation side by side, and hunts bugs that are planted into what it runs.

The last line of a run is `seeds=... steps=... faults=... failures=... seconds=...`; faults are those
that did harm. That of a hunt is `mutants=... missed=... seconds=...`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import structlog

from tests.sim.cluster.trace import Trace, minimise

_LINES = 120


class Outcome(NamedTuple):
    """What a seed came to, small enough to be sent between processes."""

    seed: int
    steps: int
    checks: int
    faults: Counter[str]
    events: Counter[str]
    failure: str | None


class Failing(NamedTuple):
    """A run that broke a rule, as far as its explanation needs it."""

    violation: Exception
    trace: Trace


def explain(
    seed: int,
    options: object,
    planned: Sequence[object],
    again: Callable[[Sequence[object]], Failing | None],
    command: str,
    tries: int,
) -> str:
    """Return a failure as it is to be looked at: what, how to see it again, the least it takes.

    Args:
        seed: that failed.
        options: what it is like.
        planned: its faults.
        again: runs it with some of them; returns None where no rule, or another one, is broken.
        command: runs the seed.
        tries: so many runs at most.
    """
    first = again(planned)
    assert first is not None, seed
    least = minimise(planned, lambda faults: again(faults) is not None, tries)
    last = again(least) or first
    cause = last.violation.__cause__
    parts = [
        f"seed {seed} failed: {last.violation}",
        f"{len(least)} of {len(planned)} planned faults are needed:",
        *(f"  {each}" for each in least),
        f"options: {options}",
        "the end of the trace:",
        last.trace.text(_LINES),
    ]
    if cause is not None:
        parts.append("".join(traceback.format_exception(cause)))
    parts.append(f"again: {command}")
    return "\n".join(parts)


def run_seeds(run_seed: Callable[[int], Outcome], what: str, seeds_default: int = 2000) -> int:
    """Run the seeds that the command line names side by side; return 1 where one fails."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--seeds", type=int, default=seeds_default)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--failures", type=int, default=5, help="stop after so many")
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # faults are no news
    began = time.monotonic()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    faults: Counter[str] = Counter()
    events: Counter[str] = Counter()
    done = steps = checks = failures = 0
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for outcome in pool.map(run_seed, seeds, chunksize=4):
            done += 1
            steps += outcome.steps
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
    say(f"events: {_listed(events)}, checks {checks}")
    seconds = time.monotonic() - began
    say(
        f"seeds={done} steps={steps} faults={faults.total()} failures={failures} "
        f"seconds={seconds:.0f}"
    )
    return 1 if failures else 0


class Hunted(NamedTuple):
    """What became of a planted bug: the seed that caught it, or None, and what it said."""

    name: str
    seed: int | None
    text: str


def hunt_all(hunt: Callable[[str, int], Hunted], names: Iterable[str], seeds_max: int) -> int:
    """Hunt all mutants, or those that are named; return 1 where one is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=sorted(names))
    parser.add_argument("--seeds", type=int, default=seeds_max)
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    began, missed = time.monotonic(), 0
    with ProcessPoolExecutor() as pool:
        hunts = [pool.submit(hunt, name, arguments.seeds) for name in arguments.names]
        for each in hunts:
            name, seed, text = each.result()
            missed += seed is None
            caught = f"MISSED {text[:110]}" if seed is None else f"seed {seed}: {text[:110]}"
            say(f"{name:50} {caught}")
    seconds = time.monotonic() - began
    say(f"mutants={len(arguments.names)} missed={missed} seconds={seconds:.0f}")
    return 1 if missed else 0


def say(text: str) -> None:
    """Write a line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _listed(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
