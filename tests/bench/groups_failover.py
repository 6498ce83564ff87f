"""What the death of a member, of a broker, and two newcomers do to a group that is under load.

    .venv/bin/python -m tests.bench.groups --part failover [--rate N] [--phase-s S]

Four members on twelve partitions over three brokers, once without faults and once with them. Members are the
stub programs of `make groups-chaos`, which write down each delivery; everything is computed from that.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import riverrun
from tests.cluster.group_chaos.checks import History, Hold, anomalies, holds_of
from tests.cluster.group_chaos.diary import Diary, Joined, Processed, now_s
from tests.cluster.group_chaos.load import Book, Looker
from tests.cluster.group_chaos.processes import MemberProcess, Terms, running
from tests.cluster.processes import ClusterProcesses
from tests.cluster.proof.members import Members, members_of

PARTITIONS = 12
MEMBERS = 4
SESSION_S = 10.0
# What may follow on a death, beside the session timeout; and gaps of what it has nothing to do with.
AFTER_SESSION_MAX_S = 1.0
RATIO_MAX = 3.0
RECORD_BYTES = 100
_EVERYTHING = frozenset(range(PARTITIONS))
_FINISH_S = 60.0
_PATIENCE_S = 60.0
MEMBER_DIES, BROKER_DIES, TWO_COME = "a member is killed", "a broker is killed", "two members come"


@dataclass(frozen=True)
class Phase:
    """A stretch of a run.

    Attributes:
        name: what happens at its beginning.
        from_s, until_s: its ends.
        hurt: partitions that have to do with what happens; None is all.
    """

    name: str
    from_s: float
    until_s: float
    hurt: frozenset[int] = frozenset()


@dataclass
class Run:
    """What one run gave.

    Attributes:
        phases: in order.
        diaries: of every process of a member.
        per_s: records that were acknowledged in a second.
        failures: what is wrong with it.
    """

    phases: list[Phase] = field(default_factory=list)
    diaries: list[Diary] = field(default_factory=list)
    per_s: float = 0.0
    failures: list[str] = field(default_factory=list)


async def run(
    cluster: ClusterProcesses, folder: Path, topic: str, rate: int, phase_s: float, *, hurt: bool
) -> Run:
    """Run four members under load through the phases, with what happens in them or without.

    Args:
        cluster: which is whole.
        folder: for the diaries.
        topic: a new one, which also names the group.
        rate: records in a second.
        phase_s: how long each phase is.
        hurt: whether anything happens.
    """
    found = Run()
    terms = Terms(
        cluster.bootstrap, topic, topic, round(SESSION_S * 1000), folder, is_numbered=False
    )
    members = [MemberProcess(terms, f"{topic}-{n}", n) for n in range(MEMBERS)]
    newcomers = [MemberProcess(terms, f"{topic}-new-{n}", n) for n in range(2)]
    async with (
        members_of(cluster) as brokers,
        riverrun.Client(cluster.bootstrap, connect_timeout_s=_PATIENCE_S) as client,
    ):
        await client.admin().create_topic(topic, partitions=PARTITIONS, replication_factor=3)
        await brokers.whole(topic)
        book = Book(client.producer(), topic, PARTITIONS, rate, RECORD_BYTES)
        stop = asyncio.Event()
        with running(members, [*members, *newcomers]):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(book.write(stop))
                try:
                    await asyncio.sleep(phase_s)  # everybody joins
                    began_s, had = now_s(), len(book.acknowledged)
                    await _phases(cluster, brokers, members, newcomers, found, phase_s, hurt)
                    found.per_s = (len(book.acknowledged) - had) / (now_s() - began_s)
                finally:
                    stop.set()
            ends = {each.partition: each.log_end_offset for each in await brokers.partitions(topic)}
            looker = Looker([cluster.brokers[1].address], topic, topic, PARTITIONS)
            committed = await _finish(looker, cluster.brokers[1].address, ends)
            found.diaries = [d for each in (*members, *newcomers) for d in each.diaries()]
    found.failures = [
        *book.failures,
        *anomalies(History(found.diaries, book.acknowledged, (), ends, committed)),
    ]
    return found


async def _phases(
    cluster: ClusterProcesses,
    brokers: Members,
    members: Sequence[MemberProcess],
    newcomers: Sequence[MemberProcess],
    found: Run,
    phase_s: float,
    hurt: bool,
) -> None:
    async def phase(name: str, what: Callable[[], object], partitions: frozenset[int]) -> None:
        from_s = now_s()
        if hurt:
            await asyncio.to_thread(what)
        await asyncio.sleep(phase_s + SESSION_S)
        found.phases.append(Phase(name, from_s, now_s(), partitions))

    await phase("nothing", lambda: None, frozenset())
    last = members[-1]
    await phase(MEMBER_DIES, last.kill9, _held_by(last))
    dead = max(cluster.brokers)
    topic = last.terms.topic
    led = {each.partition for each in await brokers.partitions(topic) if each.leader == dead}
    address = cluster.brokers[dead].address
    through = [each for each in members if each.is_running and _gateway(each) == address]
    of_it = frozenset(led.union(*(_held_by(each) for each in through)))
    await phase(BROKER_DIES, cluster.brokers[dead].kill9, of_it)
    if hurt:
        await asyncio.to_thread(cluster.brokers[dead].restart)
        await brokers.whole(topic)
    await phase(TWO_COME, lambda: [each.start() for each in newcomers], frozenset())


def _held_by(member: MemberProcess) -> frozenset[int]:
    """Return what a member has now."""
    *_, diary = member.diaries()
    return frozenset(hold.partition for hold in holds_of(diary) if hold.until_s > now_s())


def _gateway(member: MemberProcess) -> str:
    *_, diary = member.diaries()
    return [event.gateway for event in diary.events if isinstance(event, Joined)][-1]


async def _finish(looker: Looker, broker: str, ends: Mapping[int, int]) -> dict[int, int]:
    until_s, known = now_s() + _FINISH_S, dict[int, int]()
    while known != ends and now_s() < until_s:
        await asyncio.sleep(0.2)
        known |= await looker.committed(broker)
    return known


def moved(diaries: Sequence[Diary], phase: Phase) -> frozenset[int]:
    """Return the partitions that somebody was given in a phase."""
    holds: list[Hold] = [hold for diary in diaries for hold in holds_of(diary)]
    return frozenset(h.partition for h in holds if phase.from_s <= h.from_s < phase.until_s)


def deliveries(diaries: Sequence[Diary], phase: Phase) -> dict[int, list[float]]:
    """Return when something of each partition was delivered in a phase."""
    times: dict[int, list[float]] = defaultdict(list)
    for diary in diaries:
        for event in diary.events:
            if isinstance(event, Processed) and phase.from_s <= event.at_s < phase.until_s:
                times[event.partition].append(event.at_s)
    return {partition: sorted(each) for partition, each in times.items()}


def gaps(times: Mapping[int, Sequence[float]], partitions: frozenset[int]) -> list[float]:
    """Return the times between deliveries of some partitions, in order of length."""
    return sorted(
        after - before
        for partition in partitions
        for before, after in pairwise(times.get(partition, ()))
    )


def p99(values: Sequence[float]) -> float:
    """Return the 99th of a hundred; infinite where there is none."""
    return values[int(len(values) * 0.99)] if values else float("inf")


def stalls(times: Mapping[int, Sequence[float]], phase: Phase) -> dict[int, float]:
    """Return the longest time without a delivery of each partition that is hurt, from the phase's beginning."""
    return {
        partition: max(
            after - before for before, after in pairwise([phase.from_s, *times[partition]])
        )
        if times.get(partition)
        else float("inf")
        for partition in sorted(phase.hurt)
    }


