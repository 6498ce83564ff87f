"""What a broker that stalls does to the latencies that `perf` tells: it shows in them, whole."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager

import pytest

from riverrun import Client
from riverrun.cli.measure_latency import measure_latency
from riverrun.cli.measure_produce import PROBES_PER_S, measure_produce
from riverrun.cli.perf_latency import LatencyLoad
from riverrun.cli.perf_produce import ProduceLoad
from tests.e2e.broker_process import BrokerProcess

STALL_S = 1.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    broker = BrokerProcess(tmp_path_factory.mktemp("broker"))
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@asynccontextmanager
async def stalled_once_it_writes(broker, client, topic):
    """Stop the broker's process for a second once it has written something; give for how long."""
    stalled_ms = []

    async def stall():
        while not (await client.admin().list_offsets(topic, "latest"))[0].high_watermark:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        began = time.monotonic()
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(STALL_S)
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        stalled_ms.append(1000 * (time.monotonic() - began))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stall())
        yield stalled_ms
    assert stalled_ms


def late(latency, stalled_ms):
    """Count the latencies of half the stall or more."""
    shares = ((latency.count - n) / latency.count for n in range(latency.count))
    return sum(latency.quantile_ns(share) >= 0.5e6 * stalled_ms for share in shares)


async def test_every_record_that_a_stall_delays_counts_not_the_first_alone(broker):
    rate, seconds = 500, 3
    load = LatencyLoad(
        topic="stalled", rate=rate, seconds=seconds, record_size=100, acks="all", warm_up=0.0
    )
    async with Client(broker.address) as client:
        await client.admin().create_topic("stalled")
        async with stalled_once_it_writes(broker, client, "stalled") as stalled_ms:
            told = await measure_latency(client, load)
    fields = told.fields()
    assert fields["records"] == rate * seconds
    assert fields["latency_ms"]["p999"] >= 0.9 * stalled_ms[0]
    assert fields["ack_latency_ms"]["p999"] >= 0.9 * stalled_ms[0]
    # As many as were due in the first half of the stall. Were they sent only once those before them
    # were answered, as in a loop of calls, one of them would have been late.
    assert late(told.latency, stalled_ms[0]) >= 0.9 * rate * STALL_S / 2


async def test_single_records_beside_the_many_are_measured_from_when_they_were_due(broker):
    load = ProduceLoad(
        topic="many",
        records=60_000,
        record_size=1_000,
        key_size=8,
        mode="many",
        batch_bytes=None,
        acks="all",
        compression="none",
        partitions=1,
    )
    async with Client(broker.address) as client:
        await client.admin().create_topic("many")
        async with stalled_once_it_writes(broker, client, "many") as stalled_ms:
            told = await measure_produce(client, load)
    # None was left out because those before it were not answered, or the buffer was full.
    assert late(told.latency, stalled_ms[0]) >= 0.9 * PROBES_PER_S * STALL_S / 2
    assert told.fields()["latency_ms"]["p999"] >= 0.9 * stalled_ms[0]
