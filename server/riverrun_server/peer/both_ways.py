"""Reads and writes one stream between brokers at once, until either of the two ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def both_ways(
    read: Coroutine[Any, Any, None], write: Coroutine[Any, Any, None]
) -> BaseException | None:
    """Run both until one ends; neither goes on behind this.

    Args:
        read: takes what the other side says; what it raises is raised.
        write: says what there is to be said.

    Returns:
        What `write` raised, where it was the first to end.
    """
    reading, writing = asyncio.create_task(read), asyncio.create_task(write)
    try:
        await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            reading.result()
            return None
        # gRPC says that a call is over by cancelling whoever writes; that is no cancellation of ours.
        return None if writing.cancelled() else writing.exception()
    finally:
        reading.cancel()
        writing.cancel()
        # Suppressing their cancellation would suppress one of this task, too.
        await asyncio.gather(reading, writing, return_exceptions=True)
