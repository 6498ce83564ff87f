"""Draws a run's samples as one SVG of small charts, each with a scale of its own from zero.

Dashed is how high the end of a series may come by the judge; grey is the time that is not judged. Where the
limit is far above all of a series it is left out, for it would press that flat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import svg

from tests.e2e.soak.judge import SETTLED_FROM, TRENDS_FROM_S, judge
from tests.e2e.soak.samples import Sample

_COLUMNS = 2
_WIDTH, _HEIGHT = 440, 168
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 34, 28
_HEADER = 66
_SMALL, _TITLE = 12, 13
_INK, _QUIET, _FAINT, _SETTLING = "#24292f", "#57606a", "#d0d7de", "#eef1f4"
_COLOURS = ("#0969da", "#cf222e")
_FONT = "system-ui, sans-serif"
_LEGEND = "grey: not judged, everything fills up; dashed: the most that the end may come to"
# A limit that is so many times as high as all of the series would press it flat.
_LIMIT_DRAWN = 4.0
_HEADROOM = 1.05


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart: its title, and the series in it by how they are called."""

    title: str
    series: dict[str, str]


CHARTS = (
    Chart("memory, MiB", {"broker": "rss_mib", "clients": "load_rss_mib"}),
    Chart("open files and sockets", {"broker": "handles", "clients": "load_handles"}),
    Chart("disk, MiB", {"all": "disk_mib", "write-ahead log": "wal_mib"}),
    Chart("sorted tables", {"": "tables"}),
    Chart("acknowledged after, ms", {"p50": "p50_ms", "p99": "p99_ms"}),
    Chart("event loop late by, ms", {"": "loop_lag_ms"}),
    Chart("threads", {"broker": "threads", "clients": "load_threads"}),
    Chart("full garbage collections since the start", {"": "collections"}),
    Chart("processor, cores", {"broker": "cpu", "clients": "load_cpu"}),
    Chart("acknowledged to steady writers, records/s", {"": "acks_per_s"}),
    Chart("another process runs late by, ms", {"mean": "stall_mean_ms", "worst": "stall_worst_ms"}),
    Chart("another process syncs a block in, ms", {"": "sync_ms"}),
)


def draw(samples: Sequence[Sample], title: str) -> str:
    """Return the charts as the text of an SVG file."""
    rows = math.ceil(len(CHARTS) / _COLUMNS)
    width, height = _COLUMNS * _WIDTH, _HEADER + rows * _HEIGHT
    parts: list[svg.Element] = [
        svg.Rect(width=width, height=height, fill="white"),
        _text(_LEFT, 26, title, size=15, weight="bold"),
        _text(_LEFT, 48, _LEGEND, fill=_QUIET),
    ]
    limits = _limits(samples)
    for number, chart in enumerate(CHARTS):
        x = (number % _COLUMNS) * _WIDTH
        y = _HEADER + (number // _COLUMNS) * _HEIGHT
        parts.append(
            svg.G(transform=[svg.Translate(x, y)], elements=_chart(chart, samples, limits))
        )
    return svg.SVG(viewBox=svg.ViewBoxSpec(0, 0, width, height), elements=parts).as_str() + "\n"


def _limits(samples: Sequence[Sample]) -> dict[str, float]:
    """Return how high each series may come in the end; none of a run that is too short to say."""
    if samples[-1].at_s < TRENDS_FROM_S:
        return {}
    return {t.bound.series: t.began + t.allowed for t in judge(samples).trends}


def _chart(chart: Chart, samples: Sequence[Sample], limits: dict[str, float]) -> list[svg.Element]:
    lines = {
        name: [
            (sample.at_s, figure)
            for sample in samples
            if (figure := getattr(sample, series)) is not None
        ]
        for name, series in chart.series.items()
    }
    highest = max((figure for line in lines.values() for _, figure in line), default=1.0)
    drawn = {
        name: limit
        for name, series in chart.series.items()
        if (limit := limits.get(series)) is not None and limit <= _LIMIT_DRAWN * max(highest, 1.0)
    }
    top = _ceiling(_HEADROOM * max([highest, *drawn.values()]))
    end_s = max(samples[-1].at_s, 1.0)
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(at_s: float, figure: float) -> tuple[float, float]:
        return (
            round(_LEFT + across * at_s / end_s, 1),
            round(_TOP + down * (1 - figure / top), 1),
        )

    parts: list[svg.Element] = [
        svg.Rect(
            x=_LEFT, y=_TOP, width=round(across * SETTLED_FROM, 1), height=down, fill=_SETTLING
        ),
        _text(_LEFT, 20, chart.title, size=_TITLE),
    ]
    for share in (0.0, 0.5, 1.0):
        _, y = place(0, share * top)
        parts.append(svg.Line(x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, stroke=_FAINT))
        parts.append(_text(_LEFT - 6, y + 4, _figure(share * top), anchor="end"))
    for share in (0.0, 0.5, 1.0):
        x, y = place(share * end_s, 0)
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        parts.append(_text(x, y + 17, f"{share * end_s / 60:,.3g} min", anchor=anchor))
    legend_x = _WIDTH - _RIGHT
    for (name, line), colour in reversed([*zip(lines.items(), _COLOURS, strict=False)]):
        points = [coordinate for point in line for coordinate in place(*point)]
        parts.append(svg.Polyline(points=points, fill="none", stroke=colour, stroke_width=1.3))
        if name in drawn:
            (x1, y), (x2, _) = place(SETTLED_FROM * end_s, drawn[name]), place(end_s, 0)
            dashed = svg.Line(
                x1=x1, x2=x2, y1=y, y2=y, stroke=colour, stroke_width=1.2, stroke_dasharray=[5, 4]
            )
            parts.append(dashed)
        if name:
            parts.append(_text(legend_x, 20, name, anchor="end", fill=colour))
            legend_x -= 12 + 6.8 * len(name)
    return parts


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = _SMALL,
    anchor: str = "start",
    fill: str = _INK,
    weight: str = "normal",
) -> svg.Text:
    return svg.Text(
        x=x,
        y=y,
        text=escape(text),
        font_size=size,
        font_family=_FONT,
        font_weight=weight,
        text_anchor=anchor,
        fill=fill,
    )


def _ceiling(figure: float) -> float:
    """Return the next round number that is not below a figure."""
    if figure <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(figure))
    return next(unit * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if unit * step >= figure)


def _figure(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 10 or figure == 0 else f"{figure:.2g}"
