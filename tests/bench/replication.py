"""What replication costs: three brokers, topics of one replica and of three, in turn, with acks=all.

    .venv/bin/python -m tests.bench.replication [--rounds N] [--records N] [--json FILE]

One etcd and three brokers on this machine, one client (`riverrun perf`). In each round each topic is
written and read once, in turn, so that whatever else the machine does meets all of them; each figure is
the median of the rounds, after one that does not count, and a ratio is to the topic of one replica in the
same round. Three replicas on one disk are written three times by it: what a cluster of machines would
take the disk of each for, this one has for all of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.riverrun_side import run
from tests.cluster.processes import ClusterProcesses

RECORD_BYTES = 100
RATE = 1_000


@dataclass(frozen=True, slots=True)
class Topic:
    """What is written to."""

    name: str
    partitions: int
    replicas: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn gave: records a second, and latencies of acknowledgements in ms at a low rate."""

    produced_per_s: float
    read_per_s: float
    ack_p50_ms: float
    ack_p99_ms: float


TOPICS = [
    Topic(f"{partitions}-{replicas}", partitions, replicas)
    for partitions in (1, 12)
    for replicas in (1, 3)
]


def take_turn(bootstrap: str, topic: Topic, records: int) -> Turn:
    """Write and read so many records, then time acknowledgements."""
    size = ("--record-size", str(RECORD_BYTES))
    wrote = perf(bootstrap, "produce", topic.name, "--records", str(records), *size)
    read = perf(bootstrap, "consume", topic.name, "--records", str(records))
    pace = ("--rate", str(RATE), "--seconds", "5", "--warm-up", "1")
    timed = perf(bootstrap, "latency", topic.name, *pace, *size)["ack_latency_ms"]
    return Turn(wrote["records_per_s"], read["records_per_s"], timed["p50"], timed["p99"])


def perf(bootstrap: str, *arguments: str) -> Any:
    """Run a measurement of the command line; return its figures."""
    return json.loads(run(bootstrap, "perf", *arguments).splitlines()[-1])


def measure(rounds: int, records: int) -> dict[str, list[Turn]]:
    """Return the turns of each topic, those of the first round left out."""
    turns: dict[str, list[Turn]] = {topic.name: [] for topic in TOPICS}
    folder = Path(tempfile.mkdtemp(prefix="replication-"))
    cluster = ClusterProcesses(folder)
    try:
        cluster.start()
        for topic in TOPICS:
            shape = ("--partitions", topic.partitions, "--replication-factor", topic.replicas)
            run(cluster.bootstrap, "topic", "create", topic.name, *map(str, shape))
        for number in range(rounds + 1):
            for topic in TOPICS:
                turn = take_turn(cluster.bootstrap, topic, records)
                print(f"round {number}, {topic.name}: {turn}", flush=True)
                if number:
                    turns[topic.name].append(turn)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return turns


def lines(turns: dict[str, list[Turn]]) -> Iterator[str]:
    """Return a table for people: medians, and the median of the ratios within rounds."""
    yield "partitions  replicas  produced/s  ratio  read/s      ratio  ack p50, p99 ms"
    for topic in TOPICS:
        alone = turns[f"{topic.partitions}-1"]
        mine = turns[topic.name]
        produced, read, p50, p99 = (
            statistics.median(getattr(turn, name) for turn in mine)
            for name in ("produced_per_s", "read_per_s", "ack_p50_ms", "ack_p99_ms")
        )
        ratios = [_ratio(mine, alone, name) for name in ("produced_per_s", "read_per_s")]
        yield (
            f"{topic.partitions:10}  {topic.replicas:8}  {produced:10,.0f}  {ratios[0]:5.2f}  "
            f"{read:10,.0f}  {ratios[1]:5.2f}  {p50:.1f}, {p99:.1f}"
        )


def _ratio(mine: Sequence[Turn], alone: Sequence[Turn], name: str) -> float:
    pairs = zip(mine, alone, strict=True)
    return statistics.median(getattr(one, name) / getattr(other, name) for one, other in pairs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    turns = measure(options.rounds, options.records)
    print(*lines(turns), sep="\n")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        rows = {name: [asdict(turn) for turn in each] for name, each in turns.items()}
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
