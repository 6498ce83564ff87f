"""The power of all brokers of a cluster is cut at once, under load; its etcd stays."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.processes import ClusterProcesses
from tests.cluster.proof.crashes import LOAD_S, Findings
from tests.cluster.proof.load import Load, under_load
from tests.cluster.proof.members import Members, members_of
from tests.e2e.kill.history import Killed, PowerCut
from tests.e2e.kill.world import PARTITIONS
from tests.e2e.power.cuts import Kind, cut_power
from tests.e2e.power.disk import FaultyDisk

# As disks do: long enough for something to be under way at every moment.
SYNC_MS = 4.0


class Mains:
    """A cluster whose brokers' disks forget what was not synced when the power goes.

    Args:
        folder: for everybody's data.
        sync_ms: how long a sync takes while a cluster that is whole is under load.

    Attributes:
        cluster: stop it in the end.
        lost: bytes of write-ahead logs that each cut has taken.

    Raises:
        NoCompiler: a power cut cannot be played here.
    """

    def __init__(self, folder: Path, *, sync_ms: float = SYNC_MS) -> None:
        self._disks: list[FaultyDisk] = []
        self._sync_ms = sync_ms
        self.cluster = ClusterProcesses(folder, environ=self._disk)
        self.lost: list[int] = []

    def _disk(self, data: Path) -> Mapping[str, str]:
        self._disks.append(FaultyDisk(data, sync_ms=SYNC_MS))
        return self._disks[-1].environ

    def slow_down(self) -> None:
        """Have syncs of the running brokers take as long as they shall; a start would take minutes so."""
        for disk in self._disks:
            disk.slow_down(self._sync_ms)

    def cut(self, dice: random.Random) -> int:
        """Cut the power of all at once; return how much of the write-ahead logs is gone."""
        brokers = self.cluster.brokers.values()
        for broker in brokers:
            os.kill(broker.pid, signal.SIGKILL)
        for broker in brokers:
            broker.kill9()
        lost = sum(cut_power(disk, Kind.DROP, dice).of(".log") for disk in self._disks)
        self.lost.append(lost)
        return lost


async def power_rounds(
    mains: Mains, rounds: int, seed: int, rate: int, *, configs: Mapping[str, str] | None = None
) -> Findings:
    """Cut the power so many times; each time the cluster has to come back by itself."""
    findings, dice = Findings(), random.Random(seed)
    for number in range(1, rounds + 1):
        async with (
            members_of(mains.cluster) as members,
            under_load(mains.cluster, f"cut-{number}", seed, rate=rate, configs=configs) as load,
        ):
            await _round(mains, members, load, number, dice, findings)
        findings.ended(load)
    await findings.stay(mains.cluster)
    if not any(mains.lost):
        findings.failures.append("no power cut has taken anything")
    return findings


async def _round(
    mains: Mains, members: Members, load: Load, number: int, dice: random.Random, findings: Findings
) -> None:
    now_s = asyncio.get_running_loop().time
    await members.whole(load.world.topic)
    mains.slow_down()
    await load.goes_on()
    await asyncio.sleep(dice.uniform(*LOAD_S))
    cut_s = now_s()
    load.recorder.add(Killed("all at once", dict(load.recorder.unanswered)))
    lost = await asyncio.to_thread(mains.cut, dice)
    load.recorder.add(PowerCut(number, Kind.DROP.value, lost))
    back_s = now_s()
    await asyncio.to_thread(mains.cluster.restart)
    answered_s = await load.answered(PARTITIONS, cut_s)
    findings.silences_s += [at_s - cut_s for at_s in answered_s.values()]
    await members.whole(load.world.topic)
    findings.back_s.append(now_s() - back_s)
    await load.goes_on()
