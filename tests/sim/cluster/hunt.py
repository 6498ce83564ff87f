"""Hunts the planted bugs: each must end some seed in a violation, or the simulation proves nothing."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.sim.cluster.cluster import simulate
from tests.sim.cluster.mutants import MUTANTS
from tests.sim.cluster.options import draw
from tests.sim.cluster.run import say

SEEDS_MAX = 400


def hunt(name: str, seeds_max: int = SEEDS_MAX) -> tuple[str, int | None, str]:
    """Run seeds with a bug planted; return its name, the seed that caught it, and what it said."""
    it = MUTANTS[name]
    with it.plant():
        for seed in range(seeds_max):
            options = draw(seed)
            if it.kinds:
                options = dataclasses.replace(options, kinds=it.kinds)
            found = simulate(seed, it.options(options)).violation
            if found is not None:
                # One that does not fit the code any more says nothing about the simulation.
                is_caught = found.rule != "exception"
                return name, seed if is_caught else None, str(found)
    return name, None, ""


def main() -> int:
    """Hunt all mutants, or those that are named; fail where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=sorted(MUTANTS))
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX)
    arguments = parser.parse_args()
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


if __name__ == "__main__":
    sys.exit(main())
