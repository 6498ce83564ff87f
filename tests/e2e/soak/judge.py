"""Says from a run's samples whether something grows that must not.

Of each series the first third is left out, for a broker fills its caches and retention has nothing to
delete at first; what is left is fitted with a straight line. What that line rises by from its first to
its last sample is the growth, and it has a bound: a share of the mean, or a fixed amount where that is
more, since a line through saw teeth is never quite level.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.e2e.soak.samples import Sample

SETTLED_FROM = 1 / 3
"""The share of a run that is left out."""
TRENDS_FROM_S = 300.0
"""A shorter run has no trends: its saw teeth are as long as itself."""
SAMPLES_MIN = 20
"""So many samples a line has to be fitted to."""


@dataclass(frozen=True, slots=True)
class Bound:
    """How much a series may grow.

    Attributes:
        series: the field of a sample.
        unit: of its figures.
        share: of its mean that it may grow by,
        floor: or by this much, whichever is more.
    """

    series: str
    unit: str
    share: float
    floor: float


BOUNDS = (
    Bound("rss_mib", "MiB", 0.05, 8.0),
    Bound("handles", "", 0.03, 10.0),
    Bound("threads", "", 0.0, 2.0),
    Bound("disk_mib", "MiB", 0.15, 16.0),
    Bound("wal_mib", "MiB", 0.15, 16.0),
    Bound("tables", "", 0.25, 10.0),
    Bound("p50_ms", "ms", 0.5, 2.0),
    Bound("p99_ms", "ms", 0.5, 25.0),
    Bound("loop_lag_ms", "ms", 0.5, 50.0),
    Bound("load_rss_mib", "MiB", 0.05, 8.0),
    Bound("load_handles", "", 0.1, 5.0),
    Bound("load_tasks", "", 0.1, 5.0),
    Bound("load_threads", "", 0.0, 2.0),
)


@dataclass(frozen=True, slots=True)
class Trend:
    """How a series has gone.

    Attributes:
        bound: what it is measured by.
        mean: over the time that is judged.
        growth: of the fitted line over that time.
        allowed: what the growth may be at most.
    """

    bound: Bound
    mean: float
    growth: float
    allowed: float

    @property
    def grows(self) -> bool:
        """Whether it grows more than it may."""
        return self.growth > self.allowed

    def __str__(self) -> str:
        """Tell it in one line."""
        unit = f" {self.bound.unit}" if self.bound.unit else ""
        return (
            f"{self.bound.series}: mean {self.mean:,.1f}{unit}, "
            f"{'grew' if self.growth >= 0 else 'shrank'} by {abs(self.growth):,.1f}, "
            f"may grow by {self.allowed:,.1f}"
        )


def trends(samples: Sequence[Sample]) -> list[Trend]:
    """Return how each series has gone since the run settled.

    Raises:
        ValueError: there are too few samples of a series to tell.
    """
    settled = settled_of(samples)
    found = []
    for bound in BOUNDS:
        points = [
            (sample.at_s, figure)
            for sample in settled
            if (figure := getattr(sample, bound.series)) is not None
        ]
        if len(points) < SAMPLES_MIN:
            raise ValueError(
                f"{len(points)} samples of {bound.series} after the first third, "
                f"{SAMPLES_MIN} are needed to tell a trend: run longer, or take samples more often"
            )
        times, figures = zip(*points, strict=True)
        mean = statistics.fmean(figures)
        growth = statistics.linear_regression(times, figures).slope * (times[-1] - times[0])
        found.append(Trend(bound, mean, growth, max(bound.floor, bound.share * mean)))
    return found


def settled_of(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples that are judged."""
    if not samples:
        return []
    return [sample for sample in samples if sample.at_s >= samples[-1].at_s * SETTLED_FROM]


def verdicts(samples: Sequence[Sample]) -> list[str]:
    """Return what is wrong with a run's samples; trends only of a run that is long enough."""
    if not samples:
        return ["no sample was taken"]
    wrong = []
    if samples[-1].uncollectable > 0:
        wrong.append(f"{samples[-1].uncollectable:.0f} objects could not be collected")
    if samples[-1].at_s < TRENDS_FROM_S:
        return wrong
    try:
        found = trends(samples)
    except ValueError as error:
        return [*wrong, str(error)]
    return wrong + [f"grows: {trend}" for trend in found if trend.grows]
