"""Doing several things until the first of them ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeAlias

Work: TypeAlias = Coroutine[Any, Any, object]  # what a coroutine yields concerns only the loop


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
