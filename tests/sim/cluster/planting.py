"""How bugs are planted into the machines, and what it takes to meet them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.sim.cluster.nemesis import KINDS
from tests.sim.cluster.options import Options

CRASHES = ("kill", "quick_restart", "power_cut", "power_cut_of_all", "pause", "isolated_broker")
CUTS = ("isolated_broker", "cut_between_two", "cut_one_way", "split", "swizzle", "broken_streams")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug.

    Attributes:
        says: what the broken code believes.
        plant: puts it in and takes it out again.
        kinds: the faults that it takes; all of them where none is named.
        options: what the clusters are like, where not as drawn.
    """

    says: str
    plant: Callable[[], contextlib.AbstractContextManager[object]]
    kinds: tuple[str, ...] = ()
    options: Callable[[Options], Options] = lambda options: options


MUTANTS: dict[str, Mutant] = {}


def mutant(
    says: str,
    *kinds: str,
    options: Callable[[Options], Options] = lambda options: options,
) -> Callable[[Callable[[], Iterator[None]]], Callable[[], Iterator[None]]]:
    """Register a planted bug under its function's name."""
    for kind in kinds:
        assert kind in KINDS, kind

    def register(plant: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
        MUTANTS[plant.__name__] = Mutant(says, contextlib.contextmanager(plant), kinds, options)
        return plant

    return register


def busy(options: Options) -> Options:
    """Return a cluster in which much is on its way at every moment."""
    terms = dataclasses.replace(options.terms, lag_s=0.4)
    return dataclasses.replace(
        options, partitions=2, produce_every_s=0.04, mean_gap_s=0.5, faults_s=12.0, terms=terms
    )


def damaged(options: Options) -> Options:
    """Return a cluster whose replicas are damaged again and again, and come and go in between."""
    terms = dataclasses.replace(options.terms, lag_s=0.4, refetch_s=0.001)
    return dataclasses.replace(
        options, brokers=3, replication_factor=3, min_isr=2, unclean=False, relaxed=False,
        mean_gap_s=0.3, faults_s=12.0, terms=terms,
    )  # fmt: skip
