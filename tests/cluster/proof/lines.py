"""Lines that the command line writes and reads while a leader is killed under it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterable
from pathlib import Path

import riverrun
from tests.cluster.processes import ClusterProcesses
from tests.cluster.proof.members import Members, members_of

PARTITIONS = 6
_COMMAND = Path(sys.executable).parent / "riverrun"
_PATIENCE_S = 180.0
_AT_ONCE = 1000


async def lines_through_a_kill(cluster: ClusterProcesses, topic: str, count: int) -> list[str]:
    """Write so many numbers, kill a leader half way, and return what is wrong with what was read.

    They are read twice: by one that was there before the kill, and by one that comes afterwards.
    """
    async with members_of(cluster) as members, riverrun.Client(cluster.bootstrap) as client:
        await client.admin().create_topic(topic, partitions=PARTITIONS, replication_factor=3)
        await members.whole(topic)
        meanwhile = asyncio.create_task(_consumed(cluster, topic, "--max", str(count)))
        try:
            failures = await _produced(cluster, members, topic, count)
            failures += wrong("read meanwhile", count, await meanwhile)
        finally:
            meanwhile.cancel()
        failures += wrong(
            "read afterwards", count, await _consumed(cluster, topic, "--exit-at-end")
        )
        await members.whole(topic)
    return failures


def wrong(who: str, count: int, read: Iterable[tuple[int, int]]) -> list[str]:
    """Return what is wrong with what was read, as partitions and numbers: each once, each in order."""
    newest: dict[int, int] = {}
    seen: set[int] = set()
    twice, behind = [], []
    for partition, number in read:
        if number in seen:
            twice.append(number)
        elif number < newest.get(partition, -1):
            behind.append(number)
        seen.add(number)
        newest[partition] = max(number, newest.get(partition, -1))
    missing = sorted(set(range(count)) - seen)
    foreign = sorted(seen - set(range(count)))
    return [
        f"{who}: {len(numbers)} lines {what}, such as {numbers[:3]}"
        for what, numbers in (
            ("are missing", missing),
            ("came twice", twice),
            ("stand behind later ones", behind),
            ("were never written", foreign),
        )
        if numbers
    ]


async def _run(cluster: ClusterProcesses, *arguments: str) -> Process:
    command = [str(_COMMAND), *arguments, "--bootstrap", cluster.bootstrap]
    return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)


async def _produced(
    cluster: ClusterProcesses, members: Members, topic: str, count: int
) -> list[str]:
    """Write the lines; when the command has half of them, kill who leads what it writes."""
    process = await _run(cluster, "produce", topic)
    ending = asyncio.create_task(_told(process))
    try:
        await _feed(process, range(count // 2))
        partitions = await members.partitions(topic)
        dead = max(partitions, key=lambda each: each.log_end_offset).leader
        broker = cluster.brokers[dead]
        os.kill(broker.pid, signal.SIGKILL)
        await asyncio.to_thread(broker.kill9)
        await _feed(process, range(count // 2, count))
        process.stdin.close()
        code, told = await asyncio.wait_for(ending, _PATIENCE_S)
    finally:
        _end(process)
        ending.cancel()
    await asyncio.to_thread(broker.restart)
    return [f"`riverrun produce` ended with {code}: {told}"] if code else []


async def _feed(process: Process, numbers: range) -> None:
    for start in range(numbers.start, numbers.stop, _AT_ONCE):
        some = range(start, min(start + _AT_ONCE, numbers.stop))
        process.stdin.write(b"".join(b"%d\n" % number for number in some))
        await process.stdin.drain()


async def _told(process: Process) -> tuple[int, str]:
    """Return how a command has ended, and what it said."""
    output, errors = await asyncio.gather(process.stdout.read(), process.stderr.read())
    return await process.wait(), (output + errors).decode(errors="replace")


async def _consumed(cluster: ClusterProcesses, topic: str, *until: str) -> list[tuple[int, int]]:
    """Return partitions and numbers, as the command has written them.

    Raises:
        AssertionError: it failed.
    """
    process = await _run(cluster, "consume", topic, "--format", "%p %s", *until)
    try:
        output, errors = await asyncio.wait_for(process.communicate(), _PATIENCE_S)
    except TimeoutError:
        raise AssertionError(f"`riverrun consume {' '.join(until)}` does not end") from None
    finally:
        _end(process)
    if process.returncode:
        raise AssertionError(
            f"`riverrun consume` ended with {process.returncode}: {errors.decode(errors='replace')}"
        )
    return [(int(p), int(number)) for p, number in map(bytes.split, output.splitlines())]


def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
