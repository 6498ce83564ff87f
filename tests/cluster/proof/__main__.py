"""A cluster of real processes, hurt for as long as you like: `python -m tests.cluster.proof --part kill`.

Parts of `make torture`: leaders are killed, or told to end, under load; the power of all brokers
goes at once; etcd is away. The last line says what ran and what failed.
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
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from tests.cluster.processes import ClusterProcesses
from tests.cluster.proof.crashes import Findings, kill_rounds, spread, term_rounds
from tests.cluster.proof.cuts import Mains, power_rounds
from tests.cluster.proof.lines import lines_through_a_kill
from tests.cluster.proof.members import logged
from tests.cluster.proof.outage import outage, outage_and_death
from tests.e2e.kill.anomalies import Kind as Broken

LINES = 200_000
RATE = 20_000
# What is asked of these is not speed.
POWER_RATE = 5_000
OUTAGE_RATE = 2_000
_RELAXED = {"fsync": "relaxed", "unclean.recovery": "accept"}
# Long enough that whatever was answered last is on no disk when the power goes.
_RELAXED_SYNC_MS = 200.0
_LOSSES = tuple(kind.name for kind in (Broken.LOST, Broken.INCONSISTENT, Broken.VANISHED))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, check, tell; return the exit code."""
    options = _arguments(arguments)
    seed = options.seed or int.from_bytes(os.urandom(4))
    # The client says that connections break; that is what this is about.
    logging.getLogger("riverrun").setLevel(logging.ERROR)
    part = f"cluster-{options.part}"
    folder = options.folder / f"{part}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _say(f"seed {seed}, {options.rounds} rounds, in {folder}")
    began_s = time.monotonic()
    failures: list[str] = []
    mains = None
    if options.part == "power":
        mains = Mains(folder, **({"sync_ms": _RELAXED_SYNC_MS} if options.relaxed else {}))
    cluster = mains.cluster if mains else ClusterProcesses(folder)
    try:
        cluster.start()
        run = _power(mains, options) if mains else _PARTS[options.part](cluster, options)
        failures = asyncio.run(run(seed)) + ([] if options.relaxed else logged(cluster))
    except Exception as error:
        failures = traceback.format_exception(error)
    finally:
        cluster.stop()
    if failures:
        (folder / "brokers.log").write_text(cluster.logs())
        failures.append(f"everything is in {folder}")
    else:
        shutil.rmtree(folder)
    for line in failures:
        _say(line)
    seconds = time.monotonic() - began_s
    sys.stdout.write(
        f"torture: {part} seed={seed} rounds={options.rounds} failures={len(failures)} "
        f"seconds={seconds:.0f}\n"
    )
    return 1 if failures else 0


Run = Callable[[int], Coroutine[Any, Any, list[str]]]


def _kill(cluster: ClusterProcesses, options: argparse.Namespace) -> Run:
    async def run(seed: int) -> list[str]:
        found = await kill_rounds(cluster, options.rounds, seed, options.rate or RATE)
        _tell(found)
        _say(spread("from the kill of a leader to its partition's next produce", found.silences_s))
        _say(f"kills of the controller: {found.controllers}")
        lines = await lines_through_a_kill(cluster, "lines", options.lines)
        _say(f"{options.lines} lines through a kill: {'; '.join(lines) or 'each once, in order'}")
        return found.failures + lines

    return run


def _term(cluster: ClusterProcesses, options: argparse.Namespace) -> Run:
    async def run(seed: int) -> list[str]:
        found = await term_rounds(cluster, options.rounds, seed, options.rate or RATE)
        _tell(found)
        _say(spread("longest time without an acknowledgement as a leader ends", found.gaps_s))
        _say(spread("longest time without an acknowledgement as it comes back", found.gaps_back_s))
        return found.failures

    return run


def _power(mains: Mains, options: argparse.Namespace) -> Run:
    async def run(seed: int) -> list[str]:
        configs = _RELAXED if options.relaxed else None
        rate = options.rate or POWER_RATE
        found = await power_rounds(mains, options.rounds, seed, rate, configs=configs)
        _tell(found)
        _say(spread("from the power cut to a partition's next produce", found.silences_s))
        biting = sum(1 for lost in mains.lost if lost)
        _say(
            f"power cuts: {len(mains.lost)}, of which {biting} took {sum(mains.lost)} bytes of logs"
        )
        return _nothing_lost(found.failures) if options.relaxed else found.failures

    return run


def _etcd(cluster: ClusterProcesses, options: argparse.Namespace) -> Run:
    async def run(seed: int) -> list[str]:
        rate = options.rate or OUTAGE_RATE
        failures: list[str] = []
        for number in range(1, options.rounds + 1):
            for name, what in (("alone", outage), ("and a broker dies", outage_and_death)):
                lines, found = await what(cluster, f"{number}", seed, rate, options.outage_s)
                _say(f"etcd away for {options.outage_s:g} s, {name}:")
                for line in lines:
                    _say(f"  {line}")
                _tell(found)
                failures += found.failures
        return failures

    return run


_PARTS = {"kill": _kill, "term": _term, "etcd": _etcd}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.proof", description=__doc__)
    parser.add_argument("--part", choices=[*_PARTS, "power"], required=True)
    parser.add_argument("--rounds", type=int, default=20, help="how often that is done")
    parser.add_argument("--seed", type=int, help="make the choices of an earlier run again")
    parser.add_argument("--rate", type=int, help="records a second of the producer")
    parser.add_argument("--lines", type=int, default=LINES, help="through a kill, of part kill")
    parser.add_argument("--outage-s", type=float, default=60.0, help="of part etcd")
    parser.add_argument(
        "--relaxed",
        action="store_true",
        help="part power with syncs off: it fails unless data is lost and that is found",
    )
    parser.add_argument("--folder", type=Path, default=Path("data/torture"), help="for its data")
    return parser.parse_args(arguments)


def _nothing_lost(failures: Sequence[str]) -> list[str]:
    """Return that nothing was lost, or that it was not found."""
    found = [line for line in failures if any(f" {kind} (" in line for kind in _LOSSES)]
    for line in found[:5]:
        _say(f"found, as it should be: {line}")
    return [] if found else [*failures, "nothing was lost, so that this run proves nothing"]


def _tell(found: Findings) -> None:
    _say(spread("from a broker's start to all replicas in sync", found.back_s))
    rates = ", ".join(f"{rate:.0f}" for rate in found.rates)
    _say(f"records a second: {rates}; {found.retries} batches of {found.batches} sent again")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
