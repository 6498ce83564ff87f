"""A bar of progress on standard error, where that is a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from riverrun.cli import status
from riverrun.cli.tables import shown_bytes

INTERVAL_S = 0.25
BAR_WIDTH_MAX = 30
BAR_WIDTH_MIN = 8


class Progress:
    """A context that redraws one line four times a second, and wipes it at the end."""

    def __init__(
        self, total: int | None, done: Callable[[], int], unit: str = "records", shown: bool = True
    ) -> None:
        """Show how much is done, how fast it goes, and how long it will take.

        Args:
            total: how much there is to do; None where that is not known, which draws no bar.
            done: how much of it is done.
            unit: what is counted; "bytes" are written as sizes.
            shown: False draws nothing, as when standard error is no terminal.
        """
        self._total = total
        self._done = done
        self._unit = unit
        self._shown = shown
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to draw, on a terminal."""
        if self._shown and sys.stderr.isatty():
            self._task = asyncio.create_task(self._draw(), name="riverrun-progress")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wipe the line."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        status.wipe()

    async def _draw(self) -> None:
        """Redraw the line until cancelled."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(INTERVAL_S)
            seconds = time.monotonic() - began
            line = progress_line(self._done(), self._total, seconds, self._unit, _width())
            status.draw(line)


def progress_line(done: int, total: int | None, seconds: float, unit: str, width: int) -> str:
    """Write what is done in one line of at most `width` characters; the bar gives way first.

    >>> progress_line(25, 100, 5.0, "records", 80)
    '[=======>                      ]  25 %  25 of 100 records, 5/s, 15 s left'
    """
    rate = done / seconds if seconds > 0 else 0.0
    if total is None:
        return f"{_shown(done, unit)}, {_shown(round(rate), unit, short=True)}/s"[:width]
    share = min(1.0, done / total) if total else 1.0
    text = f"{100 * share:3.0f} %  {_shown(done, unit, short=True)} of {_shown(total, unit)}"
    text += f", {_shown(round(rate), unit, short=True)}/s"
    if rate and done < total:
        text += f", {_span((total - done) / rate)} left"
    room = min(BAR_WIDTH_MAX, width - len(text) - 3)
    if room < BAR_WIDTH_MIN:
        return text.lstrip()[:width]
    filled = int(room * share)
    bar = "=" * filled + ">" * (filled < room)
    return f"[{bar:{room}}] {text}"


def _shown(count: int, unit: str, *, short: bool = False) -> str:
    """Write a count with its unit, or without where the next one says it."""
    if unit == "bytes":
        return shown_bytes(count)
    return f"{count:,}" if short else f"{count:,} {unit}"


def _span(seconds: float) -> str:
    """Write how long something takes, as exactly as anybody wants to know."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6_000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h"


def _width() -> int:
    """How many characters a line may have; the last column stays free, or terminals break it."""
    try:
        return os.get_terminal_size(2).columns - 1
    except OSError:
        return 79
