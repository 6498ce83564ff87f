"""Doing several things until the first of them ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeAlias, TypeVar

Result = TypeVar("Result")
Work: TypeAlias = Coroutine[Any, Any, object]  # what a coroutine yields concerns only the loop


class StoppedError(Exception):
    """The work was cut off: somebody wanted it to stop."""


async def first_of(*works: Work) -> None:
    """Run all; when one ends, cancel the others, wait for them, and raise its error if it has one.

    Where several have ended by then, the error of the first named counts.
    """
    tasks = [asyncio.create_task(work, name="riverrun-work") for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def unless(stopped: asyncio.Event, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what the work returns.

    Raises:
        StoppedError: the event was set before that; the work is cancelled.
    """
    doing = asyncio.create_task(work, name="riverrun-work")
    stopping = asyncio.create_task(stopped.wait(), name="riverrun-stop")
    try:
        await asyncio.wait([doing, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise StoppedError
        return doing.result()
    finally:
        doing.cancel()
        stopping.cancel()
        await asyncio.gather(doing, stopping, return_exceptions=True)
