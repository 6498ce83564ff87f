"""Groups with a thousand members, and thousands of groups: how soon all is settled, and what it takes.

    .venv/bin/python -m tests.bench.groups --part members [--members 1000] [--partitions 1000]
    .venv/bin/python -m tests.bench.groups --part groups [--groups 10000]

Members are streams for membership alone, of a few processes, through all three brokers.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

import riverrun
from riverrun.v1.consumer_pb2 import CommitOffsetRequest, OffsetCommit
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.group_pb2 import GROUP_STATE_STABLE, ListGroupsRequest
from riverrun.v1.group_pb2_grpc import GroupServiceStub
from tests.cluster.processes import ClusterProcesses
from tests.cluster.proof.members import members_of

CROWDS = 4
_LOOK_S = 0.05
_SETTLE_S = 120.0
_QUIET_S = 5.0
_TOPIC, _GROUP = "many", "crowd"
# Enough for every stream at two of three brokers, and for every partition.
ENVIRON = {
    "RIVERRUN_LIMITS_MAX_STREAMS_PER_PRINCIPAL": "50000",
    "RIVERRUN_STORAGE_SLOTS": "512",
    "RIVERRUN_TOPIC_DEFAULTS_REPLICATION_FACTOR": "3",
}


class Crowd:
    """A process of many members, which does what it is told."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def ask(self, command: str) -> float:
        """Have it do something; return what it answers.

        Raises:
            AssertionError: it has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        answer = await self._process.stdout.readline()
        assert answer, f"a crowd has ended instead of answering {command!r}"
        return float(answer)


@asynccontextmanager
async def crowds(bootstrap: str, count: int, *options: str) -> AsyncIterator[list[Crowd]]:
    """Start processes for members at some brokers, and end them."""
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.group_crowd", "--bootstrap", bootstrap),
            *("--first", str(number * 1_000_000), "--group", _GROUP, "--topic", _TOPIC),
            *options,
            stdin=PIPE,
            stdout=PIPE,
        )
        for number in range(count)
    ]
    try:
        yield [Crowd(process) for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def members(cluster: ClusterProcesses, members: int, partitions: int) -> list[str]:
    """Print how one large group takes newcomers; return what took too long."""
    found: list[str] = []
    half = members // 2 // CROWDS
    async with (
        _topic(cluster, partitions),
        crowds(cluster.bootstrap, CROWDS + 1) as (last, *others),
    ):
        await asyncio.sleep(_QUIET_S)
        before = memory(cluster)
        for count in (half, members // CROWDS - half):
            began_s = time.monotonic()
            await asyncio.gather(*(each.ask(f"join {count}") for each in others))
            settled_s = await _settled(cluster) - began_s
            print(
                f"{count * CROWDS} members come at once: settled after {settled_s:.2f} s",
                flush=True,
            )
            if count == half:
                found += await _one_more(cluster, last, count * CROWDS)
        counts = [await each.ask("count") for each in (last, *others)]
        assert sum(counts) == partitions, counts
        await asyncio.sleep(_QUIET_S)
        _tell_memory(before, memory(cluster), members + 1, "member")
        found += await _one_more(cluster, last, members + 1)
    return found


async def _one_more(cluster: ClusterProcesses, last: Crowd, there: int) -> list[str]:
    began_s = time.monotonic()
    await last.ask("join 1")
    told_s = time.monotonic() - began_s
    seconds = await _settled(cluster) - began_s
    print(
        f"one more to {there} members: told after {told_s:.2f} s, everybody settled after {seconds:.2f} s",
        flush=True,
    )
    return [f"one more member: {seconds:.2f} s, at most 5 s are allowed"] if seconds > 5 else []


async def groups(cluster: ClusterProcesses, count: int) -> list[str]:
    """Print how many groups of one member each bear the death of a coordinator; return what took too long.

    The members' streams are at the other brokers: what is measured is how soon others coordinate their groups.
    """
    dies = max(cluster.brokers)
    broker = cluster.brokers[dies]
    stay = ",".join(each.address for number, each in cluster.brokers.items() if number != dies)
    async with _topic(cluster, 1), crowds(stay, CROWDS, "--apart") as those:
        await asyncio.sleep(_QUIET_S)
        before = memory(cluster)
        began_s = time.monotonic()
        await asyncio.gather(*(each.ask(f"join {count // CROWDS}") for each in those))
        print(f"{count} groups came within {time.monotonic() - began_s:.1f} s", flush=True)
        await asyncio.sleep(_QUIET_S)
        _tell_memory(before, memory(cluster), count, "group of one member")
        kept = sum(await asyncio.gather(*(each.ask(f"keep {dies}") for each in those)))
        killed_s = time.monotonic()
        os.kill(broker.pid, signal.SIGKILL)
        alive_s = [
            at_s - killed_s
            for at_s in await asyncio.gather(*(each.ask(f"alive {killed_s}") for each in those))
        ]
        await asyncio.to_thread(broker.kill9)
    print(
        f"a broker of three is killed that coordinates {kept:.0f} of {count} groups: each of their members "
        f"was heard of by another coordinator after at most {max(alive_s):.2f} s",
        flush=True,
    )
    return [f"served again after {max(alive_s):.2f} s, 5 s are allowed"] if max(alive_s) > 5 else []


@asynccontextmanager
async def _topic(cluster: ClusterProcesses, partitions: int) -> AsyncIterator[None]:
    """Make what members read, and the offsets topic, which the first commit makes."""
    async with members_of(cluster) as brokers, riverrun.Client(cluster.bootstrap) as client:
        await client.admin().create_topic(_TOPIC, partitions=partitions, replication_factor=1)
        await brokers.whole(_TOPIC)
        async with grpc.aio.insecure_channel(cluster.brokers[1].address) as channel:
            commit = OffsetCommit(topic=_TOPIC, partition=0, offset=0)
            await ConsumerServiceStub(channel).CommitOffset(
                CommitOffsetRequest(group_id="first", offsets=[commit])
            )
        yield


async def _settled(cluster: ClusterProcesses) -> float:
    """Wait until the group is stable; return when that was seen.

    Raises:
        AssertionError: it takes longer than two minutes.
    """
    until_s = time.monotonic() + _SETTLE_S
    async with grpc.aio.insecure_channel(cluster.brokers[1].address) as channel:
        stub = GroupServiceStub(channel)
        while time.monotonic() < until_s:
            told = await stub.ListGroups(ListGroupsRequest(page_size=1000))
            states = {each.group_id: each.state for each in told.groups}
            if states.get(_GROUP) == GROUP_STATE_STABLE:
                return time.monotonic()
            await asyncio.sleep(_LOOK_S)
    raise AssertionError(f"the group does not settle in {_SETTLE_S} s: {states}")


def memory(cluster: ClusterProcesses) -> dict[int, int]:
    """Return the bytes that each broker holds."""
    held = {}
    for number, broker in cluster.brokers.items():
        status = Path(f"/proc/{broker.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None, status
        held[number] = int(found[1]) * 1024
    return held


def _tell_memory(
    before: Mapping[int, int], after: Mapping[int, int], count: int, what: str
) -> None:
    more = sum(after.values()) - sum(before.values())
    brokers = ", ".join(
        f"{after[each] / 1e6:.0f} MB (was {before[each] / 1e6:.0f})" for each in after
    )
    print(f"memory of the brokers: {brokers}: {more / count / 1000:.1f} KB a {what}", flush=True)
