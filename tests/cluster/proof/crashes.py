"""Leaders that are killed, or told to end, under load: how long their partitions stop, and what is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import riverrun
from riverrun import PartitionDescription
from tests.cluster.processes import ClusterProcesses
from tests.cluster.proof.load import Load, digest, read_again, under_load
from tests.cluster.proof.members import Members, members_of
from tests.e2e.kill.history import Killed

LOAD_S = (0.3, 1.5)
# Each so many rounds the one who is killed elects leaders, too.
CONTROLLER_EVERY = 3
SILENCE_MAX_S = 5.0
GAP_MAX_S = 0.5
_topics = count(1)


@dataclass
class Findings:
    """What rounds have shown.

    Attributes:
        failures: what is wrong.
        silences_s: from a kill to the first acknowledgement of something sent after it, a partition each.
        gaps_s: the longest time without an acknowledgement while a leader ended in order.
        gaps_back_s: the same while that broker came back.
        back_s: from a start to all replicas in sync.
        controllers: kills that took the controller.
        rates: records given to the producer in a second.
        retries: batches that were sent again.
        batches: batches that were sent.
        digests: of each topic, as it stood when its load had ended.
    """

    failures: list[str] = field(default_factory=list)
    silences_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    gaps_back_s: list[float] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    controllers: int = 0
    rates: list[float] = field(default_factory=list)
    retries: int = 0
    batches: int = 0
    digests: dict[str, str] = field(default_factory=dict)

    def ended(self, load: Load) -> None:
        """Take in what came of a load."""
        self.failures += load.anomalies()
        self.rates.append(load.sent_per_s)
        told = load.statistics()
        self.retries += told.retries
        self.batches += told.batches_sent
        self.digests[load.world.topic] = digest(load.logs)

    async def stay(self, cluster: ClusterProcesses) -> None:
        """See that what was there when each load had ended is there still, and nothing else."""
        async with riverrun.Client(cluster.bootstrap) as client:
            for topic, before in self.digests.items():
                if digest(await read_again(client, topic)) != before:
                    self.failures.append(f"{topic} is not what it was when its load had ended")


def spread(name: str, seconds: Sequence[float]) -> str:
    """Tell the middle and the worst."""
    if not seconds:
        return f"{name}: none"
    middle = statistics.median(seconds)
    return f"{name}: p50 {middle:.3f} s, max {max(seconds):.3f} s, of {len(seconds)}"


def too_long(name: str, seconds: Sequence[float], bound_s: float) -> list[str]:
    """Return that something took longer than it may, if it did."""
    over = [each for each in seconds if each > bound_s]
    return [f"{name}: {max(over):.3f} s, at most {bound_s} s are allowed"] if over else []


def victim(
    partitions: Sequence[PartitionDescription], controller: int, number: int, dice: random.Random
) -> int:
    """Choose a leader; in some rounds the one that is the controller too, if it leads anything."""
    leaders = sorted({each.leader for each in partitions})
    if number % CONTROLLER_EVERY == 0 and controller in leaders:
        return controller
    return dice.choice(leaders)


async def kill_rounds(
    cluster: ClusterProcesses, rounds: int, seed: int, rate: int, *, bound_s: float = SILENCE_MAX_S
) -> Findings:
    """Kill a leader so many times, and bring it back."""
    findings, dice = Findings(), random.Random(seed)
    async with members_of(cluster) as members:
        for number in range(1, rounds + 1):
            topic = f"killed-{next(_topics)}"
            async with under_load(cluster, topic, seed, rate=rate) as load:
                await _kill_round(cluster, members, load, number, dice, findings)
            findings.ended(load)
    await findings.stay(cluster)
    findings.failures += too_long("a partition was silent", findings.silences_s, bound_s)
    if rounds >= 2 * CONTROLLER_EVERY and not findings.controllers:
        findings.failures.append("the controller was never killed")
    return findings


async def _kill_round(
    cluster: ClusterProcesses,
    members: Members,
    load: Load,
    number: int,
    dice: random.Random,
    findings: Findings,
) -> None:
    topic = load.world.topic
    now_s = asyncio.get_running_loop().time
    await members.whole(topic)
    await load.goes_on()
    await asyncio.sleep(dice.uniform(*LOAD_S))
    controller, partitions = await members.controller(), await members.partitions(topic)
    dead = victim(partitions, controller, (number - 1), dice)
    led = [each.partition for each in partitions if each.leader == dead]
    how = "leader and controller" if dead == controller else "leader"
    broker = cluster.brokers[dead]
    killed_s = now_s()
    os.kill(broker.pid, signal.SIGKILL)
    load.recorder.add(Killed(how, dict(load.recorder.unanswered)))
    await asyncio.to_thread(broker.kill9)
    answered_s = await load.answered(led, killed_s)
    findings.silences_s += [at_s - killed_s for at_s in answered_s.values()]
    findings.controllers += dead == controller
    began_s = now_s()
    await asyncio.to_thread(broker.restart)
    await members.whole(topic)
    findings.back_s.append(now_s() - began_s)
    await load.goes_on()


async def term_rounds(
    cluster: ClusterProcesses,
    rounds: int,
    seed: int,
    rate: int,
    *,
    bound_s: float | None = GAP_MAX_S,
) -> Findings:
    """Tell a leader to end so many times, and bring it back; gaps are not judged without a bound."""
    findings, dice = Findings(), random.Random(seed)
    async with members_of(cluster) as members:
        for _ in range(rounds):
            topic = f"ended-{next(_topics)}"
            async with under_load(cluster, topic, seed, rate=rate) as load:
                await _term_round(cluster, members, load, dice, findings)
            findings.ended(load)
    await findings.stay(cluster)
    if bound_s is not None:
        findings.failures += too_long("nothing was acknowledged", findings.gaps_s, bound_s)
    return findings


async def _term_round(
    cluster: ClusterProcesses, members: Members, load: Load, dice: random.Random, findings: Findings
) -> None:
    topic = load.world.topic
    now_s = asyncio.get_running_loop().time
    await members.whole(topic)
    await load.goes_on()
    await asyncio.sleep(dice.uniform(*LOAD_S))
    partitions = await members.partitions(topic)
    leaving = dice.choice(sorted({each.leader for each in partitions}))
    led = [each.partition for each in partitions if each.leader == leaving]
    broker = cluster.brokers[leaving]
    told_s = now_s()
    code = await asyncio.to_thread(broker.term)
    if code:
        findings.failures.append(f"{topic}: broker {leaving} ended with {code} after SIGTERM")
    await load.goes_on()
    findings.gaps_s.append(load.longest_gap_s(told_s, now_s(), led))
    back_s = now_s()
    await asyncio.to_thread(broker.restart)
    await members.whole(topic)
    findings.back_s.append(now_s() - back_s)
    await load.goes_on()
    findings.gaps_back_s.append(
        load.longest_gap_s(back_s, now_s(), [p.partition for p in partitions])
    )
