"""How fast a member of a group reads, through the leader and through a broker that leads nothing.

    .venv/bin/python -m tests.bench.groups --part throughput [--records N] [--rounds N]

Two brokers, of which the first leads all partitions. Each way of reading has its turn in each round; ratios
are to the same reader, on stubs or the client, that reads alone from the leader in the same round.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import grpc

from riverrun.v1.consumer_pb2 import CommitOffsetRequest, OffsetCommit
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from tests.bench.riverrun_side import run
from tests.cluster.processes import ClusterProcesses

PARTITIONS = 12
RECORD_BYTES = 100
ENVIRON = {"RIVERRUN_TOPIC_DEFAULTS_REPLICATION_FACTOR": "1"}
ALONE, ALONE_ELSEWHERE = "alone, from the leader", "alone, through a broker that leads nothing"
MEMBER, MEMBER_ELSEWHERE = "a member, at the leader", "a member, at a broker that leads nothing"
CLIENT, CLIENT_DIRECT = "the client alone", "the client as a member that reads from leaders"
# Each with the one that it is compared with.
_WAYS = {
    ALONE: ALONE,
    ALONE_ELSEWHERE: ALONE,
    MEMBER: ALONE,
    MEMBER_ELSEWHERE: ALONE,
    CLIENT: CLIENT,
    CLIENT_DIRECT: CLIENT,
}
# What each is to reach of that.
ASKED = {MEMBER_ELSEWHERE: 0.5, CLIENT_DIRECT: 0.9}
_FROM_THE_LEADER, _MEMBERS = {ALONE, MEMBER}, {MEMBER, MEMBER_ELSEWHERE, CLIENT_DIRECT}
_TIMEOUT_S = 300.0


def measure(cluster: ClusterProcesses, records: int, rounds: int) -> dict[str, list[float]]:
    """Return records a second of each way, a round each; the first round is left out.

    Args:
        cluster: of one broker, which gets a second one when everything has its leader.
        records: in the topic.
        rounds: that count.
    """
    topic = "read"
    leader = cluster.brokers[1].address
    run(leader, "topic", "create", topic, "--partitions", str(PARTITIONS))
    _make_the_offsets_topic(leader, topic)
    size = ("--record-size", str(RECORD_BYTES))
    run(leader, "perf", "produce", topic, "--records", str(records), *size)
    other = cluster.add(2)
    other.start()
    rates: dict[str, list[float]] = {way: [] for way in _WAYS}
    for number in range(rounds + 1):
        for place, way in enumerate(_WAYS):
            address = leader if way in _FROM_THE_LEADER else other.address
            group = f"{number}-{place}" if way in _MEMBERS else ""
            rate = _read(address, topic, group, records, by_client=_WAYS[way] == CLIENT)
            print(f"round {number}, {way}: {rate:,.0f} records/s", flush=True)
            if number:
                rates[way].append(rate)
    return rates


def lines(rates: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Yield a table: medians, and the median of the ratios within rounds."""
    for way, each in rates.items():
        yield f"{way:45} {statistics.median(each):12,.0f} records/s {ratio(rates, way):6.2f}"


def ratio(rates: Mapping[str, Sequence[float]], way: str) -> float:
    """Return the median of the ratios to the same reader, alone, in the same round."""
    pairs = zip(rates[way], rates[_WAYS[way]], strict=True)
    return statistics.median(one / other for one, other in pairs)


def complaints(rates: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Yield what is slower than it is asked to be."""
    for way, asked in ASKED.items():
        if (found := ratio(rates, way)) < asked:
            yield f"{way}: {found:.2f} of the same reader alone, {asked} is asked"


def _read(address: str, topic: str, group: str, records: int, *, by_client: bool) -> float:
    command = [
        *(sys.executable, "-m", "tests.bench.group_reader", "--address", address),
        *("--topic", topic, "--group", group, "--records", str(records)),
        *(["--client"] if by_client else []),
    ]
    told = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S, cwd=Path.cwd()
    )
    return float(told.stdout)


def _make_the_offsets_topic(address: str, topic: str) -> None:
    """Have it made while there is only one broker that can lead it."""
    with grpc.insecure_channel(address) as channel:
        commit = OffsetCommit(topic=topic, partition=0, offset=0)
        request = CommitOffsetRequest(group_id="first", offsets=[commit])
        ConsumerServiceStub(channel).CommitOffset(request)
