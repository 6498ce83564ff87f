"""A broker under everyday load for as long as you like: `python -m tests.e2e.soak --minutes 30`.

Something of everything happens at a fixed rate while retention deletes behind it. In the end nothing may
be lost, the broker may have logged no warning, and nothing may grow. The charts and the samples are left
in the folder; a run that fails leaves the broker's data and log too. The last line says what ran and what
failed.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import os
import shutil
import sys
import time
import traceback
from pathlib import Path

from tests.e2e.soak.judge import TRENDS_FROM_S, judge, verdicts
from tests.e2e.soak.plot import draw
from tests.e2e.soak.rig import Rig
from tests.e2e.soak.samples import Sample
from tests.e2e.soak.world import World

_TELL_EVERY_S = 30.0


def main() -> int:
    """Run, judge, tell; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long [30]")
    parser.add_argument("--seed", type=int, help="make the choices of an earlier run again")
    parser.add_argument("--folder", type=Path, default=Path("data/soak"), help="for its data")
    parser.add_argument("--plot", type=Path, help="also write the charts to this file")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4))
    folder = options.folder / str(seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # What the library warns of comes out on standard error.
    logging.basicConfig(level=logging.WARNING)
    sys.stdout.write(f"seed {seed}, {options.minutes:g} minutes, in {folder}\n")
    sys.stdout.flush()
    began_s = time.monotonic()
    rig = Rig(folder, seed)
    failures = _run(rig, 60 * options.minutes)
    if rig.samples:
        failures += verdicts(rig.samples)
        _leave(rig.samples, folder, options.plot, f"{options.minutes:g} minutes, seed {seed}")
    if failures:
        (folder / "broker.log").write_text(rig.broker.logs())
    else:
        shutil.rmtree(rig.broker.data_dir)
    for line in failures:
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(
        f"torture: soak seed={seed} minutes={options.minutes:g} failures={len(failures)} "
        f"seconds={time.monotonic() - began_s:.0f}\n"
    )
    return 1 if failures else 0


def _run(rig: Rig, seconds: float) -> list[str]:
    """Return what went wrong beside what the samples say."""
    told_s = 0.0

    def tell(sample: Sample, world: World) -> None:
        nonlocal told_s
        if sample.at_s - told_s >= _TELL_EVERY_S:
            told_s = sample.at_s
            sys.stderr.write(f"{progress(sample, world)}\n")
            sys.stderr.flush()

    try:
        world = asyncio.run(rig.run(seconds, tell))
    except Exception as error:
        return traceback.format_exception(error)
    finally:
        rig.broker.stop()
    for what, count in sorted(world.done.items()):
        sys.stdout.write(f"{count:,} {what}\n")
    sys.stdout.write(f"{world.ledger.acknowledged:,} records acknowledged\n")
    if rig.late_ms:
        worst = f"by {max(rig.late_ms)} ms at the most"
        sys.stdout.write(f"the broker's event loop was late {len(rig.late_ms)} times, {worst}\n")
    return world.failures


def progress(sample: Sample, world: World) -> str:
    """Return one line on how things are."""
    return (
        f"{sample.at_s:6.0f} s: {sample.rss_mib:.0f} MiB, {sample.handles:.0f} handles, "
        f"{sample.disk_mib:.0f} MiB on disk in {sample.tables:.0f} tables, "
        f"p50 {sample.p50_ms or 0:.1f} ms, p99 {sample.p99_ms or 0:.1f} ms, "
        f"cpu {sample.cpu:.2f}, clients {sample.load_rss_mib:.0f} MiB, cpu {sample.load_cpu:.2f}, "
        f"the machine stalled for {sample.stall_worst_ms or 0:.0f} ms, "
        f"{world.ledger.acknowledged:,} acknowledged"
    )


def _leave(samples: list[Sample], folder: Path, plot: Path | None, title: str) -> None:
    """Write samples and charts, and tell the trends."""
    with (folder / "samples.jsonl").open("w") as file:
        for sample in samples:
            file.write(json.dumps(dataclasses.asdict(sample)) + "\n")
    charts = draw(samples, f"A broker under mixed load: {title}")
    for path in filter(None, (folder / "soak.svg", plot)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(charts)
        sys.stdout.write(f"charts: {path}\n")
    if samples[-1].at_s < TRENDS_FROM_S:
        sys.stdout.write(f"trends are judged from {TRENDS_FROM_S / 60:g} minutes on\n")
        return
    for trend in judge(samples).trends:
        sys.stdout.write(f"{trend}\n")


if __name__ == "__main__":
    sys.exit(main())
