"""A world of events in virtual time: one heap, one seed, and processes that pause and end.

Nothing here waits: an event is a call at a moment, and time jumps from one to the next. What falls
on the same moment runs in an order drawn from the seed.
"""

from __future__ import annotations

import enum
import heapq
import random
from collections.abc import Callable

from tests.sim.cluster.trace import Trace

Action = Callable[..., None]


class Life(enum.Enum):
    """What a process is doing. Transitions: running <-> paused; running or paused -> ended."""

    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


class Process:
    """Whose events wait while it is paused and are forgotten once it has ended."""

    __slots__ = ("held", "life", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.life = Life.RUNNING
        self.held: list[tuple[Action, tuple[object, ...]]] = []


class World:
    """Runs events in order of time.

    Each part draws from dice of its own, so that leaving a fault out of a plan changes as little as
    possible of everything else.

    Args:
        seed: fixes everything.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_s = 0.0
        self.steps = 0
        self.trace = Trace()
        self._order = self.dice("order")
        self._serial = 0
        self._heap: list[tuple[float, float, int, Action, tuple[object, ...], Process | None]] = []

    def dice(self, name: str) -> random.Random:
        """Return the dice of one part of the world."""
        return random.Random(f"{self.seed} {name}")

    def note(self, who: object, what: str, *details: object) -> None:
        """Put an event into the trace."""
        self.trace.add(self.now_s, who, what, *details)

    def after(
        self, delay_s: float, action: Action, *args: object, process: Process | None = None
    ) -> None:
        """Call something later, on behalf of a process if one is named."""
        assert delay_s >= 0, delay_s
        self._serial += 1
        entry = (self.now_s + delay_s, self._order.random(), self._serial, action, args, process)
        heapq.heappush(self._heap, entry)

    def run(self, until_s: float, after_step: Callable[[], None] | None = None) -> None:
        """Run every event up to a moment, and let time reach it.

        Args:
            until_s: in seconds since the world began.
            after_step: called after each event; what it raises ends the run.
        """
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            at_s, _, _, action, args, process = heapq.heappop(heap)
            assert at_s >= self.now_s, (at_s, self.now_s)
            self.now_s = at_s
            if process is not None and process.life is not Life.RUNNING:
                if process.life is Life.PAUSED:
                    process.held.append((action, args))
                continue
            self.steps += 1
            action(*args)
            if after_step is not None:
                after_step()
        self.now_s = max(self.now_s, until_s)

    def pause(self, process: Process) -> None:
        """Stop a process as SIGSTOP does: it notices nothing, and what comes for it waits."""
        assert process.life is Life.RUNNING, (process.name, process.life)
        process.life = Life.PAUSED

    def resume(self, process: Process) -> None:
        """Let a paused process go on with everything that came meanwhile, in order."""
        if process.life is not Life.PAUSED:
            return
        process.life = Life.RUNNING
        held, process.held = process.held, []
        for number, (action, args) in enumerate(held):
            self.after(number * 1e-9, action, *args, process=process)

    def end(self, process: Process) -> None:
        """End a process as SIGKILL does: nothing of it ever runs again."""
        process.life = Life.ENDED
        process.held.clear()
