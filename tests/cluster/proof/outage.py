"""A cluster whose etcd is away for a while, under load: alone, and with a broker that dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import NamedTuple

from riverrun import PartitionDescription, RiverrunError
from tests.cluster.processes import ClusterProcesses
from tests.cluster.proof.crashes import Findings
from tests.cluster.proof.load import Load, under_load
from tests.cluster.proof.members import Members, members_of
from tests.e2e.kill.history import Killed
from tests.e2e.kill.world import PARTITIONS

# What goes on may pause for no longer.
PAUSE_MAX_S = 3.0
# A broker is fenced when its lease of 3 s ends; whoever would be fenced by mistake is so by then.
SETTLED_S = 8.0
_LOOK_S = 0.5
# What a broker's death has to do with a partition of two replicas.
_LED, _FOLLOWED, _APART = "led by it", "followed by it", "without it"


class Report(NamedTuple):
    """What was seen, in lines, and the rest."""

    lines: list[str]
    findings: Findings


async def outage(
    cluster: ClusterProcesses,
    name: str,
    seed: int,
    rate: int,
    down_s: float,
    *,
    settled_s: float = SETTLED_S,
    pause_max_s: float = PAUSE_MAX_S,
) -> Report:
    """Stop etcd: everything goes on, and nobody leaves the replicas in sync, then or afterwards."""
    report = Report([], Findings())
    now_s = asyncio.get_running_loop().time
    topic = f"outage-{name}"
    async with (
        members_of(cluster) as members,
        under_load(cluster, topic, seed, rate=rate) as load,
    ):
        await members.whole(topic)
        await load.goes_on()
        before = roles(await members.partitions(topic))
        began_s = now_s()
        await asyncio.to_thread(cluster.etcd.kill9)
        seen = await _watch(members, topic, down_s)
        await asyncio.to_thread(cluster.etcd.start)
        back_s = now_s()
        async with asyncio.TaskGroup() as tasks:
            # Only metadata that can be written shows that it is back.
            tasks.create_task(_written(members, topic, back_s, report))
            seen += await _watch(members, topic, settled_s)
        report.findings.failures += changed(before, seen)
        went_on(report, load, PARTITIONS, (began_s, now_s()), pause_max_s)
    report.findings.ended(load)
    return report


async def outage_and_death(
    cluster: ClusterProcesses,
    name: str,
    seed: int,
    rate: int,
    down_s: float,
    *,
    pause_max_s: float = PAUSE_MAX_S,
) -> Report:
    """Stop etcd and kill a broker: nobody can be elected, and nobody can leave what is in sync.

    Of three brokers each partition has two here, so that some have nothing to do with the death.
    """
    report = Report([], Findings())
    now_s = asyncio.get_running_loop().time
    topic = f"death-{name}"
    async with (
        members_of(cluster) as members,
        under_load(cluster, topic, seed, rate=rate, replicas=2) as load,
    ):
        await members.whole(topic)
        await load.goes_on()
        dead, kinds = sacrifice(await members.partitions(topic))
        await asyncio.to_thread(cluster.etcd.kill9)
        killed_s = now_s()
        os.kill(cluster.brokers[dead].pid, signal.SIGKILL)
        load.recorder.add(Killed("without etcd", dict(load.recorder.unanswered)))
        await asyncio.to_thread(cluster.brokers[dead].kill9)
        await asyncio.sleep(down_s)
        back_s = now_s()
        went_on(report, load, kinds[_APART], (killed_s, back_s), pause_max_s)
        report.findings.failures += served_by_nobody(load, kinds[_LED], killed_s)
        await asyncio.to_thread(cluster.etcd.start)
        for kind in (_LED, _FOLLOWED):
            answered_s = await load.answered(kinds[kind], back_s)
            for partition, at_s in answered_s.items():
                stopped_s = load.longest_gap_s(killed_s, at_s, [partition])
                report.lines.append(
                    f"partition {partition}, {kind}: stopped for {stopped_s:.1f} s, "
                    f"until {at_s - back_s:.1f} s after etcd was started"
                )
        await asyncio.to_thread(cluster.brokers[dead].restart)
        report.findings.back_s.append(await members.whole(topic))
        await load.goes_on()
    report.findings.ended(load)
    return report


def roles(partitions: Sequence[PartitionDescription]) -> dict[int, tuple[int, int, frozenset[int]]]:
    """Return who leads each partition, in which epoch, and who is in sync."""
    return {
        each.partition: (each.leader, each.leader_epoch, frozenset(each.in_sync_replicas))
        for each in partitions
    }


def changed(
    before: dict[int, tuple[int, int, frozenset[int]]],
    seen: Sequence[dict[int, tuple[int, int, frozenset[int]]]],
) -> list[str]:
    """Return which partition was ever led by another, or had others in sync; once each."""
    if not seen:
        return ["nobody has looked whether anything changes"]
    found: dict[int, str] = {}
    for each in seen:
        for partition, was in before.items():
            if each.get(partition) != was:
                what = f"(leader, epoch, in sync) was {was} and is {each.get(partition)}"
                found.setdefault(partition, f"partition {partition} changes without need: {what}")
    return list(found.values())


def sacrifice(partitions: Sequence[PartitionDescription]) -> tuple[int, dict[str, list[int]]]:
    """Choose a broker that leads something, and not without anything to do with all of it.

    Raises:
        AssertionError: there is none.
    """
    for dead in sorted({each.leader for each in partitions}):
        kinds: dict[str, list[int]] = {_LED: [], _FOLLOWED: [], _APART: []}
        for each in partitions:
            kind = _LED if each.leader == dead else _FOLLOWED if dead in each.replicas else _APART
            kinds[kind].append(each.partition)
        if kinds[_LED] and kinds[_APART]:
            return dead, kinds
    raise AssertionError(f"everything depends on everybody: {partitions}")


def served_by_nobody(load: Load, partitions: Sequence[int], killed_s: float) -> list[str]:
    """Return which partitions acknowledged what was sent after their leader's death."""
    pulses = load.recorder.acknowledged
    return [
        f"partition {each} acknowledges, although its leader is dead and nobody could be elected"
        for each in partitions
        if pulses[each].first_asked_after(killed_s) is not None
    ]


