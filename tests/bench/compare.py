"""Riverrun beside Apache Kafka on this machine, in turn: `python -m tests.bench.compare`, or `make bench`.

One broker runs at a time, with fresh data, and is measured by its own tools; what is written to the disk
is synced before each measurement. Rounds repeat all of it with the sides in turn, and the figures are
their medians. Rows go to FOLDER/latest.json and FOLDER/latest.md. The last line says what ran and what
failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.kafka_process import Missing
from tests.bench.kafka_side import KafkaSide
from tests.bench.riverrun_side import RiverrunSide
from tests.bench.rows import HEADINGS, Row, Samples, cells, markdown
from tests.bench.sides import Side
from tests.bench.workloads import FULL, QUICK, Scale, steps

_FAILURES = (RuntimeError, ValueError, OSError, AssertionError, subprocess.TimeoutExpired)


class Bench:
    """Rounds of all sides that can run here.

    Attributes:
        samples: what was measured.
        failures: what could not be.
        ran: how many measurements there were.
    """

    def __init__(self, sides: list[Side], scale: Scale) -> None:
        self.samples = Samples()
        self.failures: list[str] = []
        self.ran = 0
        self.versions: dict[str, str] = {}
        self._scale = scale
        self._sides = [side for side in sides if self._present(side)]

    def round(self, number: int) -> None:
        """Measure everything once; sides begin in turn."""
        first = number % max(1, len(self._sides))
        for side in self._sides[first:] + self._sides[:first]:
            _say(f"round {number + 1}: {side.name} {self.versions[side.name]}")
            try:
                side.start()
                self._measure(side)
            except _FAILURES as error:
                self._failed(side.name, error)
            finally:
                side.stop()

    def rows(self) -> list[Row]:
        """Return what was measured."""
        return self.samples.rows(self.versions)

    def _measure(self, side: Side) -> None:
        for step in steps(side, self._scale, self.samples):
            # What earlier measurements left to be written is not this one's burden.
            os.sync()
            began_s = time.monotonic()
            try:
                step.run()
            except _FAILURES as error:
                self._failed(step.name, error)
            else:
                self.ran += 1
                _say(f"  {time.monotonic() - began_s:5.1f} s  {step.name}")

    def _present(self, side: Side) -> bool:
        try:
            self.versions[side.name] = side.version()
        except Missing as missing:
            self._failed(side.name, missing)
            return False
        return True

    def _failed(self, what: str, error: Exception) -> None:
        self.failures.append(f"{what}: {error}")
        _say(f"  failed: {self.failures[-1]}")


def main() -> int:
    """Measure, write the rows, tell; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare", description=__doc__)
    parser.add_argument("--rounds", type=int, help="how often to measure [3; 1 with --quick]")
    parser.add_argument(
        "--quick", action="store_true", help="see it at work: no figures to rely on"
    )
    parser.add_argument("--only", choices=["riverrun", "kafka"], help="leave the other one out")
    parser.add_argument("--folder", type=Path, default=Path("bench-results"), help="for the rows")
    parser.add_argument(
        "--data", type=Path, default=Path("data/bench"), help="for the brokers' data"
    )
    options = parser.parse_args()
    sides: list[Side] = [
        RiverrunSide(options.data / "riverrun"),
        KafkaSide(options.data / "kafka"),
    ]
    began_s = time.monotonic()
    bench = Bench(
        [side for side in sides if options.only in (None, side.name)],
        QUICK if options.quick else FULL,
    )
    rounds = options.rounds or (1 if options.quick else 3)
    for number in range(rounds):
        bench.round(number)
    rows = bench.rows()
    write(options.folder, rows, rounds)
    show(rows)
    for failure in bench.failures:
        print(f"failed: {failure}")
    print(
        f"bench: rounds={rounds} measurements={bench.ran} failures={len(bench.failures)} "
        f"seconds={time.monotonic() - began_s:.0f} rows={options.folder / 'latest.json'}"
    )
    return 1 if bench.failures else 0


def write(folder: Path, rows: list[Row], rounds: int) -> None:
    """Write the rows for programs and for people."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "measured_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "python": platform.python_version(),
        "rounds": rounds,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    (folder / "latest.json").write_text(json.dumps(told, indent=2) + "\n")
    (folder / "latest.md").write_text(markdown(rows))


def show(rows: list[Row]) -> None:
    """Print the rows as a table."""
    console = Console()
    # A file has no width of its own: nothing is folded there.
    table = Table(*HEADINGS, box=None, pad_edge=False, min_width=None)
    for row in rows:
        table.add_row(*cells(row))
    console.width = console.width if console.is_terminal else 200
    console.print(table)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
