"""When records of a fixed rate are due, and a thread that calls the event loop at those times."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

NS_PER_S = 1_000_000_000
TICK_NS = 1_000_000
"""Nothing is due more often than this: waking up costs about a tenth of it."""


class Tick(NamedTuple):
    """A moment, in ns since the start, and the records that are due then."""

    due_ns: int
    records: range


def ticks(rate: int, records: int) -> Iterator[Tick]:
    """Spread so many records evenly at so many a second, those of a millisecond together."""
    step_ns = max(TICK_NS, NS_PER_S // rate)
    first = 0
    number = 0
    while first < records:
        due_ns = number * step_ns
        behind = min(records, due_ns * rate // NS_PER_S + 1)
        if behind > first:
            yield Tick(due_ns, range(first, behind))
        first = max(first, behind)
        number += 1


class Metronome:
    """Calls the event loop at each tick.

    A thread sleeps, for the loop's own timers wake up to a millisecond late. A loop that is late
    gets all its ticks one after the other, each with the time at which it was due.
    """

    def __init__(self, schedule: Iterator[Tick], call: Callable[[Tick, int], None]) -> None:
        """Make a metronome; `call` gets the tick and its due time as `time.perf_counter_ns` has it."""
        self._schedule = schedule
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="riverrun-metronome", daemon=True)

    def start(self) -> int:
        """Begin, and return when, as `time.perf_counter_ns` has it."""
        self._began_ns = time.perf_counter_ns()
        self._thread.start()
        return self._began_ns

    def stop(self) -> None:
        """Tick no more."""
        self._stopped.set()

    def _run(self) -> None:
        """Sleep from tick to tick, in the thread."""
        for tick in self._schedule:
            due_ns = self._began_ns + tick.due_ns
            wait_ns = due_ns - time.perf_counter_ns()
            if self._stopped.wait(max(0, wait_ns) / NS_PER_S):
                return
            try:
                self._loop.call_soon_threadsafe(self._call, tick, due_ns)
            except RuntimeError:  # the loop has closed
                return