async def _watch(
    members: Members, topic: str, for_s: float
) -> list[dict[int, tuple[int, int, frozenset[int]]]]:
    """Look every now and then who leads and who is in sync."""
    now_s = asyncio.get_running_loop().time
    until_s, seen = now_s() + for_s, []
    while now_s() < until_s:
        seen.append(roles(await members.partitions(topic)))
        await asyncio.sleep(_LOOK_S)
    return seen


def went_on(
    report: Report,
    load: Load,
    partitions: Sequence[int],
    between_s: tuple[float, float],
    pause_max_s: float,
) -> None:
    """Tell for how long some partitions paused, and complain where that is too long."""
    begin_s, end_s = between_s
    for what, pulses in (
        ("acknowledgements", load.recorder.acknowledged),
        ("deliveries", load.recorder.read),
    ):
        for partition in partitions:
            pause_s, since_s = pulses[partition].longest_gap(begin_s, end_s)
            line = (
                f"partition {partition}: the longest pause of {what} is {pause_s:.3f} s, from "
                f"{since_s - begin_s:.1f} s of {end_s - begin_s:.1f} s on"
            )
            report.lines.append(line)
            if pause_s > pause_max_s:
                report.findings.failures.append(f"{line}; at most {pause_max_s} s are allowed")


async def _written(members: Members, topic: str, back_s: float, report: Report) -> None:
    """Change metadata, as soon as that can be done again."""
    now_s = asyncio.get_running_loop().time
    try:
        await members.make(f"{topic}-after")
    except RiverrunError as error:
        report.findings.failures.append(f"etcd is back, and a topic cannot be made: {error}")
    else:
        report.lines.append(f"a topic was made {now_s() - back_s:.1f} s after etcd was started")
