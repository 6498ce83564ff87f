"""One attack after another on one broker, with a well-behaved client beside them, and what is wrong afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import riverrun
from riverrun_server.rpc.call_log import LINES_PER_S
from tests.e2e.hostile.attacks import ATTACKS, HOLDING, METADATA, MIB, prepare
from tests.e2e.hostile.broker_under_attack import AttackedBroker, Limits
from tests.e2e.hostile.memory import bound_bytes
from tests.e2e.hostile.prober import TOPIC, Probe, Prober, quantile
from tests.e2e.hostile.raw_http2 import Crowd
from tests.e2e.witness import Witness

# An attacker comes into its place, and what it left behind is done, within so long.
_SETTLED_S = 60.0
_CALM_S = 10.0
# So many answers in a row, each within so long.
_ANSWERS = 5
_AT_ONCE_S = 0.05
# An attack beside which others were slow is repeated: once for sure, and more often only where the
# machine stalled, for that is no fault of the broker's.
_TRIES_MAX = 5
_SURE_MAX = 2
# Of the records of a client that does nothing wrong, over all and while nobody attacks.
_WRITTEN_LEAST, _WRITTEN_LEAST_CALM = 0.5, 0.98


# An attack calls no more of them; each has a bound for the lines that tell of its calls.
_METHODS = 2


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How large an attack is, and what others may suffer from it.

    Attributes:
        connections: how many idle ones there are.
        slower_at_most: how many times as long others' calls may take beside attackers that hold
            what they got.
        slack_ms: beside that, for a machine that does other things too.
        patience_ms: how long they may take beside attackers that keep the broker busy, and while
            the others come into their place; without end, nobody looks at the clock.
    """

    connections: int
    slower_at_most: float
    slack_ms: float
    patience_ms: float

    @property
    def calm_s(self) -> float:
        """How long the broker may take to become calm; no matter where nothing is measured."""
        return _CALM_S if self.patience_ms < float("inf") else 0.0


@dataclass
class Siege:
    """What came of it.

    Attributes:
        broker: that was attacked.
        failures: what is wrong, in words.
        told: a line for each attack.
        calmest_ms: others' p99 beside no attack, where it was best: a machine that does other things
            while it is measured excuses nothing afterwards.
        calm: when nobody attacked, from and to.
    """

    broker: AttackedBroker
    failures: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    calmest_ms: float = float("inf")
    calm: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Slowed:
    """How others were slowed down by one attack.

    Attributes:
        why: what was too slow, in words; nothing where all was well.
        stalled_ms: for how long the machine let a process that waits for nobody wait meanwhile, for its
            turn or for a sync, at the most; None where that is not known.
    """

    why: list[str]
    stalled_ms: float | None


@dataclass(frozen=True)
class Judged:
    """What came of an attack that was repeated: what is told, and what is wrong."""

    told: list[str]
    failures: list[str]


async def repeated(name: str, attack: Callable[[], Awaitable[Slowed]], stall_ms: float) -> Judged:
    """Attack until others are not slowed down, or certainly are.

    Args:
        name: of the attack.
        attack: makes it once.
        stall_ms: a try in which the machine stalled for longer proves nothing.
    """
    told, sure, stalls = list[str](), 0, list[str]()
    for _ in range(_TRIES_MAX):
        slowed = await attack()
        if not slowed.why:
            return Judged(told, [])
        if slowed.stalled_ms is not None and slowed.stalled_ms <= stall_ms:
            sure += 1
            if sure == _SURE_MAX:
                return Judged(told, slowed.why)
        else:
            stalls.append(_ms(slowed.stalled_ms))
            told.append(f"{name}: the machine itself stalled for {stalls[-1]}")
        told += slowed.why
    why = (
        f"{name}: inconclusive: others were slowed in each of {_TRIES_MAX} tries, and in "
        f"{len(stalls)} of them the machine itself stalled ({', '.join(stalls)}): run it where "
        f"nothing else does"
    )
    return Judged(told, [why])


async def lay_siege(folder: Path, names: list[str], seconds_each: float, terms: Terms) -> Siege:
    """Attack a broker in each way for so long.

    Args:
        folder: for its data.
        names: of attacks.
        seconds_each: how long each attack is looked at, and the rest before it.
        terms: what others may suffer.
    """
    broker = AttackedBroker(folder, Limits(connections=terms.connections + 500))
    siege = Siege(broker)
    await asyncio.to_thread(broker.start)
    async with riverrun.Client(broker.address) as client:
        await client.admin().create_topic(TOPIC)
    await prepare(broker.address)
    prober = await asyncio.to_thread(Prober, broker.address)
    try:
        with Witness(folder) as witness:
            await asyncio.sleep(2.0)  # the prober comes up
            for name in names:
                attack = partial(_attack, siege, prober, witness, name, seconds_each, terms)
                judged = await repeated(name, attack, terms.slack_ms / 2)
                siege.told += judged.told
                siege.failures += judged.failures
    finally:
        await asyncio.to_thread(prober.end)
    siege.failures += [f"the log says: {line[:500]}" for line in broker.hurt()]
    siege.failures += await _false_claims(siege, prober)
    return siege


