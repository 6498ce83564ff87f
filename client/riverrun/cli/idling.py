"""Tells once when a command that wants more records than there are has come to the end and waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from riverrun import Consumer, RiverrunError, TopicPartition
from riverrun.cli.exits import write_note

QUIET_S = 3.0
"""How long nothing has to come before it is told."""


@asynccontextmanager
async def idling_told(
    consumer: Consumer,
    count: Callable[[], int],
    done_with: Callable[[TopicPartition], bool] = lambda _: False,
    *,
    quiet_s: float = QUIET_S,
) -> AsyncIterator[None]:
    """Tell as long as this lasts.

    Args:
        consumer: what reads.
        count: how many records it has given.
        done_with: whether nothing more is wanted of a partition.
        quiet_s: how long nothing has to come.
    """
    watching = asyncio.create_task(
        _watch(consumer, count, done_with, quiet_s), name="riverrun-idle"
    )
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(
    consumer: Consumer,
    count: Callable[[], int],
    done_with: Callable[[TopicPartition], bool],
    quiet_s: float,
) -> None:
    """Wait until nothing has come for a while because there is nothing, and say so."""
    before = -1
    while before != count() or not await _is_at_end(consumer, done_with):
        before = count()
        await asyncio.sleep(quiet_s)
    write_note(f"note: at the end after {before} records, waiting for more; Ctrl-C ends it")


async def _is_at_end(consumer: Consumer, done_with: Callable[[TopicPartition], bool]) -> bool:
    """Return whether everything that is there has been given; of what is offline nobody knows."""
    try:
        wanted = [where for where in await consumer.assignment() if not done_with(where)]
        ends = await consumer.end_offsets(wanted) if wanted else {}
        return bool(ends) and all(
            [await consumer.position(where) >= end for where, end in ends.items()]
        )
    except RiverrunError:
        return False
