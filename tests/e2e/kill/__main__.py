"""The kill test for as long as you like: `python -m tests.e2e.kill --rounds 100`, or `make torture`.

The last line says what ran and what failed. A run that fails leaves its data, the broker's log and
the whole history behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.e2e.kill.anomalies import Anomaly, summary
from tests.e2e.kill.anomalies import Kind as Broken
from tests.e2e.kill.checker import check
from tests.e2e.kill.evidence import weigh
from tests.e2e.kill.rig import Rig, Tell
from tests.e2e.power.cuts import Kind

_RELAXED = {"fsync": "relaxed", "unclean.recovery": "accept"}
# Long enough that whatever was answered last is not on the disk when the power goes.
_RELAXED_SYNC_MS = 200
_LOSSES = {Broken.LOST, Broken.INCONSISTENT, Broken.VANISHED}


def main() -> int:
    """Run, check, tell; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.kill", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="how often to kill the broker")
    parser.add_argument("--seed", type=int, help="make the choices of an earlier run again")
    parser.add_argument("--folder", type=Path, default=Path("data/torture"), help="for its data")
    parser.add_argument(
        "--power",
        action="store_true",
        help="cut the power each time, in every way in turn; needs a C compiler",
    )
    parser.add_argument(
        "--relaxed",
        action="store_true",
        help="cut the power with syncs off: the run fails unless data is lost and that is found",
    )
    options = parser.parse_args()
    seed = options.seed or int.from_bytes(os.urandom(4))
    # The client says that connections break; that is what this is about.
    logging.getLogger("riverrun").setLevel(logging.ERROR)
    what = "power cuts" if options.power or options.relaxed else "kills"
    part = "relaxed" if options.relaxed else "power" if options.power else "kills"
    folder = options.folder / f"{part}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sys.stdout.write(f"seed {seed}, {options.rounds} {what}, in {folder}\n")
    began_s = time.monotonic()
    if options.relaxed:
        rig = Rig(folder, seed, cuts=(Kind.DROP,), configs=_RELAXED, sync_ms=_RELAXED_SYNC_MS)
        failures = _nothing_lost(rig, options.rounds)
    else:
        rig = Rig(folder, seed, cuts=tuple(Kind) if options.power else ())
        failures = _failures(rig, options.rounds)
    if failures:
        (folder / "broker.log").write_text(rig.broker.logs())
        (folder / "history.txt").write_text("\n".join(map(str, rig.recorder.events)))
        failures.append(f"everything is in {folder}")
    else:
        shutil.rmtree(folder)
    for line in failures:
        sys.stdout.write(f"{line}\n")
    seconds = time.monotonic() - began_s
    sys.stdout.write(
        f"torture: {part} seed={seed} rounds={options.rounds} failures={len(failures)} "
        f"seconds={seconds:.0f}\n"
    )
    return 1 if failures else 0


def _failures(rig: Rig, rounds: int) -> list[str]:
    """Run, and return what is wrong: promises that are broken, or nothing put to the test."""
    anomalies, error = _run(rig, rounds)
    evidence = weigh(rig.recorder.events)
    for kind, cut in evidence.cuts.items():
        taken = len(evidence.biting[kind])
        sys.stdout.write(f"{kind}: {len(cut)} rounds, in {taken} of them something was taken\n")
    sys.stdout.write(f"{evidence}\n")
    return error or list(summary(anomalies)) or list(evidence.missing())


def _nothing_lost(rig: Rig, rounds: int) -> list[str]:
    """Run, and return that nothing was lost, or that it was not found."""
    anomalies, error = _run(rig, rounds)
    lost = [anomaly for anomaly in anomalies if anomaly.kind in _LOSSES]
    for line in summary(lost):
        sys.stdout.write(f"{line}\n")
    return [] if lost else [*error, "nothing was lost, so that this run proves nothing"]


def _run(rig: Rig, rounds: int) -> tuple[list[Anomaly], list[str]]:
    """Return what is wrong with the history, and why it has no end, if so."""
    try:
        with _progress(rounds) as tell:
            return check(asyncio.run(rig.run(rounds, tell))), []
    except Exception as error:
        return [], traceback.format_exception(error)
    finally:
        rig.broker.stop()


@contextlib.contextmanager
def _progress(rounds: int) -> Iterator[Tell]:
    """Draw a bar on a terminal; elsewhere say something every ten rounds."""
    if not sys.stderr.isatty():
        yield lambda number: _say(number, rounds)
        return
    columns = (TextColumn("rounds"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("", total=rounds)
        yield lambda number: progress.update(task, completed=number)


def _say(number: int, rounds: int) -> None:
    if number % 10 == 0 or number == rounds:
        sys.stderr.write(f"{number} of {rounds} rounds\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
