"""Hunts the bugs that are planted into what the simulations run: each must end some seed in a violation.

python -m tests.sim.hunt [name ...]
"""

from __future__ import annotations

import sys

from tests.sim.cluster import hunt as of_clusters
from tests.sim.groups import hunt as of_groups
from tests.sim.running import Hunted, hunt_all

_SEEDS_MAX = 400


def hunt(name: str, seeds_max: int) -> Hunted:
    """Run seeds of the simulation that a mutant is for."""
    of = of_groups if name in of_groups.MUTANTS else of_clusters
    return of.hunt(name, seeds_max)


if __name__ == "__main__":
    assert not of_clusters.MUTANTS.keys() & of_groups.MUTANTS.keys(), "names are told apart"
    sys.exit(hunt_all(hunt, [*of_clusters.MUTANTS, *of_groups.MUTANTS], _SEEDS_MAX))
