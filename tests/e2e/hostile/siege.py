"""One attack after another on one broker, with a well-behaved client beside them, and what is wrong afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import riverrun
from tests.e2e.hostile.attacks import ATTACKS, HOLDING, MIB, prepare
from tests.e2e.hostile.broker_under_attack import AttackedBroker, Limits
from tests.e2e.hostile.memory import bound_bytes
from tests.e2e.hostile.prober import TOPIC, Prober, quantile
from tests.e2e.hostile.raw_http2 import Crowd


@dataclass
class Siege:
    """What came of it.

    Attributes:
        broker: that was attacked.
        failures: what is wrong, in words.
        told: a line for each attack.
    """

    broker: AttackedBroker
    failures: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


async def lay_siege(
    folder: Path,
    names: list[str],
    seconds_each: float,
    connections: int,
    slower_at_most: float,
    slack_ms: float,
    patience_ms: float,
) -> Siege:
    """Attack a broker in each way for so long.

    Args:
        folder: for its data.
        names: of attacks.
        seconds_each: how long each attack lasts, and the rest before it.
        connections: how many idle ones there are.
        slower_at_most: how many times as long others' calls may take beside attackers that hold
            what they got.
        slack_ms: beside that, for a machine that does other things too.
        patience_ms: how long they may take beside attackers that keep the broker busy.
    """
    broker = AttackedBroker(folder, Limits(connections=connections + 500))
    siege = Siege(broker)
    await asyncio.to_thread(broker.start)
    async with riverrun.Client(broker.address) as client:
        await client.admin().create_topic(TOPIC)
    await prepare(broker.address)
    prober = await asyncio.to_thread(Prober, broker.address)
    try:
        await asyncio.sleep(2.0)  # the prober comes up
        for name in names:
            await _attack(
                siege,
                prober,
                name,
                seconds_each,
                connections,
                slower_at_most,
                slack_ms,
                patience_ms,
            )
    finally:
        await asyncio.to_thread(prober.end)
    siege.failures += [f"the log says: {line[:500]}" for line in broker.hurt()]
    siege.failures += await _false_claims(broker.address, prober)
    return siege


async def _attack(
    siege: Siege,
    prober: Prober,
    name: str,
    seconds: float,
    connections: int,
    slower_at_most: float,
    slack_ms: float,
    patience_ms: float,
) -> None:
    broker, lines, stop = siege.broker, siege.broker.lines(), asyncio.Event()
    quiet = time.monotonic()
    await asyncio.sleep(seconds)
    broker.forget_peak()
    began = time.monotonic()
    async with Crowd(broker.address) as crowd:
        attack = asyncio.create_task(ATTACKS[name](crowd, stop, connections))
        await asyncio.wait([attack], timeout=seconds / 2)
        # What it takes to get into its place counts against nobody, what it costs from then on does.
        settled = time.monotonic()
        await asyncio.sleep(seconds / 2)
        ended = time.monotonic()
        stop.set()
        peak, logged = broker.peak_bytes(), broker.lines() - lines
        held = len(crowd.connections)
        try:
            async with asyncio.timeout(60):
                await attack
        except TimeoutError:
            siege.failures.append(f"{name}: did not come to its end")
    calm, pressed = prober.latencies(quiet, began), prober.latencies(settled, ended)
    before, during = quantile(calm, 0.99), quantile(pressed, 0.99)
    siege.told.append(
        f"{name}: peak {peak / MIB:.0f} MiB, {held} connections, {logged} lines, others' p99 "
        f"{before:.1f} -> {during:.1f} ms (p50 {quantile(calm, 0.5):.1f} -> "
        f"{quantile(pressed, 0.5):.1f}), {len(pressed)} records"
    )
    bound = bound_bytes(broker.limits, held)
    if peak > bound:
        siege.failures.append(f"{name}: {peak / MIB:.0f} MiB, bound {bound / MIB:.0f}")
    if logged > 50 + 2 * seconds:
        siege.failures.append(f"{name}: made the broker log {logged} lines")
    allowed = slower_at_most * before + slack_ms if name in HOLDING else patience_ms
    if not during <= allowed:
        siege.failures.append(f"{name}: others' p99 went from {before:.1f} to {during:.1f} ms")


async def _false_claims(address: str, prober: Prober) -> list[str]:
    """Return what the log says of the prober's records that its answers did not."""
    async with (
        riverrun.Client(address) as client,
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
    answered = sum(what == "ok" for what in told.values())
    if answered < 0.9 * len(told):
        wrong.append(f"of {len(told)} records of the well-behaved only {answered} were written")
    return wrong