async def _attack(
    siege: Siege, prober: Prober, witness: Witness, name: str, seconds: float, terms: Terms
) -> Slowed:
    """Attack once, and return how others were slowed down too much."""
    broker, stop = siege.broker, asyncio.Event()
    lines, calls = broker.lines(), broker.call_lines()
    await _calm(broker.address, terms.calm_s)
    quiet = time.monotonic()
    await asyncio.sleep(seconds)
    broker.forget_peak()
    began = time.monotonic()
    async with Crowd(broker.address) as crowd:
        attack = asyncio.create_task(ATTACKS[name](crowd, stop, terms.connections))
        if name in HOLDING:
            await _in_place(crowd, attack, terms.calm_s)
        settled = time.monotonic()
        await asyncio.sleep(seconds)
        ended = time.monotonic()
        stop.set()
        peak = broker.peak_bytes()
        logged, calls = broker.lines() - lines, broker.call_lines() - calls
        held, lost = crowd.held, len(crowd.connections) - crowd.held
        try:
            async with asyncio.timeout(60):
                await attack
        except TimeoutError:
            siege.failures.append(f"{name}: did not come to its end")
    calm, pressed = prober.latencies(quiet, began), prober.latencies(settled, ended)
    before, during = quantile(calm, 0.99), quantile(pressed, 0.99)
    siege.calm.append((quiet, began))
    siege.calmest_ms = min(siege.calmest_ms, before)
    told = (
        f"{name}: peak {peak / MIB:.0f} MiB, {held} connections, {logged} + {calls} lines, others' "
        f"p99 {before:.1f} -> {during:.1f} ms (p50 {quantile(calm, 0.5):.1f} -> "
        f"{quantile(pressed, 0.5):.1f}), {len(pressed)} records"
    )
    ran_ms, synced_ms = witness.worst_ms(settled, ended), witness.worst_sync_ms(settled, ended)
    # What was not heard of is as bad as can be, for nobody knows.
    stalled_ms = None if ran_ms is None or synced_ms is None else max(ran_ms, synced_ms)
    told += f", the machine stalled for {_ms(ran_ms)}, a sync took {_ms(synced_ms)}"
    unwritten = prober.unwritten(settled, ended)
    told += f" and {unwritten} not written" if unwritten else ""
    slowed = []
    allowed = terms.patience_ms
    if name in HOLDING:
        allowed = terms.slower_at_most * siege.calmest_ms + terms.slack_ms
        settling = quantile(prober.latencies(began, settled), 0.99)
        told += f"; in place after {settled - began:.1f} s (p99 {settling:.1f} ms)"
        if not settling <= terms.patience_ms:
            slowed.append(f"{name}: others' p99 was {settling:.1f} ms while it came into its place")
        if unwritten:
            slowed.append(f"{name}: {unwritten} of others' records were not written")
        if lost:
            siege.failures.append(f"{name}: holds nothing: {lost} of its connections were closed")
    if not during <= allowed:
        slowed.append(
            f"{name}: others' p99 went from {before:.1f} to {during:.1f} ms, allowed {allowed:.1f}"
        )
    siege.told.append(told)
    bound = bound_bytes(broker.limits, held)
    if peak > bound:
        siege.failures.append(f"{name}: {peak / MIB:.0f} MiB, bound {bound / MIB:.0f}")
    lasted = ended - quiet
    if logged > 50 + 2 * lasted or calls > _METHODS * LINES_PER_S * (1 + lasted):
        siege.failures.append(f"{name}: made the broker log {logged} lines and {calls} of calls")
    return Slowed(slowed, stalled_ms)


def _ms(ms: float | None) -> str:
    return "nobody knows how long" if ms is None else f"{ms:.0f} ms"


async def _in_place(crowd: Crowd, attack: asyncio.Task[None], calm_s: float) -> None:
    """Wait until an attacker holds what it wants, and what it took to get there is over."""
    settled = asyncio.create_task(crowd.in_place.wait())
    await asyncio.wait([attack, settled], timeout=_SETTLED_S, return_when=asyncio.FIRST_COMPLETED)
    settled.cancel()
    await _calm(crowd.address, calm_s)


async def _calm(address: str, calm_s: float) -> None:
    """Wait until the broker answers a stranger at once, some times over; but not for ever."""
    answered, end = 0, time.monotonic() + calm_s
    async with Crowd(address) as crowd:
        raw = await crowd.connect()
        while answered < _ANSWERS and time.monotonic() < end:
            began = time.monotonic()
            await raw.ask(METADATA + "GetServerInfo", b"", _CALM_S)
            answered = answered + 1 if time.monotonic() - began < _AT_ONCE_S else 0
            await asyncio.sleep(_AT_ONCE_S)


async def _false_claims(siege: Siege, prober: Prober) -> list[str]:
    """Return what the log says of the prober's records that its answers did not."""
    async with (
        riverrun.Client(siege.broker.address) as client,
        client.consumer(TOPIC, stop_at_end=True) as consumer,
    ):
        found = Counter([record.value.decode() async for record in consumer])
    told = {probe.value: probe.told for probe in prober.probes}
    wrong = [
        f"{value} was acknowledged and stands there {found[value]} times"
        for value, what in told.items()
        if what == "ok" and found[value] != 1
    ]
    wrong += [
        f"{value} was refused and stands there"
        for value, what in told.items()
        if what in ("refused", "OUTCOME_NOTHING_HAPPENED") and found[value]
    ]
    wrong += [f"nobody wrote {value}" for value in found if value not in told]
    # How many are refused while attackers come into their place goes with how long that takes.
    for when, probes, least in (
        ("", prober.probes, _WRITTEN_LEAST),
        (" while nobody attacked", _within(siege.calm, prober.probes), _WRITTEN_LEAST_CALM),
    ):
        answered = sum(probe.told == "ok" for probe in probes)
        if answered < least * len(probes):
            wrong.append(
                f"of {len(probes)} records of the well-behaved{when} only {answered} were written, "
                f"{least:.0%} have to be"
            )
    return wrong


def _within(times: list[tuple[float, float]], probes: list[Probe]) -> list[Probe]:
    return [probe for probe in probes if any(begin <= probe.at < end for begin, end in times)]
