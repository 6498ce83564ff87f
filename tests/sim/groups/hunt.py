"""Hunts the bugs that are planted into coordinators and gateways: each must end some seed in a violation."""

from __future__ import annotations

import dataclasses

from tests.sim.groups.cluster import simulate
from tests.sim.groups.mutants import MUTANTS
from tests.sim.groups.options import draw
from tests.sim.running import Hunted

__all__ = ["MUTANTS", "SEEDS_MAX", "hunt"]

SEEDS_MAX = 400


def hunt(name: str, seeds_max: int = SEEDS_MAX) -> Hunted:
    """Run seeds with a bug planted."""
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
                return Hunted(name, seed if is_caught else None, str(found))
    return Hunted(name, None, "")
