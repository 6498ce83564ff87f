"""Hunts the planted bugs: each must end some seed in a violation, or the simulation proves nothing."""

from __future__ import annotations

import dataclasses

from tests.sim.cluster.cluster import simulate
from tests.sim.cluster.mutants import MUTANTS
from tests.sim.cluster.options import draw
from tests.sim.running import Hunted

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
