"""Some workers in processes of their own, any of which may be killed: another one takes its place."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from types import TracebackType
from typing import Self


class Workers:
    """So many workers at a time.

    Args:
        bootstrap: the broker.
        database: the shelf.
        count: how many work at a time.
    """

    def __init__(self, bootstrap: str, database: Path, count: int) -> None:
        self._arguments = (bootstrap, str(database))
        self._count = count
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        """Start them."""
        for _ in range(self._count):
            await self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill those that are left."""
        for process in self._processes:
            await _kill(process)

    async def kill_one(self, dice: random.Random) -> None:
        """Kill one in the middle of whatever it does, and start another one."""
        process = self._processes.pop(dice.randrange(len(self._processes)))
        assert process.returncode is None, "a worker has ended by itself; its error is above"
        await _kill(process)
        await self._start()

    async def _start(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "examples.orders.worker", *self._arguments),
            # Ctrl-C is for whoever looks after them.
            start_new_session=True,
        )
        self._processes.append(process)


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()
