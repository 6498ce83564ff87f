"""A bare process that tells how late the machine lets it run, beside what is timed: `python -m tests.e2e.witness`.

Fifty times a second it wants to be woken at a given moment and to compute for half a millisecond. By how
much later it is done than that is the machine's doing, for it waits for nobody else. Five times a second
it writes a block to a file of its own, where it is given a folder, and syncs it. It takes a fortieth of a
core, and ends when its standard input does.
"""

from __future__ import annotations

import collections
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

_TICK_S = 0.02
_WORK_S = 0.0005
_TICKS_A_LINE = 5
_SYNC_EVERY_S = 0.2
_BLOCK = bytes(4096)
# The first word of a line.
_RAN, _SYNCED = "ran", "synced"
# Nobody who asks now and then misses any: half an hour of them.
_DELAYS_MAX = 100_000
_END_TIMEOUT_S = 20.0


class Delay(NamedTuple):
    """How late one tick was done, and when that was by the clock that all processes share."""

    done_s: float
    ms: float


class Witness:
    """Runs the process and collects what it tells.

    Args:
        folder: where it syncs a file; None where the disk does not matter.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._delays: collections.deque[Delay] = collections.deque(maxlen=_DELAYS_MAX)
        self._syncs: collections.deque[Delay] = collections.deque(maxlen=_DELAYS_MAX)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.witness", *([str(folder)] if folder else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name="witness", daemon=True)
        self._reader.start()

    def __enter__(self) -> Witness:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.end()

    def take(self) -> list[float]:
        """Return the delays, in ms, that nobody has taken yet."""
        return [self._delays.popleft().ms for _ in range(len(self._delays))]

    def take_syncs(self) -> list[float]:
        """Return how long its syncs took, in ms, those that nobody has taken yet."""
        return [self._syncs.popleft().ms for _ in range(len(self._syncs))]

    def worst_ms(self, begin_s: float, end_s: float) -> float | None:
        """Return the longest delay of that time, as `time.monotonic` has it; None where none is known."""
        return _worst_ms(self._delays, begin_s, end_s)

    def worst_sync_ms(self, begin_s: float, end_s: float) -> float | None:
        """Return how long the slowest sync of that time took; None where none is known."""
        return _worst_ms(self._syncs, begin_s, end_s)

    def gone(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def end(self) -> None:
        """Let it end, and wait until everything it told is there."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                what, *words = line.split()
                figures = list(map(float, words))
                told = self._delays if what == _RAN else self._syncs
                told.extend(map(Delay, figures[::2], figures[1::2]))


def _worst_ms(told: collections.deque[Delay], begin_s: float, end_s: float) -> float | None:
    within = (
        delay.ms
        for delay in list(told)
        if delay.done_s >= begin_s and delay.done_s - delay.ms / 1_000 <= end_s
    )
    return max(within, default=None)


def tick(due_s: float) -> Delay:
    """Compute for half a millisecond; return how much later than due that is done."""
    began_s = time.thread_time()
    while (worked_s := time.thread_time() - began_s) < _WORK_S:
        pass
    done_s = time.monotonic()
    return Delay(done_s, max(0.0, 1_000 * (done_s - due_s - worked_s)))


def sync(file: int) -> Delay:
    """Write a block at the beginning of a file and sync it; return how long that took."""
    began_s = time.monotonic()
    os.pwrite(file, _BLOCK, 0)
    os.fdatasync(file)
    done_s = time.monotonic()
    return Delay(done_s, 1_000 * (done_s - began_s))


def _keep_syncing(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as file:
        while True:
            _tell(_SYNCED, [sync(file.fileno())])
            time.sleep(_SYNC_EVERY_S)


def _tell(what: str, delays: list[Delay]) -> None:
    # In one piece: two threads tell.
    line = " ".join([what, *(f"{delay.done_s:.4f} {delay.ms:.3f}" for delay in delays)])
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def _main(folder: Path | None = None) -> None:
    if folder is not None:
        threading.Thread(target=_keep_syncing, args=(folder,), daemon=True).start()
    due_s, told = time.monotonic() + _TICK_S, list[Delay]()
    while True:
        ended, _, _ = select.select([sys.stdin], [], [], max(0.0, due_s - time.monotonic()))
        if ended:
            return
        told.append(tick(due_s))
        # What was missed is one long delay, and not many.
        due_s = max(due_s + _TICK_S, told[-1].done_s)
        if len(told) == _TICKS_A_LINE:
            _tell(_RAN, told)
            told.clear()


if __name__ == "__main__":
    _main(*map(Path, sys.argv[1:]))
