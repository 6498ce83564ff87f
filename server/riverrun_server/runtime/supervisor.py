"""Owns the background tasks and the one ordered shutdown of a broker.

The order is written here and nowhere else: what takes new work stops before what finishes the old,
and the store is closed when nothing can touch it any more. Each stage has its share of one budget,
and whatever hangs beyond it cannot keep the process alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import structlog

from riverrun_server.ports.clock import Clock

EXIT_CLEAN: Final = 0
EXIT_FAILED: Final = 1
# The shutdown hung: neither the loop nor a thread came back.
EXIT_HUNG: Final = 70

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

# Clients of a broker that is broken gain nothing from waiting: they are told and let go.
_DRAIN_AFTER_CRASH_S: Final = 1.0
# Stages are over a little before the budget is, so that the process can end by itself.
_STAGES_SHARE: Final = 0.95
# A step is told of a little less than it has, so that it can end by itself and say what hangs.
_STEP_SHARE: Final = 0.9

_log = structlog.stdlib.get_logger(__name__)


class CannotStart(Exception):
    """The broker cannot run for a reason that its operator can change; the text says how."""


class Stage(enum.IntEnum):
    """The stages of a shutdown, in order."""

    HAND_ON = 1
    STOP_ACCEPTING = 2
    DRAIN_STREAMS = 3
    STOP_READERS = 4
    FLUSH = 5
    CLOSE_METADATA = 6
    STOP_THREADS = 7
    CLOSE_STORE = 8


# Shares of the budget that are kept back from a stage for those behind it, so that a stream that does
# not end cannot cost the store its clean end, and a disk that hangs is named before time is up.
_KEPT_BACK: Final = {
    Stage.HAND_ON: 0.5,
    Stage.STOP_ACCEPTING: 0.3,
    Stage.DRAIN_STREAMS: 0.3,
    Stage.STOP_READERS: 0.3,
    Stage.FLUSH: 0.15,
    Stage.CLOSE_METADATA: 0.15,
    Stage.STOP_THREADS: 0.1,
    Stage.CLOSE_STORE: 0.0,
}


@dataclass(frozen=True, slots=True)
class _Step:
    stage: Stage
    name: str
    run: Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Owned:
    task: asyncio.Task[None]
    critical: bool
    until: Stage


def exit_after(seconds: float) -> None:
    """End the process, whatever it does, after some time; a thread does it, not the loop."""

    def wait() -> None:
        threading.Event().wait(seconds)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write("riverrun-server: the shutdown hung and was cut off\n")
            sys.stderr.flush()
        os._exit(EXIT_HUNG)

    threading.Thread(target=wait, name="shutdown-backstop", daemon=True).start()


class Supervisor:
    """Runs a broker until it is told to stop or something that it cannot do without crashes.

    Transitions: running -> stopping (signal, `stop`, crash of a critical task) -> stopped. While it
    is stopping further signals are noted and ignored.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        drain_timeout_s: float,
        crashed: Callable[[], None] = lambda: None,
        backstop: Callable[[float], None] = exit_after,
    ) -> None:
        """`crashed` counts crashes of tasks; `backstop` ends a process whose shutdown hangs."""
        self._clock = clock
        self._budget_s = drain_timeout_s
        self._crashed = crashed
        self._backstop = backstop
        self._tasks: dict[str, _Owned] = {}
        self._steps: list[_Step] = []
        self._stopping = asyncio.Event()
        self._ends_at = 0.0
        self.failure: BaseException | None = None

    @property
    def stopping(self) -> bool:
        """Whether the shutdown has begun."""
        return self._stopping.is_set()

    def spawn(
        self,
        name: str,
        work: Coroutine[Any, Any, None],
        *,
        critical: bool = True,
        until: Stage = Stage.STOP_READERS,
    ) -> None:
        """Run `work` in a task that is cancelled at the beginning of stage `until`.

        A critical task that ends before that, in whatever way, is a failure and stops the broker.
        """
        assert name not in self._tasks, name
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[name] = _Owned(task, critical, until)
        task.add_done_callback(lambda done: self._ended(name, done))

    def on_stop(self, stage: Stage, name: str, step: Callable[[float], Awaitable[None]]) -> None:
        """Have `step` awaited in a stage; it gets the seconds that it may take.

        Steps of one stage run together, and whatever becomes of one, the others and the next stages
        run. From FLUSH on a step that fails or takes longer makes the exit code say so; before that
        it is only logged.
        """
        self._steps.append(_Step(stage, name, step))

    def stop(self, why: str) -> None:
        """Begin the shutdown; later calls change nothing."""
        if self.stopping:
            _log.info("already shutting down", ignored=why, seconds_left=round(self._left_s(), 1))
            return
        _log.info("shutting down", why=why, within_s=self._budget_s)
        self._ends_at = self._clock.monotonic() + self._budget_s * _STAGES_SHARE
        self._backstop(self._budget_s)
        self._stopping.set()

    def watch_signals(self) -> None:
        """Stop on SIGTERM and SIGINT from now on.

        Call it before anything is opened: the first process of a container dies of no signal that
        it has no handler for.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.stop, number.name)

    async def run(self, *, started: bool = True) -> int:
        """Wait for the end, shut down in order and return the process's exit code.

        A broker that could not start has failed, however well it shuts down.
        """
        self.watch_signals()
        loop = asyncio.get_running_loop()
        try:
            await self._stopping.wait()
            clean = await self._shut_down()
        finally:
            for owned in self._tasks.values():
                owned.task.cancel()
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
        well = started and clean and self.failure is None
        code = EXIT_CLEAN if well else EXIT_FAILED
        _log.info("stopped", exit_code=code)
        return code

    async def _shut_down(self) -> bool:
        clean = True
        for stage in Stage:
            await self._cancel(stage)
            results = await asyncio.gather(
                *(self._run_step(step) for step in self._steps if step.stage is stage)
            )
            if stage >= Stage.FLUSH and not all(results):
                clean = False
        assert all(owned.task.done() for owned in self._tasks.values())
        return clean

    async def _cancel(self, stage: Stage) -> None:
        ending = [owned.task for owned in self._tasks.values() if owned.until is stage]
        for task in ending:
            task.cancel()
        # Their ends are looked at by _ended; a task that ignores this is the backstop's.
        await asyncio.gather(*ending, return_exceptions=True)

    async def _run_step(self, step: _Step) -> bool:
        allowed_s = self._allowed_s(step.stage)
        try:
            async with asyncio.timeout(allowed_s):
                await step.run(allowed_s * _STEP_SHARE)
        except TimeoutError:
            _log.warning("shutdown step cut short", step=step.name, after_s=round(allowed_s, 1))
            return False
        except Exception:  # noqa: BLE001 - the next steps must run whatever this one did
            _log.exception("shutdown step failed", step=step.name)
            return False
        return True

    def _allowed_s(self, stage: Stage) -> float:
        left_s = max(0.0, self._left_s() - self._budget_s * _KEPT_BACK[stage])
        if stage >= Stage.FLUSH or self.failure is None:
            return left_s
        return min(left_s, _DRAIN_AFTER_CRASH_S)

    def _left_s(self) -> float:
        return max(0.0, self._ends_at - self._clock.monotonic())

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        owned = self._tasks[name]
        if task.cancelled() and self.stopping:
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._crashed()
            _log.error(
                "background task crashed", task=name, critical=owned.critical, exc_info=error
            )
        if owned.critical and (error is not None or not self.stopping):
            if self.failure is None:
                self.failure = error or RuntimeError(f"background task {name} ended by itself")
            self.stop(f"task {name} {'crashed' if error else 'ended'}")
