"""What groups of consumers cost and how they bear faults, on brokers of this machine.

    .venv/bin/python -m tests.bench.groups --part failover

Each part prints what it measured, and says what of that is more than it should be; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.bench import groups_failover, groups_scale, groups_throughput
from tests.cluster.processes import ClusterProcesses


@contextlib.contextmanager
def cluster_in(
    folder: Path, environ: Mapping[str, str] | None = None, brokers: int = 3
) -> Iterator[ClusterProcesses]:
    """Run an etcd and some brokers with more variables."""
    cluster = ClusterProcesses(folder, brokers=brokers, environ=lambda _: environ or {})
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def failover(folder: Path, options: argparse.Namespace) -> bool:
    """Measure a group under load without faults, then with them; return whether nothing is wrong."""
    runs = []
    for name, hurt in (("calm", False), ("hurt", True)):
        place = folder / name
        place.mkdir()
        with cluster_in(place) as cluster:
            runs.append(
                asyncio.run(
                    groups_failover.run(
                        cluster, place, name, options.rate, options.phase_s, hurt=hurt
                    )
                )
            )
    calm, hurt = runs
    print(*groups_failover.lines(calm, hurt), sep="\n")
    return _good([*groups_failover.complaints(calm, hurt)])


def members(folder: Path, options: argparse.Namespace) -> bool:
    """Measure one large group; return whether it was fast enough."""
    with cluster_in(folder, groups_scale.ENVIRON) as cluster:
        return _good(
            asyncio.run(groups_scale.members(cluster, options.members, options.partitions))
        )


def groups(folder: Path, options: argparse.Namespace) -> bool:
    """Measure many groups; return whether they were served again soon enough."""
    with cluster_in(folder, groups_scale.ENVIRON) as cluster:
        return _good(asyncio.run(groups_scale.groups(cluster, options.groups)))


def throughput(folder: Path, options: argparse.Namespace) -> bool:
    """Measure how fast members read; return whether that is fast enough beside who reads alone."""
    with cluster_in(folder, groups_throughput.ENVIRON, brokers=1) as cluster:
        rates = groups_throughput.measure(cluster, options.records, options.rounds)
    print(*groups_throughput.lines(rates), sep="\n")
    return _good([*groups_throughput.complaints(rates)])


def _good(failures: Sequence[str]) -> bool:
    print(*failures, sep="\n", end="\n" if failures else "")
    return not failures


PARTS = {"failover": failover, "members": members, "groups": groups, "throughput": throughput}


def main() -> int:
    """Measure what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=[*PARTS], help="all of them where it is left out")
    parser.add_argument("--rate", type=int, default=20_000, help="records a second, of failover")
    parser.add_argument("--phase-s", type=float, default=10.0, help="of failover")
    parser.add_argument("--members", type=int, default=1_000, help="of members")
    parser.add_argument("--partitions", type=int, default=1_000, help="of members")
    parser.add_argument("--groups", type=int, default=10_000, help="of groups")
    parser.add_argument("--records", type=int, default=10_000_000, help="of throughput")
    parser.add_argument("--rounds", type=int, default=5, help="of throughput")
    options = parser.parse_args()
    # Millions of records are kept in the book: looking for cycles among them is a pause of the load.
    gc.disable()
    # The client says that connections break; that is what this is about.
    logging.getLogger("riverrun").setLevel(logging.ERROR)
    is_good = True
    for name in [options.part] if options.part else PARTS:
        folder = Path(tempfile.mkdtemp(prefix=f"groups-{name}-"))
        print(f"--- {name}", flush=True)
        try:
            is_good = PARTS[name](folder, options) and is_good
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
