"""Draws a run's samples as one SVG of small charts, each with a scale of its own from zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import svg

from tests.e2e.soak.judge import SETTLED_FROM
from tests.e2e.soak.samples import Sample

_COLUMNS = 2
_WIDTH, _HEIGHT = 440, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 30, 22
_HEADER = 44
_INK, _FAINT, _SETTLING = "#24292f", "#d0d7de", "#f6f8fa"
_COLOURS = ("#0969da", "#cf222e")
_FONT = "system-ui, sans-serif"


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
    Chart("processor, cores", {"broker": "cpu"}),
    Chart("acknowledged to steady writers, records/s", {"": "acks_per_s"}),
)


def draw(samples: Sequence[Sample], title: str) -> str:
    """Return the charts as the text of an SVG file."""
    rows = math.ceil(len(CHARTS) / _COLUMNS)
    width, height = _COLUMNS * _WIDTH, _HEADER + rows * _HEIGHT
    parts: list[svg.Element] = [
        svg.Rect(width=width, height=height, fill="white"),
        _text(_LEFT, 26, title, size=14, weight="bold"),
    ]
    for number, chart in enumerate(CHARTS):
        x = (number % _COLUMNS) * _WIDTH
        y = _HEADER + (number // _COLUMNS) * _HEIGHT
        parts.append(svg.G(transform=[svg.Translate(x, y)], elements=_chart(chart, samples)))
    return svg.SVG(viewBox=svg.ViewBoxSpec(0, 0, width, height), elements=parts).as_str() + "\n"


def _chart(chart: Chart, samples: Sequence[Sample]) -> list[svg.Element]:
    lines = {
        name: [
            (sample.at_s, figure)
            for sample in samples
            if (figure := getattr(sample, series)) is not None
        ]
        for name, series in chart.series.items()
    }
    top = _ceiling(max((figure for line in lines.values() for _, figure in line), default=1.0))
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
        _text(_LEFT, 18, chart.title, size=12),
    ]
    for share in (0.0, 0.5, 1.0):
        _, y = place(0, share * top)
        parts.append(svg.Line(x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, stroke=_FAINT))
        parts.append(_text(_LEFT - 6, y + 4, _figure(share * top), anchor="end"))
    for share in (0.0, 0.5, 1.0):
        x, y = place(share * end_s, 0)
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        parts.append(_text(x, y + 15, f"{share * end_s / 60:,.3g} min", anchor=anchor))
    legend_x = _WIDTH - _RIGHT
    for (name, line), colour in reversed([*zip(lines.items(), _COLOURS, strict=False)]):
        points = [coordinate for point in line for coordinate in place(*point)]
        parts.append(svg.Polyline(points=points, fill="none", stroke=colour, stroke_width=1.3))
        if name:
            parts.append(_text(legend_x, 18, name, anchor="end", fill=colour))
            legend_x -= 10 + 6.5 * len(name)
    return parts


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 10,
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
