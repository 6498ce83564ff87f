"""The work of `perf consume`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from riverrun import Consumer
from riverrun._core.histogram import Histogram
from riverrun.cli.idling import idling_told
from riverrun.cli.measurement import Measurement
from riverrun.cli.progress import Progress
from riverrun.cli.starting import library_place
from riverrun.cli.topics import find_topic

if TYPE_CHECKING:
    from riverrun import Client
    from riverrun.cli.perf_consume import ConsumeLoad

NS_PER_MS = 1_000_000
RECORDS_PER_SAMPLE = 100


@dataclass(slots=True)
class Tally:
    """What has been read so far."""

    wanted: int
    records: int = 0
    value_bytes: int = 0
    latency: Histogram = field(default_factory=Histogram)

    def sample(self, timestamp_ms: int) -> None:
        """Note how old a record is."""
        self.latency.record(time.time_ns() - timestamp_ms * NS_PER_MS)


async def measure_consume(client: Client, load: ConsumeLoad) -> Measurement:
    """Read what was asked for and measure it.

    Raises:
        RiverrunError: reading or committing failed, or the topic is not there.
    """
    await find_topic(client, load.topic)
    tally = Tally(load.records)
    consumer = client.consumer(load.topic, group=load.group, from_=library_place(load.start))
    async with consumer, Progress(load.records, lambda: tally.records):
        began = time.perf_counter()
        async with idling_told(consumer, lambda: tally.records):
            if load.mode == "batches":
                await _read_batches(consumer, tally)
            else:
                await _read_records(consumer, tally)
        if load.group is not None:
            await consumer.commit()
        seconds = time.perf_counter() - began
    return Measurement(
        "consume",
        load.topic,
        tally.records,
        tally.value_bytes,
        seconds,
        tally.latency,
        {"mode": load.mode, "latency_samples": tally.latency.count},
    )


async def _read_batches(consumer: Consumer, tally: Tally) -> None:
    """Read batches, each value looked at, until there are enough; the last one counts whole."""
    async for batch in consumer.batches():
        records, value_bytes = batch.records, 0
        # One value at a time: a list of a large batch's values would go through all of the cache.
        for record in records:
            value_bytes += len(record.value)
        tally.value_bytes += value_bytes
        tally.records += len(records)
        tally.sample(records[-1].timestamp_ms)
        if tally.records >= tally.wanted:
            return


async def _read_records(consumer: Consumer, tally: Tally) -> None:
    """Read records one by one until there are enough."""
    async for record in consumer:
        if record.value:
            tally.value_bytes += len(record.value)
        tally.records += 1
        if tally.records % RECORDS_PER_SAMPLE == 0:
            tally.sample(record.timestamp_ms)
        if tally.records >= tally.wanted:
            return
