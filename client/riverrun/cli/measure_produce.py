"""The work of `perf produce`."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from riverrun import BufferFullError, Producer, RecordMetadata, RiverrunError
from riverrun._core.histogram import Histogram
from riverrun.cli.exits import Complaint, Exit
from riverrun.cli.measurement import Measurement
from riverrun.cli.progress import Progress
from riverrun.cli.topics import find_topic
from riverrun.cli.workload import Pair, Workload

if TYPE_CHECKING:
    from riverrun import Client
    from riverrun.cli.perf_produce import ProduceLoad

DEFAULT_BATCH_BYTES = 256 * 1024
PROBES_PER_S = 50
NS_PER_S = 1_000_000_000
SENDS_BETWEEN_TURNS = 64


async def measure_produce(client: Client, load: ProduceLoad) -> Measurement:
    """Write what was asked for and measure it.

    Raises:
        RiverrunError: a record was not acknowledged, or the topic is not there.
        Complaint: the topic has another number of partitions than asked for.
    """
    await _prepare(client, load)
    workload = Workload(load.records, load.record_size, load.key_size)
    latency = Histogram()
    producer = client.producer(
        acks=load.acks,
        compression=load.compression,
        batch_bytes=load.batch_bytes or DEFAULT_BATCH_BYTES,
    )
    batches = None
    try:
        async with producer, Progress(load.records, lambda: load.records - workload.left):
            began = time.perf_counter()
            if load.mode == "many":
                batches = await _send_many(producer, load.topic, workload, latency)
            else:
                await _send_each(producer, load.topic, workload, latency)
            seconds = time.perf_counter() - began
    except RiverrunError as error:
        # Only now, for closing has flushed what was under way.
        error.acknowledged_records = producer.statistics().records_acknowledged
        raise
    more: dict[str, object] = {"mode": load.mode, "latency_samples": latency.count}
    if batches is not None:
        more["batches"] = batches
    size_bytes = load.records * (load.record_size + load.key_size)
    return Measurement("produce", load.topic, load.records, size_bytes, seconds, latency, more)


async def _prepare(client: Client, load: ProduceLoad) -> None:
    """Make the topic if asked to, and fail early where it is not as expected."""
    if load.partitions is not None:
        made = await client.admin().create_topic(
            load.topic, partitions=load.partitions, if_not_exists=True
        )
        if made.partitions != load.partitions:
            raise Complaint(
                f"topic {load.topic} has {made.partitions} partitions, not {load.partitions}; "
                "delete it, or leave --partitions away to use it as it is",
                Exit.CONFLICT,
                "CONFLICT",
            )
    else:
        await find_topic(client, load.topic, made_by="give --partitions N")


async def _send_many(producer: Producer, topic: str, workload: Workload, latency: Histogram) -> int:
    """Write everything with one call, single records beside it; return how many batches it took."""
    sent: list[asyncio.Task[None]] = []

    async def probe(pair: Pair, due_ns: int) -> None:
        key, value = pair
        await producer.send(topic, value, key=key)
        latency.record(time.perf_counter_ns() - due_ns)

    async def probe_regularly() -> None:
        began = time.perf_counter_ns()
        for number in count(1):
            due_ns = began + number * NS_PER_S // PROBES_PER_S
            await asyncio.sleep(max(0, due_ns - time.perf_counter_ns()) / NS_PER_S)
            pair = workload.one()
            if pair is not None:
                sent.append(asyncio.create_task(probe(pair, due_ns), name="riverrun-probe"))

    probing = asyncio.create_task(probe_regularly(), name="riverrun-probing")
    try:
        summary = await producer.send_many(topic, workload.bulk())
        probing.cancel()
        await asyncio.gather(*sent)
    finally:
        for task in (probing, *sent):
            task.cancel()
        await asyncio.gather(probing, *sent, return_exceptions=True)
    return summary.batches


async def _send_each(
    producer: Producer, topic: str, workload: Workload, latency: Histogram
) -> None:
    """Write each record with a call of its own; none waits for another's acknowledgement."""
    failures: list[BaseException] = []

    def acknowledged(began_ns: int, future: asyncio.Future[RecordMetadata]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            failures.append(error)
        latency.record(time.perf_counter_ns() - began_ns)

    for number, (key, value) in enumerate(workload.bulk()):
        if number % SENDS_BETWEEN_TURNS == 0:
            await producer.drain()
        while True:
            began_ns = time.perf_counter_ns()
            try:
                future = producer.send_nowait(topic, value, key=key)
                break
            except BufferFullError:
                await producer.drain()
        future.add_done_callback(partial(acknowledged, began_ns))
        if failures:
            break
    await producer.flush()
    await asyncio.sleep(0)  # callbacks of the last futures run in the loop's next turn
    if failures:
        raise failures[0]
