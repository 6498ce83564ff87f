"""What was measured, as rows: median and extremes of the rounds, and how Riverrun compares."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.bench.systems import RIVERRUN, System

RATE = "records/s"
TIME = "ms"


@dataclass(frozen=True, slots=True)
class Row:
    """One workload on one system.

    Attributes:
        workload: what was done.
        system: who did it, with the settings that differ from its defaults.
        version: of the system.
        durability: what an acknowledgement stands for.
        median: of the rounds, in `unit`.
        ratio: Riverrun with its defaults against this system; above 1 Riverrun is ahead. None for
            Riverrun's own row, and where the system's figure is below what its tool can tell.
        like_for_like: the same against the Riverrun row of equal durability.
        rounds: how many rounds gave a figure.
    """

    workload: str
    system: str
    version: str
    durability: str
    min: float
    median: float
    max: float
    unit: str
    ratio: float | None
    like_for_like: float | None
    rounds: int


@dataclass(slots=True)
class Samples:
    """Figures as they come, by workload and system."""

    units: dict[str, str] = field(default_factory=dict)
    figures: dict[str, dict[System, list[float]]] = field(default_factory=dict)

    def add(self, workload: str, system: System, unit: str, figure: float) -> None:
        """Note one round's figure."""
        self.units[workload] = unit
        self.figures.setdefault(workload, {}).setdefault(system, []).append(figure)

    def rows(self, versions: Mapping[str, str]) -> list[Row]:
        """Return a row for each workload and system; `versions` is by the name of the broker."""
        return [
            self._row(workload, system, versions[system.broker])
            for workload, systems in self.figures.items()
            for system in systems
        ]

    def _row(self, workload: str, system: System, version: str) -> Row:
        figures = self.figures[workload][system]
        return Row(
            workload=workload,
            system=system.name,
            version=version,
            durability=system.durability,
            min=min(figures),
            median=statistics.median(figures),
            max=max(figures),
            unit=self.units[workload],
            ratio=self._ratio(workload, RIVERRUN, system),
            like_for_like=self._ratio(workload, self._equal(workload, system), system),
            rounds=len(figures),
        )

    def _equal(self, workload: str, system: System) -> System:
        """Return the Riverrun system whose acknowledgements promise what this one's do."""
        for other in self.figures[workload]:
            if other.broker == RIVERRUN.broker and other.durability == system.durability:
                return other
        return RIVERRUN

    def _ratio(self, workload: str, ours: System, theirs: System) -> float | None:
        systems = self.figures[workload]
        if ours is theirs or ours not in systems:
            return None
        return ratio(
            statistics.median(systems[ours]),
            statistics.median(systems[theirs]),
            self.units[workload],
        )


def ratio(ours: float, theirs: float, unit: str) -> float | None:
    """Return how far `ours` is ahead: above 1 it is; None where a figure is too small to tell."""
    if ours <= 0 or theirs <= 0:
        return None
    return ours / theirs if unit == RATE else theirs / ours


HEADINGS = (
    "workload",
    "system",
    "durability",
    "median",
    "min",
    "max",
    "unit",
    "ratio",
    "like for like",
)


def cells(row: Row) -> tuple[str, ...]:
    """Return what a table shows of a row."""
    return (
        row.workload,
        f"{row.system} {row.version}",
        row.durability,
        *(_figure(figure, row.unit) for figure in (row.median, row.min, row.max)),
        row.unit,
        *("" if one is None else f"{one:.2f}" for one in (row.ratio, row.like_for_like)),
    )


def markdown(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *map(cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _figure(figure: float, unit: str) -> str:
    return f"{figure:,.0f}" if unit == RATE else f"{figure:,.2f}"
