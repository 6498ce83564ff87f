"""Take items from any iterable in runs, without waiting for a full run of a slow one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from itertools import islice
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class RunSource(Protocol[T]):
    """Something that yields runs by itself, because its items come from another thread."""

    def runs(
        self, wanted: Callable[[], int], linger_s: float
    ) -> AsyncGenerator[tuple[list[T], bool], None]:
        """Yield what `feed` yields."""


async def feed(
    items: Iterable[T] | AsyncIterable[T] | RunSource[T],
    wanted: Callable[[], int],
    linger_s: float,
) -> AsyncGenerator[tuple[list[T], bool], None]:
    """Yield runs of about `wanted()` items, and whether there is a pause behind them.

    Args:
        items: where they come from. A plain iterable is read on the loop: it must not block.
        wanted: asked before each run.
        linger_s: how long a run of an async iterable waits for more.
    """
    if isinstance(items, RunSource):
        async for run in items.runs(wanted, linger_s):
            yield run
        return
    if isinstance(items, AsyncIterable):
        async for run in _feed_async(items, wanted, linger_s):
            yield run
        return
    iterator = iter(items)
    while run_items := list(islice(iterator, wanted())):
        yield run_items, False


async def _feed_async(
    items: AsyncIterable[T], wanted: Callable[[], int], linger_s: float
) -> AsyncGenerator[tuple[list[T], bool], None]:
    """Let a task read ahead, at most a run, so that a pause is noticed without asking per item."""
    gathered: list[T] = []
    enough, taken = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async for item in items:
            gathered.append(item)
            enough.set()
            if len(gathered) >= wanted():
                taken.clear()
                await taken.wait()

    reader = asyncio.create_task(read(), name="riverrun send_many: reader")
    reader.add_done_callback(lambda _: enough.set())
    pause = True
    try:
        while gathered or not reader.done():
            if not await _set_within(enough, None if pause else linger_s):
                # A run that was asked for may be less than a batch, which waits for more.
                pause = True
                yield [], pause
                continue
            pause = False
            if len(gathered) < wanted() and not reader.done():
                await asyncio.wait({reader}, timeout=linger_s)
                pause = len(gathered) < wanted()
            run_items, gathered[:] = gathered[:], []
            if not reader.done():
                enough.clear()
            taken.set()
            if run_items:
                yield run_items, pause
        await reader
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def _set_within(event: asyncio.Event, timeout_s: float | None) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False
