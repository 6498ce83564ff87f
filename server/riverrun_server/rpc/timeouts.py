"""Calls back what has waited too long; one timer for all that wait equally long.

Nearly everything is answered long before its time is up. So waiting costs two steps of a dictionary,
and no timer of its own.
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Waits(Protocol):
    """What waits for an answer."""

    def time_out(self, timeout_s: float) -> None:
        """Wait no longer: nothing has come within this time."""
        ...


class Timeouts:
    """Those that wait, by how long they are ready to.

    Transitions of one: waiting (`start`) -> out, by `stop`, or by being told that its time is up.
    """

    def __init__(self) -> None:
        # In the order in which they are due, for they all wait equally long; with the loop's time.
        self._waiting: dict[float, dict[Waits, float]] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return sum(map(len, self._waiting.values()))

    def start(self, waiter: Waits, timeout_s: float) -> None:
        """Tell `waiter` once so much time has passed."""
        loop = asyncio.get_running_loop()
        due = loop.time() + timeout_s
        waiting = self._waiting.get(timeout_s)
        if waiting is None:
            waiting = self._waiting[timeout_s] = {}
            loop.call_at(due, self._look, timeout_s)
        waiting[waiter] = due

    def stop(self, waiter: Waits, timeout_s: float) -> None:
        """Do not tell it any more; it may have been told."""
        waiting = self._waiting.get(timeout_s)
        if waiting is not None:
            waiting.pop(waiter, None)

    def _look(self, timeout_s: float) -> None:
        """Tell those whose time is up, and look again when the next one's is."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting[timeout_s]
        while waiting:
            waiter, due = next(iter(waiting.items()))
            if due > loop.time():
                loop.call_at(due, self._look, timeout_s)
                return
            del waiting[waiter]
            waiter.time_out(timeout_s)
        del self._waiting[timeout_s]
