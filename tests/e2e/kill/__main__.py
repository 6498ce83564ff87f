"""The kill test for as long as you like: `python -m tests.e2e.kill --rounds 50`, or `make torture`.

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

from tests.e2e.kill.anomalies import summary
from tests.e2e.kill.checker import check
from tests.e2e.kill.evidence import weigh
from tests.e2e.kill.rig import Rig, Tell


def main() -> int:
    """Run, check, tell; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.kill", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="how often to kill the broker")
    parser.add_argument("--seed", type=int, help="make the choices of an earlier run again")
    parser.add_argument("--folder", type=Path, default=Path("data/torture"), help="for its data")
    parser.add_argument(
        "--power", action="store_true", help="lose what was not synced; needs a C compiler"
    )
    options = parser.parse_args()
    seed = options.seed or int.from_bytes(os.urandom(4))
    folder = options.folder / str(seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # The client says that connections break; that is what this is about.
    logging.getLogger("riverrun").setLevel(logging.ERROR)
    kind = "power cuts" if options.power else "kills"
    sys.stdout.write(f"seed {seed}, {options.rounds} {kind}, in {folder}\n")
    began_s = time.monotonic()
    rig = Rig(folder, seed, power=options.power)
    failures = _run(rig, options.rounds)
    sys.stdout.write(f"{weigh(rig.recorder.events)}\n")
    for line in failures:
        sys.stdout.write(f"{line}\n")
    if failures:
        (folder / "broker.log").write_text(rig.broker.logs())
        (folder / "history.txt").write_text("\n".join(map(str, rig.recorder.events)))
        sys.stdout.write(f"everything is in {folder}\n")
    else:
        shutil.rmtree(folder)
    seconds = time.monotonic() - began_s
    sys.stdout.write(
        f"torture: {kind.replace(' ', '_')} seed={seed} rounds={options.rounds} failures={len(failures)} "
        f"seconds={seconds:.0f}\n"
    )
    return 1 if failures else 0


def _run(rig: Rig, rounds: int) -> list[str]:
    """Return what is wrong."""
    try:
        with _progress(rounds) as tell:
            return list(summary(check(asyncio.run(rig.run(rounds, tell)))))
    except Exception as error:
        return traceback.format_exception(error)
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
