"""Processes within one event loop in virtual time: each may stand still, or end, with everything it waits for.

Whatever a task or a timer does, it does in the context of its process. What falls due while that stands
still is kept until it goes on, as behind SIGSTOP; of a process that has ended nothing runs any more, no
`finally` either, as behind SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.sim.loop import SimLoop, _Ready

T = TypeVar("T")

_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Life(enum.Enum):
    """What a process is doing. Transitions: running <-> paused; running or paused -> ended."""

    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


class Process:
    """One process."""

    def __init__(self, loop: ProcessLoop, name: str) -> None:
        self.name = name
        self.life = Life.RUNNING
        self.held: list[asyncio.Handle] = []
        self.resumed_at = -1.0
        self.context = contextvars.copy_context()
        self.context.run(_PROCESS.set, self)
        self._loop = loop
        loop.processes.append(self)

    def __str__(self) -> str:
        return self.name

    @property
    def runs(self) -> bool:
        """Whether it neither stands still nor has ended."""
        return self.life is Life.RUNNING

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it ever runs again."""
        return self.life is Life.ENDED

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run something at once, as this process."""
        return self.context.copy().run(function, *args)

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run a task of this process."""
        return self._loop.create_task(work, name=name, context=self.context.copy())

    def after(self, delay_s: float, action: Callable[..., object], *args: Any) -> None:
        """Do something later, as this process."""
        self._loop.call_later(delay_s, action, *args, context=self.context)

    def pause(self) -> None:
        """Stand still."""
        assert self.life is Life.RUNNING, self.name
        self.life = Life.PAUSED

    def resume(self) -> None:
        """Go on with everything that came meanwhile."""
        if self.life is Life.PAUSED:
            self.life = Life.RUNNING
            self.resumed_at = self._loop.time()
            self._loop.go_on_with(self.held)
            self.held = []

    def end(self) -> None:
        """End at once."""
        self.life = Life.ENDED


class _Standing(_Ready):
    """The loop's ready callbacks, without those of processes that stand still or have ended."""

    def __init__(self, dice: random.Random, loop: ProcessLoop) -> None:
        super().__init__(dice)
        self._nothing = asyncio.Handle(lambda: None, (), loop)
        self._nothing.cancel()
        self.is_over = False

    def popleft(self) -> asyncio.Handle:
        handle = super().popleft()
        process = handle._context.get(_PROCESS)
        if process is None or process.life is Life.RUNNING or self.is_over:
            return handle
        if not handle._cancelled:
            # Kept of a process that has ended, too: its tasks are not to be collected before the end.
            process.held.append(handle)
        return self._nothing


class ProcessLoop(SimLoop):
    """SimLoop with processes.

    Args:
        seed: fixes every order.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.processes: list[Process] = []
        self._ready: _Standing = _Standing(random.Random(f"order of {seed}"), self)

    def go_on_with(self, handles: list[asyncio.Handle]) -> None:
        """Run what a process has missed."""
        self._ready.extend(handles)

    def end_processes(self) -> None:
        """Let everything run once more, to be cancelled: the simulation is over, and so is what is told of it."""
        self._ready.is_over = True
        self.set_exception_handler(lambda *_: None)
        for process in self.processes:
            self._ready.extend(process.held)
