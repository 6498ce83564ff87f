"""A group whose members and brokers are killed and paused: `python -m tests.cluster.group_chaos --minutes 10`.

Part of `make torture`. Real brokers, members on nothing but generated stubs, a producer at a fixed rate.
What everybody has written down is judged afterwards. The last line says what ran and what failed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.group_chaos.faults import Done
from tests.cluster.group_chaos.run import MEMBERS, PARTITIONS, Findings, Shape, chaos
from tests.cluster.processes import ClusterProcesses
from tests.cluster.proof.members import logged

RATE = 1_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, check, tell; return the exit code."""
    options = _arguments(arguments)
    seed = options.seed or int.from_bytes(os.urandom(4))
    # The client says that connections break; that is what this is about.
    logging.getLogger("riverrun").setLevel(logging.ERROR)
    part = "cluster-groups"
    folder = options.folder / f"{part}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _say(f"seed {seed}, {options.minutes:g} minutes, in {folder}")
    began_s = time.monotonic()
    failures: list[str] = []
    cluster = ClusterProcesses(folder)
    shape = Shape(options.minutes * 60, options.rate, options.members, options.partitions)
    try:
        cluster.start()
        found = asyncio.run(chaos(cluster, folder, "chaos", shape, seed))
        _tell(found, options.minutes)
        (folder / "faults.log").write_text("\n".join(map(_line, found.faults)))
        failures = found.anomalies + logged(cluster)
    except Exception as error:
        failures = traceback.format_exception(error)
    finally:
        cluster.stop()
    if failures or options.keep:
        (folder / "brokers.log").write_text(cluster.logs())
    if failures:
        failures.append(f"everything is in {folder}")
    elif not options.keep:
        shutil.rmtree(folder)
    for line in failures:
        _say(line)
    seconds = time.monotonic() - began_s
    sys.stdout.write(
        f"torture: {part} seed={seed} minutes={options.minutes:g} failures={len(failures)} "
        f"seconds={seconds:.0f}\n"
    )
    return 1 if failures else 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster.group_chaos", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="for how long it is hurt")
    parser.add_argument("--seed", type=int, help="make the choices of an earlier run again")
    parser.add_argument("--rate", type=int, default=RATE, help="records a second")
    parser.add_argument("--members", type=int, default=MEMBERS)
    parser.add_argument("--partitions", type=int, default=PARTITIONS)
    parser.add_argument("--keep", action="store_true", help="its data, where nothing fails, too")
    parser.add_argument("--folder", type=Path, default=Path("data/torture"), help="for its data")
    return parser.parse_args(arguments)


def _tell(found: Findings, minutes: float) -> None:
    acknowledged, worked_on = found.records
    counts = Counter(each.fault.value for each in found.faults)
    done = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    _say(f"done: {done}")
    seconds, partition, from_s = found.silence
    _say(
        f"records: {acknowledged} acknowledged, worked on {worked_on} times; everything committed "
        f"{found.finished_s:.1f} s after the last fault"
    )
    _say(f"longest silence: {seconds:.1f} s, of partition {partition} from {from_s:.1f} on")
    _say(f"minutes={minutes:g} faults={len(found.faults)} anomalies={len(found.anomalies)}")


def _line(done: Done) -> str:
    return f"{done.at_s:.3f} {done.fault.value}: {done.whom}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