def lines(calm: Run, hurt: Run) -> Iterator[str]:
    """Yield what a person wants to know of both runs."""
    yield f"{calm.per_s:,.0f} records/s acknowledged without faults, {hurt.per_s:,.0f} with them"
    for before, phase in zip(calm.phases, hurt.phases, strict=True):
        times = deliveries(hurt.diaries, phase)
        here = gaps(times, untouched(hurt, phase))
        usual = gaps(deliveries(calm.diaries, before), _EVERYTHING)
        yield (
            f"{phase.name}: {len(moved(hurt.diaries, phase))} partitions given to somebody; "
            f"{len(untouched(hurt, phase))} untouched: gaps between deliveries p50 "
            f"{_ms(statistics.median(here)) if here else 'none'}, p99 {_ms(p99(here))}, max "
            f"{_ms(here[-1]) if here else 'none'}; without faults p99 {_ms(p99(usual))}, ratio "
            f"{p99(here) / p99(usual):.2f}"
        )
        if phase.hurt:
            longest = max(stalls(times, phase).values())
            yield (
                f"{phase.name}: its {len(phase.hurt)} partitions flow again after at most {longest:.2f} s "
                f"(session timeout {SESSION_S:g} s)"
            )


def complaints(calm: Run, hurt: Run) -> Iterator[str]:
    """Yield what is wrong, or more than it may be."""
    for name, each in (("without", calm), ("with", hurt)):
        yield from (f"{name} faults: {line}" for line in each.failures)
    for before, phase in zip(calm.phases, hurt.phases, strict=True):
        times = deliveries(hurt.diaries, phase)
        usual = p99(gaps(deliveries(calm.diaries, before), _EVERYTHING))
        ratio = p99(gaps(times, untouched(hurt, phase))) / usual
        if ratio > RATIO_MAX:
            yield (
                f"{phase.name}: gaps of what is untouched are {ratio:.2f} times as long as without "
                f"faults, {RATIO_MAX:g} times are allowed"
            )
        longest = max(stalls(times, phase).values(), default=0.0)
        if phase.name == MEMBER_DIES and longest > SESSION_S + AFTER_SESSION_MAX_S:
            yield (
                f"{phase.name}: its partitions stood still for {longest:.2f} s, the session timeout of "
                f"{SESSION_S:g} s and {AFTER_SESSION_MAX_S:g} s more are allowed"
            )


def untouched(run_: Run, phase: Phase) -> frozenset[int]:
    """Return the partitions that have nothing to do with what happens in a phase."""
    return _EVERYTHING - phase.hurt - moved(run_.diaries, phase)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
