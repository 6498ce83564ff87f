"""Fakes that a test turns by hand: threads whose calls run when told, a clock that stands still."""

from __future__ import annotations

import asyncio
from collections import deque


class ManualThreads:
    """Implements ports.threads.Threads; `step` runs the oldest call and gives its answer."""

    def __init__(self):
        self.calls = deque()

    def run(self, function, *args):
        future = asyncio.get_running_loop().create_future()
        self.calls.append((future, function, args))
        return future

    def step(self):
        future, function, args = self.calls.popleft()
        try:
            result = function(*args)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    async def close(self, within_s):
        assert not self.calls


class InlineThreads:
    """Implements ports.threads.Threads; every call runs at once."""

    def run(self, function, *args):
        future = asyncio.get_running_loop().create_future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    async def close(self, within_s):
        pass


class StillClock:
    """Implements ports.clock.Clock; moves when told."""

    def __init__(self):
        self.now = 1_000.0

    def wall_ms(self):
        return int(self.now * 1000)

    def monotonic(self):
        return self.now


async def settle():
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)
