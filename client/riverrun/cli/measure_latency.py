"""The work of `perf latency`: a writer by the clock and a reader, in one process and on one clock."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import time
from functools import partial
from typing import TYPE_CHECKING

from riverrun import Consumer, Offset, Producer, RecordMetadata, RiverrunError, TopicPartition
from riverrun._core.histogram import Histogram
from riverrun.cli.exits import Complaint, Exit
from riverrun.cli.interrupts import Interrupts
from riverrun.cli.measurement import Measurement
from riverrun.cli.progress import Progress
from riverrun.cli.schedule import NS_PER_S, Metronome, Tick, ticks
from riverrun.cli.waiting import StoppedError, first_of, unless

if TYPE_CHECKING:
    from riverrun import Client
    from riverrun.cli.perf_latency import LatencyLoad

_STAMP = struct.Struct("<8sQQ")
"""The run's number, the record's own, and when it was due."""
PATIENCE_S = 30.0
"""How long after the last record was due it may still come."""
HURRIED_CLOSE_S = 5.0
"""How long after a signal what is under way may take."""


async def measure_latency(client: Client, load: LatencyLoad) -> Measurement:
    """Write by the clock, read beside it, and measure both, until all is done or a signal comes.

    Raises:
        RiverrunError: a record was not acknowledged, or cannot be read.
        Complaint: records were not read in time.
    """
    stop = asyncio.Event()
    with Interrupts(stop.set) as interrupts:
        try:
            return await _measure(client, load, stop, interrupts)
        except StoppedError:  # before the first record
            return _measurement(load, Histogram(), Histogram(), 0.0, interrupts.received)


async def _measure(
    client: Client, load: LatencyLoad, stop: asyncio.Event, interrupts: Interrupts
) -> Measurement:
    ends = await unless(stop, client.admin().list_offsets(load.topic, "latest"))
    consumer = client.consumer(
        partitions={
            TopicPartition(end.topic, end.partition): Offset(end.high_watermark) for end in ends
        }
    )
    run = LatencyRun(load, client.producer(acks=load.acks, linger_s=0))
    try:
        async with run.producer, consumer, Progress(run.total, lambda: run.seen):
            await unless(stop, consumer.assignment())
            began_ns = time.perf_counter_ns()
            await run.measure(consumer, stop)
            seconds = (time.perf_counter_ns() - began_ns) / NS_PER_S - load.warm_up
            if run.seen >= run.total:
                return _measurement(load, run.read, run.acknowledged, seconds)
            # What is under way is not measured any more, and nobody waits long for it.
            await run.producer.close(timeout_s=HURRIED_CLOSE_S)
    except RiverrunError as error:
        # Only now, for closing has flushed what was under way.
        error.acknowledged_records = run.producer.statistics().records_acknowledged
        raise
    return _measurement(load, run.read, run.acknowledged, max(0.0, seconds), interrupts.received)


def _measurement(
    load: LatencyLoad,
    read: Histogram,
    acknowledged: Histogram,
    seconds: float,
    stopped_by: signal.Signals | None = None,
) -> Measurement:
    """Tell what was measured, all of it or up to a signal."""
    size_bytes = read.count * load.record_size
    more: dict[str, object] = {"rate": load.rate, "ack_latency_ms": acknowledged.summary_ms()}
    return Measurement(
        "latency", load.topic, read.count, size_bytes, seconds, read, more, stopped_by
    )


class LatencyRun:
    """Records of one run, known by a random number from those of others.

    Attributes:
        producer: writes them.
        total: how many there are, with those of the warm-up.
        seen: how many of all were read.
        read: latencies until they were read, without those of the warm-up.
        acknowledged: latencies until they were acknowledged.
    """

    def __init__(self, load: LatencyLoad, producer: Producer) -> None:
        self.producer = producer
        self.total = load.uncounted + load.records
        self.seen = 0
        self.read = Histogram()
        self.acknowledged = Histogram()
        self._load = load
        self._run = os.urandom(8)
        self._padding = os.urandom(load.record_size - _STAMP.size)
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def measure(self, consumer: Consumer, stop: asyncio.Event) -> None:
        """Write and read until every record has come, or it is to stop.

        Raises:
            RiverrunError: a record was not acknowledged, or cannot be read.
            Complaint: records were not read in time.
        """
        metronome = Metronome(ticks(self._load.rate, self.total), self._write)
        metronome.start()
        try:
            async with asyncio.timeout(self._load.warm_up + self._load.seconds + PATIENCE_S):
                await first_of(self._read(consumer), self._fail(), stop.wait())
        except TimeoutError:
            late = Complaint(
                f"{self.seen} of {self.total} records were read within "
                f"{PATIENCE_S:.0f} s after the last was due; of those that count, "
                f"{self.acknowledged.count} were acknowledged",
                Exit.UNAVAILABLE,
                "TIMED_OUT",
            )
            if self.producer.statistics().records_acknowledged:
                late.partly()
            raise late from None
        finally:
            metronome.stop()
            self._failed.cancel()

    def _write(self, tick: Tick, due_ns: int) -> None:
        """Send what is due; a full buffer ends the run, for the rate is more than can be had."""
        try:
            for number in tick.records:
                value = _STAMP.pack(self._run, number, due_ns) + self._padding
                future = self.producer.send_nowait(self._load.topic, value)
                future.add_done_callback(partial(self._acknowledge, number, due_ns))
        except RiverrunError as error:
            self._give_up(error)

    def _acknowledge(
        self, number: int, due_ns: int, future: asyncio.Future[RecordMetadata]
    ) -> None:
        """Note an acknowledgement."""
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self._give_up(error)
        elif not future.cancelled() and number >= self._load.uncounted:
            self.acknowledged.record(time.perf_counter_ns() - due_ns)

    def _give_up(self, error: BaseException) -> None:
        """End the run with its first error."""
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _fail(self) -> None:
        """Wait for an error, and raise it."""
        await self._failed

    async def _read(self, consumer: Consumer) -> None:
        """Note when each record comes, until all have."""
        async for batch in consumer.batches():
            values = batch.values()
            now_ns = time.perf_counter_ns()
            for value in values:
                if value is None or value[:8] != self._run:
                    continue
                _, number, due_ns = _STAMP.unpack_from(value)
                self.seen += 1
                if number >= self._load.uncounted:
                    self.read.record(now_ns - due_ns)
            if self.seen >= self.total:
                return
