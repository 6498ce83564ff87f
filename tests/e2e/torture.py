"""All of `make torture`: its parts one after the other, each a process, and one line on what failed.

A part is a command that ends with the line `torture: NAME seed=… rounds=… failures=… seconds=…` (or
`minutes=…` in the place of rounds) and exits 0 where nothing failed. One that is not there, ends
without the line, contradicts itself or does not end at all has failed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

_LAST_LINE = re.compile(
    r"torture: (?P<name>\S+) seed=(?P<seed>\d+) (rounds=\d+|minutes=\d+(\.\d+)?) "
    r"failures=(?P<failures>\d+) seconds=\d+(\.\d+)?"
)
_PART_TIMEOUT_S = 4 * 3600.0


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: in its last line, and to choose it by.
        module: run as `python -m`.
        options: always given to it.
        rounds: how many unless somebody says otherwise; None where it has none.
        minutes: how long unless somebody says otherwise; None where it has rounds.
    """

    name: str
    module: str
    options: tuple[str, ...] = ()
    rounds: int | None = None
    minutes: float | None = None

    def command(self, seed: int, rounds: int | None, minutes: float | None = None) -> list[str]:
        """Return what to run."""
        size: list[str] = []
        if self.rounds is not None:
            size = ["--rounds", str(rounds or self.rounds)]
        elif self.minutes is not None:
            size = ["--minutes", f"{minutes or self.minutes:g}"]
        return [sys.executable, "-m", self.module, "--seed", str(seed), *size, *self.options]


PARTS = (
    Part("kills", "tests.e2e.kill", rounds=100),
    Part("power", "tests.e2e.kill", ("--power",), rounds=100),
    Part("relaxed", "tests.e2e.kill", ("--relaxed",), rounds=10),
    Part("disk", "tests.e2e.power", rounds=100),
    Part("damage", "tests.e2e.damage", rounds=100),
    Part("cluster-kill", "tests.cluster.proof", ("--part", "kill"), rounds=20),
    Part("cluster-term", "tests.cluster.proof", ("--part", "term"), rounds=10),
    Part("cluster-power", "tests.cluster.proof", ("--part", "power"), rounds=20),
    Part("cluster-etcd", "tests.cluster.proof", ("--part", "etcd"), rounds=1),
    Part("cluster-groups", "tests.cluster.group_chaos", minutes=2),
    Part("hostile", "tests.e2e.hostile", minutes=10),
    Part("soak", "tests.e2e.soak", minutes=30),
)


def main(arguments: Sequence[str] | None = None, known: Sequence[Part] = PARTS) -> int:
    """Run the parts that are asked for; return the exit code."""
    names = ", ".join(part.name for part in known)
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.torture", description=__doc__)
    parser.add_argument("--parts", default="", help=f"some of {names}, with commas; default all")
    parser.add_argument("--rounds", type=int, help="of each part that has rounds")
    parser.add_argument("--minutes", type=float, help="of each part that has none")
    parser.add_argument("--seed", type=int, help="make the choices of an earlier run again")
    parser.add_argument("--part-timeout-s", type=float, default=_PART_TIMEOUT_S)
    options = parser.parse_args(arguments)
    asked = [name for name in options.parts.split(",") if name] or [part.name for part in known]
    by_name = {part.name: part for part in known}
    unknown = [name for name in asked if name not in by_name]
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}; the parts are {names}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}, expected 1 or more")
    if options.minutes is not None and options.minutes <= 0:
        parser.error(f"--minutes is {options.minutes:g}, expected more than 0")
    seed = options.seed or int.from_bytes(os.urandom(4))
    began_s = time.monotonic()
    failed: dict[str, str] = {}
    ran: list[str] = []
    try:
        for name in asked:
            command = by_name[name].command(seed, options.rounds, options.minutes)
            ran.append(name)
            why = verdict(name, *run(command, options.part_timeout_s))
            if why:
                failed[name] = why
                _say(f"{name} FAILED: {why}")
    except KeyboardInterrupt:
        failed[ran[-1]] = "interrupted"
    seconds = time.monotonic() - began_s
    _say(summary(asked, ran, failed, seed, seconds))
    return 1 if failed else 0


def verdict(name: str, last_line: str, exit_code: int | None) -> str:
    """Return why a part has failed, or "".

    Args:
        name: of the part.
        last_line: that it printed.
        exit_code: None where it had to be killed for taking too long.
    """
    if exit_code is None:
        return "did not end in time and was killed"
    told = _LAST_LINE.fullmatch(last_line)
    if told is None:
        return f"exit code {exit_code}, and no last line that begins with `torture: {name} `"
    if told["name"] != name:
        return f"its last line is of another part, {told['name']}"
    if int(told["failures"]):
        return f"{told['failures']} failures"
    if exit_code:
        return f"exit code {exit_code} without a failure in its last line"
    return ""


def summary(
    asked: Sequence[str], ran: Sequence[str], failed: dict[str, str], seed: int, seconds: float
) -> str:
    """Return the last line of everything."""
    results = [
        f"{name}={'not_run' if name not in ran else 'FAILED' if name in failed else 'ok'}"
        for name in asked
    ]
    return (
        f"torture: all seed={seed} {' '.join(results)} parts={len(ran)} failures={len(failed)} "
        f"seconds={seconds:.0f}"
    )


def run(command: Sequence[str], timeout_s: float) -> tuple[str, int | None]:
    """Run a command and pass on what it prints; return its last line and exit code.

    The exit code is None where it took too long, and it and all its children were killed.
    """
    _say(f"\n--- {' '.join(command[1:])}")
    last_line = [""]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    )
    reading = threading.Thread(target=_pass_on, args=(process.stdout, last_line))
    reading.start()
    try:
        exit_code: int | None = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        exit_code = None
    finally:
        # Also after an end in order: what it left behind would be in the way of the next part.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reading.join()
    return last_line[0], exit_code


def _pass_on(stream: IO[str] | None, last_line: list[str]) -> None:
    assert stream is not None
    with stream:
        for line in stream:
            sys.stdout.write(line)
            sys.stdout.flush()
            if line.strip():
                last_line[0] = line.rstrip("\n")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
