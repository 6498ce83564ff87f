"""Disk faults for as long as you like: `python -m tests.e2e.power --rounds 100`, a part of `make torture`.

Each round the disk fails in the next way, at a sync or write that the dice choose. A broker that
ends by that loses its power too, and comes back. In the end all logs are read and the history is
checked as in the kill test.
"""

from __future__ import annotations

import argparse
import asyncio
import enum
import itertools
import os
import random
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.kill.anomalies import summary
from tests.e2e.kill.history import Outcome
from tests.e2e.power.cuts import Kind, cut_power
from tests.e2e.power.disk import FaultyDisk
from tests.e2e.power.load import Load, under_load

_SYNC_MS = 4.0
_SLOW_MS = 300.0
_SPARED_MAX = 40
_END_TIMEOUT_S = 30.0
_PROGRESS = 20


class Fault(enum.Enum):
    """What the disk does in one round."""

    SYNC_EIO = "a sync fails"
    WRITE_FULL = "the disk is full for some writes"
    SLOW = "syncs take long"
    WRITE_EIO = "a write fails"
    SYNC_FULL = "a sync meets the full disk"
    STAYS_FULL = "the disk is full until there is room"


_ENDS = {Fault.SYNC_EIO, Fault.WRITE_EIO, Fault.SYNC_FULL}
"""What a broker must not outlive."""


class DiskRig:
    """A broker under load on a disk that fails in every way in turn.

    Attributes:
        broker: stop it in the end.
        bitten: in how many rounds the broker was given each fault.
        ended: in how many of them it ended.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._disk = FaultyDisk(folder / "data", sync_ms=_SYNC_MS, only=".log")
        self._dice = random.Random(seed)
        self._seed = seed
        self._cuts = itertools.cycle(Kind)
        self.broker = BrokerProcess(folder, "--set", "storage.slots=8", environ=self._disk.environ)
        self.bitten: Counter[Fault] = Counter()
        self.ended: Counter[Fault] = Counter()

    async def run(self, rounds: int) -> list[str]:
        """Return what is wrong."""
        await asyncio.to_thread(self.broker.start)
        async with under_load(self.broker.address, self._seed) as load:
            for number, fault in zip(range(rounds), itertools.cycle(Fault), strict=False):
                await load.until_more(Outcome.ACKED, _PROGRESS)
                await self._round(load, fault)
                if (number + 1) % 10 == 0:
                    sys.stderr.write(f"{number + 1} of {rounds} rounds\n")
            await load.until_more(Outcome.ACKED, _PROGRESS)
            await asyncio.to_thread(self.broker.kill9)
            self._cut_power()
        await asyncio.to_thread(self.broker.restart)
        found = list(summary(await load.anomalies()))
        return [*found, *self._missing(load, rounds)]

    async def _round(self, load: Load, fault: Fault) -> None:
        disk, spared = self._disk, self._dice.randrange(_SPARED_MAX)
        before = disk.failed_syncs + disk.failed_writes
        if fault is Fault.SLOW:
            disk.slow_down(_SLOW_MS)
            await load.until_more(Outcome.ACKED, _PROGRESS // 4)
            disk.slow_down(_SYNC_MS)
            self.bitten[fault] += 1
            return
        if fault in (Fault.SYNC_EIO, Fault.SYNC_FULL):
            error = "EIO" if fault is Fault.SYNC_EIO else "ENOSPC"
            disk.fail_syncs(error, spared=spared)
        elif fault is Fault.WRITE_EIO:
            disk.fail_writes("EIO", 1, spared=spared)
        elif fault is Fault.WRITE_FULL:
            disk.fail_writes("ENOSPC", self._dice.randint(1, 5), spared=spared)
        else:
            disk.fail_writes("ENOSPC", spared=spared)
        await load.until(lambda: disk.failed_syncs + disk.failed_writes > before)
        self.bitten[fault] += 1
        if fault is Fault.STAYS_FULL:
            refused, unknown = load.seen[Outcome.REFUSED], load.seen[Outcome.UNKNOWN]
            await load.until(
                lambda: (
                    load.seen[Outcome.REFUSED] > refused + 3
                    or load.seen[Outcome.UNKNOWN] > unknown + 3
                )
            )
        if fault not in _ENDS:
            disk.heal()
            if await self._goes_on(load):
                return
        self.ended[fault] += 1
        await self._back(fault)

    async def _goes_on(self, load: Load) -> bool:
        """Wait until appends are acknowledged or nobody answers; return whether they are.

        What a full disk does to a sync ends the broker; what it does to a write alone does not.
        """
        acked, unknown = load.seen[Outcome.ACKED], load.told[""]
        await load.until(
            lambda: load.seen[Outcome.ACKED] >= acked + _PROGRESS or load.told[""] > unknown + 20
        )
        return load.seen[Outcome.ACKED] >= acked + _PROGRESS

    async def _back(self, fault: Fault) -> None:
        """Wait for the broker's own end, cut the power, bring it back."""
        ending = asyncio.to_thread(os.waitid, os.P_PID, self.broker.pid, os.WEXITED | os.WNOWAIT)
        try:
            await asyncio.wait_for(ending, _END_TIMEOUT_S)
        except TimeoutError:
            raise AssertionError(f"the broker outlives that {fault.value}") from None
        await asyncio.to_thread(self.broker.kill9)
        if self.broker.exit_code != 1:
            raise AssertionError(
                f"exit code {self.broker.exit_code} after {fault.value}, expected 1\n"
                + self.broker.logs()
            )
        self._cut_power()
        await asyncio.to_thread(self.broker.restart)

    def _cut_power(self) -> None:
        cut_power(self._disk, next(self._cuts), self._dice)

    def _missing(self, load: Load, rounds: int) -> list[str]:
        """Say what was not put to the test."""
        found = []
        if rounds >= len(Fault):
            found += [f"never: {fault.value}" for fault in Fault if not self.bitten[fault]]
            found += [f"the broker outlived {each.value}" for each in _ENDS if not self.ended[each]]
            if not load.seen[Outcome.REFUSED]:
                found.append("no record was refused for certain")
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, check, tell; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.power", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="how often the disk fails")
    parser.add_argument("--seed", type=int, help="make the choices of an earlier run again")
    parser.add_argument("--folder", type=Path, default=Path("data/torture"), help="for its data")
    options = parser.parse_args(arguments)
    seed = options.seed or int.from_bytes(os.urandom(4))
    folder = options.folder / f"disk-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began_s = time.monotonic()
    rig = DiskRig(folder, seed)
    try:
        failures = asyncio.run(rig.run(options.rounds))
    except Exception as error:
        failures = traceback.format_exception(error)
    finally:
        rig.broker.stop()
    told = ", ".join(
        f"{fault.value} {n} ({rig.ended[fault]} ends)" for fault, n in rig.bitten.items()
    )
    sys.stdout.write(f"{told}\n")
    if failures:
        (folder / "broker.log").write_text(rig.broker.logs())
        failures.append(f"everything is in {folder}")
    else:
        shutil.rmtree(folder)
    for line in failures:
        sys.stdout.write(f"{line}\n")
    seconds = time.monotonic() - began_s
    sys.stdout.write(
        f"torture: disk seed={seed} rounds={options.rounds} failures={len(failures)} "
        f"seconds={seconds:.0f}\n"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
