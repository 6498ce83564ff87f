"""Lets work go on after a signal for as long as it makes progress, and then gives it up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class GaveUpError(Exception):
    """The work was cut off: a signal had come, and nothing went on any more."""


async def finished_or_stuck(
    work: Coroutine[Any, Any, Result],
    stopped: asyncio.Event,
    progress: Callable[[], int],
    *,
    quiet_s: float,
) -> Result:
    """Return what the work returns.

    Args:
        work: what to do.
        stopped: set when a signal has come.
        progress: a number that grows as long as there is progress.
        quiet_s: how long it may stay the same once the signal has come.

    Raises:
        GaveUpError: it stayed the same for that long.
    """
    doing = asyncio.create_task(work, name="riverrun-work")
    stopping = asyncio.create_task(stopped.wait(), name="riverrun-stop")
    try:
        await asyncio.wait([doing, stopping], return_when=asyncio.FIRST_COMPLETED)
        before = -1
        while not doing.done():
            if before == progress():
                raise GaveUpError
            before = progress()
            await asyncio.wait([doing], timeout=quiet_s)
        return doing.result()
    finally:
        doing.cancel()
        stopping.cancel()
        await asyncio.gather(doing, stopping, return_exceptions=True)
