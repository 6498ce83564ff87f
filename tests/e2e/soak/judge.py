"""Says from a run's samples whether something grows that must not.

Of each series the first third is left out, for a broker fills its caches and retention has nothing to
delete at first. What is left is judged in one of three ways:

- what is held is fitted with a straight line; what that rises by from its first to its last sample is
  the growth;
- what comes in saw teeth of a minute and more (memory that fills and is written out, the disk) is
  compared with itself by how high its teeth are, since a line through teeth rises or falls with where
  it happens to begin: the 90th percentile of the last third of what is left, less that of its first;
- what is timed is compared in the same way, by its medians. Windows in which the machine or the disk stalled are left out (`stalls`), and where too few
  are left of either part the run is inconclusive, which is a failure too.

The growth has a bound: a share of where it began, or a fixed amount where that is more.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.e2e.soak.samples import Sample
from tests.e2e.soak.stalls import Stall, why_inconclusive

SETTLED_FROM = 1 / 3
"""The share of a run that is left out."""
TRENDS_FROM_S = 600.0
"""A shorter run has no trends: each of its parts is as long as a saw tooth."""
SAMPLES_MIN = 20
"""So many samples a line has to be fitted to; teeth need as many in both parts."""
COMPARED = 1 / 3
"""The share of the settled run that is its first part, and its last."""


@dataclass(frozen=True, slots=True)
class Bound:
    """How much a series may grow.

    Attributes:
        series: the field of a sample.
        unit: of its figures.
        share: of where it began that it may grow by,
        floor: or by this much, whichever is more.
        stall: what of the machine's makes it longer, where it is timed.
        teeth: whether it comes in saw teeth.
    """

    series: str
    unit: str
    share: float
    floor: float
    stall: Stall | None = None
    teeth: bool = False


# Half of what a series may grow by may be the machine's.
BOUNDS = (
    Bound("rss_mib", "MiB", 0.05, 8.0, teeth=True),
    Bound("handles", "", 0.03, 10.0),
    Bound("threads", "", 0.0, 2.0),
    Bound("disk_mib", "MiB", 0.15, 16.0, teeth=True),
    Bound("wal_mib", "MiB", 0.15, 16.0, teeth=True),
    Bound("tables", "", 0.25, 10.0, teeth=True),
    Bound("p50_ms", "ms", 0.25, 2.0, Stall("stall_mean_ms", 1.0, disk=True)),
    Bound("p99_ms", "ms", 0.25, 25.0, Stall("stall_p99_ms", 12.5, disk=True)),
    Bound("loop_lag_ms", "ms", 0.25, 50.0, Stall("stall_worst_ms", 25.0, looks_back_s=20.0)),
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
        began: where it began, by the line, the teeth or the median.
        growth: from there to its end.
        allowed: what the growth may be at most.
        left_out: how many windows of the two parts were, as the machine stalled.
    """

    bound: Bound
    began: float
    growth: float
    allowed: float
    left_out: int = 0

    @property
    def grows(self) -> bool:
        """Whether it grows more than it may."""
        return self.growth > self.allowed

    def __str__(self) -> str:
        """Tell it in one line."""
        unit = f" {self.bound.unit}" if self.bound.unit else ""
        stalled = f" ({self.left_out} windows left out: the machine stalled)"
        return (
            f"{self.bound.series}: from {self.began:,.1f}{unit} it "
            f"{'grew' if self.growth >= 0 else 'shrank'} by {abs(self.growth):,.1f}, "
            f"may grow by {self.allowed:,.1f}{stalled if self.left_out else ''}"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run's samples say.

    Attributes:
        trends: of the series that can be judged.
        inconclusive: why others cannot, a line for each.
    """

    trends: list[Trend]
    inconclusive: list[str]


def judge(samples: Sequence[Sample]) -> Verdict:
    """Return how each series has gone since the run settled."""
    settled, verdict = settled_of(samples), Verdict([], [])
    for bound in BOUNDS:
        how = _compared if bound.stall else _by_teeth if bound.teeth else _fitted
        found = how(bound, settled)
        if isinstance(found, Trend):
            verdict.trends.append(found)
        else:
            verdict.inconclusive.append(found)
    return verdict


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
    verdict = judge(samples)
    wrong += [f"inconclusive: {why}" for why in verdict.inconclusive]
    return wrong + [f"grows: {trend}" for trend in verdict.trends if trend.grows]


def _fitted(bound: Bound, settled: Sequence[Sample]) -> Trend | str:
    """Judge what is held, by a line through all of it."""
    points = _points(bound, settled)
    if len(points) < SAMPLES_MIN:
        return _too_few(bound, points)
    times, figures = zip(*points, strict=True)
    slope, intercept = statistics.linear_regression(times, figures)
    began = intercept + slope * times[0]
    return _trend(bound, began, slope * (times[-1] - times[0]))


def _by_teeth(bound: Bound, settled: Sequence[Sample]) -> Trend | str:
    """Judge what comes in teeth, by how high those of its first and its last part are."""
    parts = [_points(bound, part) for part in parts_of(settled).values()]
    if sum(map(len, parts)) < SAMPLES_MIN:
        return _too_few(bound, [*itertools.chain(*parts)])
    first, last = (statistics.quantiles([y for _, y in part], n=10)[-1] for part in parts)
    return _trend(bound, first, last - first)


def _points(bound: Bound, samples: Sequence[Sample]) -> list[tuple[float, float]]:
    return [
        (sample.at_s, figure)
        for sample in samples
        if (figure := getattr(sample, bound.series)) is not None
    ]


def _too_few(bound: Bound, points: Sequence[object]) -> str:
    return (
        f"{len(points)} samples of {bound.series} after the first third, "
        f"{SAMPLES_MIN} are needed to tell a trend: run longer, or take samples more often"
    )


def _compared(bound: Bound, settled: Sequence[Sample]) -> Trend | str:
    """Judge what is timed, by the medians of its first and its last part."""
    assert bound.stall is not None
    sync_ms = bound.stall.sync_limit_ms(settled)
    parts = {
        name: bound.stall.sure(bound.series, part, sync_ms)
        for name, part in parts_of(settled).items()
    }
    for name, part in parts.items():
        if why := why_inconclusive(bound.series, name, bound.stall, part):
            return why
    first, last = (statistics.median(part.figures) for part in parts.values())
    return _trend(bound, first, last - first, sum(part.left_out for part in parts.values()))


def parts_of(settled: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Return the two parts of a run that are compared, by name."""
    if not settled:
        return {"first": [], "last": []}
    begin_s, end_s = settled[0].at_s, settled[-1].at_s
    part_s = COMPARED * (end_s - begin_s)
    return {
        "first": [sample for sample in settled if sample.at_s <= begin_s + part_s],
        "last": [sample for sample in settled if sample.at_s >= end_s - part_s],
    }


def _trend(bound: Bound, began: float, growth: float, left_out: int = 0) -> Trend:
    return Trend(bound, began, growth, max(bound.floor, bound.share * began), left_out)
