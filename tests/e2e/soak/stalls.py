"""Leaves out the windows of a run in which the machine, and not the broker, kept everybody waiting.

A witness (`tests/e2e/witness.py`) measures in each window how late a process of its own was let run, and how
long the disk takes to sync a block. Where it ran late because the broker and its clients took the machine
themselves, nothing is excused. A disk has no time that is right everywhere: it is held against its own
best quarter of the run.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.e2e.soak.samples import Sample

SURE_MIN = 8
"""So many windows of a part have to be left,"""
SURE_SHARE = 1 / 4
"""and such a share of them; what looks back speaks for several windows, and the number is enough."""
OWN_SHARE = 3 / 4
"""Of the machine's cores: who takes more is the reason why others wait."""
SYNC_SHARE = 1 / 2
"""A disk may take so much longer than in its best quarter."""


@dataclass(frozen=True, slots=True)
class Sure:
    """The windows of a part that are judged.

    Attributes:
        figures: of the series in them.
        left_out: how many others there are in which the machine stalled,
        cpu: and how many cores the broker and its clients took in those, on average.
        sync_limit_ms: how long the disk may have taken.
    """

    figures: list[float]
    left_out: int
    cpu: float
    sync_limit_ms: float


@dataclass(frozen=True, slots=True)
class Stall:
    """What of the witness's makes a window no measure of a series.

    Attributes:
        series: the field of a sample.
        limit_ms: a window with more is left out.
        disk: whether what is judged waits for the disk; a window in which that took this limit, or half
            of its usual time, longer is left out too.
        looks_back_s: how much older than its window what is judged may be.
    """

    series: str
    limit_ms: float
    disk: bool = False
    looks_back_s: float = 0.0

    def sync_limit_ms(self, settled: Sequence[Sample]) -> float:
        """Return how long the disk may take, from all of a run."""
        known = [sample.sync_ms for sample in settled if sample.sync_ms is not None]
        if not self.disk or len(known) < 2:
            return float("inf")
        best_ms = statistics.quantiles(known, n=4)[0]
        return best_ms + max(self.limit_ms, SYNC_SHARE * best_ms)

    def sure(self, series: str, part: Sequence[Sample], sync_limit_ms: float) -> Sure:
        """Return the windows of a part that the machine did not make longer."""
        stalled = [sample for sample in part if self._excuses(sample, sync_limit_ms)]
        figures, left_out = list[float](), 0
        for sample in part:
            if (figure := getattr(sample, series)) is None:
                continue
            since_s = sample.at_s - self.looks_back_s
            if any(since_s <= other.at_s <= sample.at_s for other in stalled):
                left_out += 1
            else:
                figures.append(figure)
        cpu = sum(sample.cpu + sample.load_cpu for sample in stalled) / max(1, len(stalled))
        return Sure(figures, left_out, cpu, sync_limit_ms)

    def _excuses(self, sample: Sample, sync_limit_ms: float) -> bool:
        stalled_ms = getattr(sample, self.series)
        if stalled_ms is None or sample.sync_ms is None:
            return True  # nobody knows how the machine was
        if sample.sync_ms > sync_limit_ms:
            return True
        own = sample.cpu + sample.load_cpu
        return stalled_ms > self.limit_ms and own < OWN_SHARE * sample.cores


def why_inconclusive(series: str, name: str, stall: Stall, part: Sure) -> str:
    """Return why too little is left of a part to judge a series by, or ""."""
    windows = len(part.figures) + part.left_out
    share = 0.0 if stall.looks_back_s else SURE_SHARE
    if len(part.figures) >= max(SURE_MIN, share * windows):
        return ""
    if part.left_out == 0:
        return (
            f"{windows} samples of {series} in the {name} part, {SURE_MIN} are needed: run longer, "
            f"or take samples more often"
        )
    disk = f", or a sync took more than {part.sync_limit_ms:.1f} ms" if stall.disk else ""
    return (
        f"{series}: in {part.left_out} of {windows} windows of the {name} part the machine stalled "
        f"({stall.series} over {stall.limit_ms:g} ms{disk}) while the broker and its clients took "
        f"{part.cpu:.1f} cores: run it where nothing else does"
    )
