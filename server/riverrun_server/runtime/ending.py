"""Ends a task without losing a cancellation of whoever waits for that."""

from __future__ import annotations

import asyncio


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has ended; what it raised instead is raised.

    To await it and suppress CancelledError would suppress the caller's own, too, where that comes at
    the same time; the caller would go on and nobody would end it again.
    """
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
