"""Random damage for as long as you like: `python -m tests.e2e.damage --rounds 100`, a part of `make torture`.

Each round takes a copy of a broker's data directory, killed or stopped in order, damages one or two
of its files in any way, and goes after every promise. A round that fails leaves its folder behind.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.damage.examination import Examination, Report
from tests.e2e.damage.kinds import anywhere
from tests.e2e.damage.site import LARGE_BYTES, Site, copied, killed, stopped

# A quarter of the rounds has damage in two places.
_TWICE = 0.25


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, check, tell; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.damage", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="how often to damage something")
    parser.add_argument("--seed", type=int, help="make the choices of an earlier run again")
    parser.add_argument("--folder", type=Path, default=Path("data/torture"), help="for its data")
    options = parser.parse_args(arguments)
    seed = options.seed or int.from_bytes(os.urandom(4))
    folder = options.folder / f"damage-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began_s = time.monotonic()
    dice = random.Random(seed)
    sites = {
        "stopped": stopped(folder / "stopped", seed),
        "killed": killed(folder / "killed", seed),
        "several": killed(folder / "several", seed, large_bytes=LARGE_BYTES),
    }
    came_of: Counter[str] = Counter()
    failures = 0
    for number in range(1, options.rounds + 1):
        name = dice.choice(sorted(sites))
        report, told = _round(folder / str(number), sites, name, dice)
        sys.stdout.write(f"{number} {name}, {told}: {report}\n")
        for failure in report.failures:
            sys.stdout.write(f"  FAILED: {failure[:500]}\n")
        failures += bool(report.failures)
        came_of[_outcome(report)] += 1
        sys.stdout.flush()
    sys.stdout.write(" ".join(f"{what}={n}" for what, n in sorted(came_of.items())) + "\n")
    if not failures:
        shutil.rmtree(folder)
    seconds = time.monotonic() - began_s
    sys.stdout.write(
        f"torture: damage seed={seed} rounds={options.rounds} failures={failures} "
        f"seconds={seconds:.0f}\n"
    )
    return 1 if failures else 0


def _round(
    folder: Path, sites: dict[str, Site], name: str, dice: random.Random
) -> tuple[Report, str]:
    folder.mkdir()
    data_dir = copied(sites[name], folder)
    # The same broker at another time; what comes back from there is an older copy of a file.
    older = sites["stopped" if name != "stopped" else "killed"].broker.data_dir
    told = [anywhere(data_dir, older, dice)]
    if dice.random() < _TWICE:
        told.append(anywhere(data_dir, older, dice))
    seed = dice.getrandbits(32)
    examination = Examination(sites[name].told.copy(), folder, unclean=name != "stopped", seed=seed)
    report = examination.run()
    if report.failures:
        (folder / "broker.log").write_text(examination.broker.logs())
        (folder / "damage.txt").write_text(f"{told}\n{report}\n" + "\n".join(report.failures))
    else:
        shutil.rmtree(folder)
    return report, " and ".join(told)


def _outcome(report: Report) -> str:
    if report.failures:
        return "failed"
    if report.refused:
        return "refused"
    return "loss_told" if report.loss else "some_offline" if report.offline else "nothing_lost"


if __name__ == "__main__":
    sys.exit(main())
