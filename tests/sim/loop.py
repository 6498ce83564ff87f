"""An event loop in virtual time: hours pass in milliseconds, and a seed fixes every order.

When nothing is ready the clock jumps to the next timer instead of waiting for it. What is ready at
the same moment runs in an order drawn from the seed, so one test explores many schedules and any of
them can be run again. There is no I/O and there are no threads here: what needs them is behind a
port, which a simulation fills.
"""

from __future__ import annotations

import asyncio
import collections
import random
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

ROUNDS_PER_INSTANT_MAX = 100_000
"""So often may callbacks make others ready without time passing before it counts as a livelock."""


class DeadlockError(RuntimeError):
    """Every task waits and no timer is set: nothing will ever happen again."""


class LivelockError(RuntimeError):
    """Something is always ready and time does not pass."""


class _Ready(collections.deque):
    """The loop's ready callbacks, shuffled once a round.

    A round is what was ready when it began, due timers included. What becomes ready during a round
    belongs to the next one, as in asyncio: no schedule comes up that a real loop could not have with
    other timings.
    """

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice
        self._is_shuffled = False

    def begin_round(self) -> None:
        self._is_shuffled = False

    def popleft(self) -> asyncio.Handle:
        if not self._is_shuffled:
            handles = list(self)
            self._dice.shuffle(handles)
            self.clear()
            self.extend(handles)
            self._is_shuffled = True
        return super().popleft()


class _JumpingSelector(selectors.SelectSelector):
    """Lets time pass where another selector would wait for I/O."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: SimLoop | None = None

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        # The loop's own wake-up pipe comes first; nobody writes to it, for there are no threads.
        if self.get_map():
            raise RuntimeError("a simulation has no I/O; put what needs it behind a port")
        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert self.loop is not None
        self.loop.begin_round(timeout)
        return []


class SimLoop(asyncio.SelectorEventLoop):
    """asyncio's loop with another clock, another order and no I/O.

    It leans on two private names of asyncio, `_ready` and the order of `_run_once` (select, then due
    timers, then callbacks); the tests beside it notice when either changes.

    Args:
        seed: fixes the order of callbacks and everything drawn from `dice`.
    """

    def __init__(self, seed: int) -> None:
        selector = _JumpingSelector()
        super().__init__(selector)
        selector.loop = self
        self.seed = seed
        self.dice = random.Random(seed)
        self._now_s = 0.0
        self._rounds_in_this_instant = 0
        self._ready = _Ready(random.Random(f"order of {seed}"))

    def time(self) -> float:
        """Return the virtual time in seconds since the start."""
        return self._now_s

    def begin_round(self, timeout_s: float | None) -> None:
        """Let time pass up to the next timer, and begin a round of callbacks.

        Raises:
            DeadlockError: there is neither a callback nor a timer.
            LivelockError: time has not passed for too many rounds.
        """
        if timeout_s is None:
            raise DeadlockError(
                f"seed {self.seed}, {self._now_s:.3f} s: every task waits and no timer is set\n"
                + self._waiting()
            )
        if timeout_s > 0:
            self._now_s += timeout_s
            self._rounds_in_this_instant = 0
        self._rounds_in_this_instant += 1
        if self._rounds_in_this_instant > ROUNDS_PER_INSTANT_MAX:
            self._rounds_in_this_instant = 0  # cancelling what is left takes rounds too
            raise LivelockError(
                f"seed {self.seed}, {self._now_s:.3f} s: {ROUNDS_PER_INSTANT_MAX} rounds of "
                f"callbacks without time passing\n" + self._waiting()
            )
        self._ready.begin_round()

    def run_in_executor(self, *_: object) -> asyncio.Future[Any]:
        """Refuse: a thread would run in real time and in an order of its own."""
        raise RuntimeError("a simulation has no threads; put what needs them behind a port")

    def _waiting(self) -> str:
        """Return a line for each task that is not done: its name and where it waits."""
        lines = []
        for task in sorted(asyncio.all_tasks(self), key=lambda task: task.get_name()):
            frames = task.get_stack(limit=1)
            where = (
                f"{frames[0].f_code.co_qualname}:{frames[0].f_lineno}" if frames else "not begun"
            )
            lines.append(f"  {task.get_name()} in {where}")
        return "\n".join(lines)


def simulate(scenario: Coroutine[Any, Any, T], seed: int) -> T:
    """Run a scenario to its end in virtual time and return what it returns.

    Raises:
        DeadlockError, LivelockError: it cannot end.
    """
    with asyncio.Runner(loop_factory=lambda: SimLoop(seed)) as runner:
        return runner.run(scenario)
