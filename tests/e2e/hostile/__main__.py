"""Hostile clients for as long as you like: `python -m tests.e2e.hostile --minutes 10`.

Half of the time attacks follow one another, beside a client that does nothing wrong; the other half
requests are sent that are nearly right. The last line says what ran and what failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.e2e.hostile.attacks import ATTACKS, MIB
from tests.e2e.hostile.bending import bend, visible
from tests.e2e.hostile.broker_under_attack import AttackedBroker
from tests.e2e.hostile.judge import Judge
from tests.e2e.hostile.siege import Terms, lay_siege

# Beside three times as long as without the attack: one turn of a machine that does other things too.
_SLACK_MS = 100.0
_PATIENCE_MS = 10_000.0
# After a while the broker's memory has its shape; from then on it stays.
_WARM_SHARE = 0.3
_GROWTH_BYTES = 64 * MIB
# What `--only` calls the other half.
_BENT = "bent_requests"


def main() -> int:
    """Attack, judge, tell; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.hostile", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long, altogether")
    parser.add_argument("--seed", type=int, help="make the requests of an earlier run again")
    parser.add_argument("--connections", type=int, default=10_000, help="idle ones at a time")
    parts = [*sorted(ATTACKS), _BENT]
    parser.add_argument("--only", choices=parts, action="append", help="these alone")
    options = parser.parse_args()
    seed = options.seed or int.from_bytes(os.urandom(4))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    began = time.monotonic()
    wanted = options.only or parts
    names = [name for name in ATTACKS if name in wanted]
    halves = bool(names) + (_BENT in wanted)
    seconds, sent, failures = options.minutes * 60 / halves, 0, []
    if names:
        failures += _guarded(_siege(names, seconds / (2 * len(names)), options.connections))
    if _BENT in wanted:
        sent, more = asyncio.run(_bent(seed, seconds))
        failures += more
    for line in failures:
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(
        f"torture: hostile seed={seed} rounds={len(names) + sent} failures={len(failures)} "
        f"seconds={time.monotonic() - began:.0f}\n"
    )
    return 1 if failures else 0


def _guarded(siege) -> list[str]:
    try:
        return asyncio.run(siege)
    except Exception as error:
        return traceback.format_exception(error)


async def _siege(names: list[str], seconds_each: float, connections: int) -> list[str]:
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    terms = Terms(
        connections=connections,
        slower_at_most=3.0,
        slack_ms=_SLACK_MS,
        patience_ms=_PATIENCE_MS,
    )
    siege = await lay_siege(folder, names, seconds_each, terms)
    for line in siege.told:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    return siege.failures + _end(siege.broker, folder)


async def _bent(seed: int, seconds: float) -> tuple[int, list[str]]:
    folder, judge = Path(tempfile.mkdtemp(prefix="hostile-")), Judge()
    broker = AttackedBroker(folder)
    await asyncio.to_thread(broker.start)
    began, empty = time.monotonic(), broker.rss_bytes()
    try:
        warm = began + _WARM_SHARE * seconds
        sent = await bend(broker.address, seed, judge, lambda _: time.monotonic() > warm)
        before = broker.rss_bytes()
        end = began + seconds
        sent += await bend(broker.address, seed + 1, judge, lambda _: time.monotonic() > end)
        grown = broker.rss_bytes() - before
        failures = judge.complaints + [f"the log says: {line[:500]}" for line in broker.hurt()]
        failures += await visible(broker.address, judge.refused)
        if grown > _GROWTH_BYTES:
            failures.append(f"its memory grew by {grown / MIB:.0f} MiB in the second part")
    except Exception as error:
        return 0, [*judge.complaints, *traceback.format_exception(error), broker.logs()[-3000:]]
    sys.stdout.write(
        f"{sent} bent requests, {dict(judge.outcomes.most_common())}, {len(judge.refused)} values "
        f"refused for certain, memory {empty / MIB:.0f} MiB at the start, {before / MIB:.0f} once "
        f"warm, {grown / MIB:+.1f} at the end\n"
    )
    return sent, failures + _end(broker, folder)


def _end(broker: AttackedBroker, folder: Path) -> list[str]:
    """Shut the broker down in order; keep what it left where that fails."""
    try:
        code = broker.term()
    except AssertionError as error:
        return [str(error)[-3000:]]
    if code:
        return [f"it ended with {code}: {broker.logs()[-3000:]}"]
    shutil.rmtree(folder)
    return []


if __name__ == "__main__":
    sys.exit(main())
