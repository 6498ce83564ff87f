"""A line of progress on standard error, where that is a terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

INTERVAL_S = 0.25


class Progress:
    """A context that redraws one line four times a second, and wipes it at the end."""

    def __init__(self, total: int, done: Callable[[], int], unit: str = "records") -> None:
        """Show how many of `total` are done, and how many a second."""
        self._total = total
        self._done = done
        self._unit = unit
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to draw, on a terminal."""
        if sys.stderr.isatty():
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
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()

    async def _draw(self) -> None:
        """Redraw the line until cancelled."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(INTERVAL_S)
            done = self._done()
            rate = done / (time.monotonic() - began)
            share = 100 * done / self._total
            line = f"{done:,} of {self._total:,} {self._unit} ({share:.0f} %), {rate:,.0f} a second"
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
