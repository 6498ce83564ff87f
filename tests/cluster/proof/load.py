"""A producer at a fixed rate and a consumer of one topic of a cluster, and when each partition answered."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import riverrun
from riverrun import RiverrunError
from tests.cluster.processes import ClusterProcesses
from tests.e2e.kill import readers
from tests.e2e.kill.anomalies import summary
from tests.e2e.kill.checker import check
from tests.e2e.kill.history import Event, Failed, Outcome, Place, Recorder, Written
from tests.e2e.kill.stub_readers import read_everything
from tests.e2e.kill.world import PARTITIONS, Sending, World

PRODUCER = "producer"
CONSUMER = "consumer"
# An answer to everything that is asked of a cluster that is whole.
PATIENCE_S = 60.0
_TICK_S = 0.005
# What is behind by more, because the machine had no time, is not made up for.
_BEHIND_S = 0.5
# Records of one batch are answered at once: nothing is finer.
_FINEST_S = 0.0005
_PADDING = b"." * 80


class Pulse:
    """Moments at which something was answered, and since when it had been asked for."""

    def __init__(self) -> None:
        self._at_s: list[float] = []
        self._since_s: list[float] = []

    def beat(self, now_s: float, since_s: float) -> None:
        """Note one; those that come at once count as one."""
        if not self._at_s or now_s - self._at_s[-1] >= _FINEST_S:
            self._at_s.append(now_s)
            self._since_s.append(since_s)

    def first_asked_after(self, moment_s: float) -> float | None:
        """Return when something was answered that was asked for after a moment; None so far."""
        start = bisect_left(self._at_s, moment_s)
        for at_s, since_s in zip(self._at_s[start:], self._since_s[start:], strict=True):
            if since_s >= moment_s:
                return at_s
        return None

    def longest_gap_s(self, begin_s: float, end_s: float) -> float:
        """Return for how long at most there was none between two moments."""
        return self.longest_gap(begin_s, end_s)[0]

    def longest_gap(self, begin_s: float, end_s: float) -> tuple[float, float]:
        """Return for how long at most there was none, and from when on."""
        found = self._at_s[bisect_left(self._at_s, begin_s) : bisect_left(self._at_s, end_s)]
        edges = [begin_s, *found, end_s]
        return max((after - before, before) for before, after in pairwise(edges))


class TimedRecorder(Recorder):
    """Takes down a history, and when each partition acknowledged and was read."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        super().__init__()
        self._now_s = now_s
        self._sent_s: dict[tuple[int, int], float] = {}
        self.acknowledged = {partition: Pulse() for partition in PARTITIONS}
        self.read = {partition: Pulse() for partition in PARTITIONS}

    def begins(self, partition: int, number: int) -> None:
        """Note when a record is sent."""
        self._sent_s[partition, number] = self._now_s()

    def written(self, record: Written) -> None:
        sent_s = self._sent_s.pop((record.partition, record.number))
        if record.outcome is Outcome.ACKED:
            self.acknowledged[record.partition].beat(self._now_s(), sent_s)
        super().written(record)

    def returned(self, reader: str, partition: int, records: Iterable[Place]) -> None:
        now_s = self._now_s()
        self.read[partition].beat(now_s, now_s)
        super().returned(reader, partition, records)


class Load:
    """What goes on while the block of `under_load` lasts, and what came of it afterwards.

    Attributes:
        world: the run.
        recorder: has the history, and when who was answered.
        sent_per_s: records that the producer was given in a second.
    """

    def __init__(self, world: World, recorder: TimedRecorder, rate: int) -> None:
        self.world = world
        self.recorder = recorder
        self.sent_per_s = 0.0
        self._rate = rate
        self._producer: riverrun.Producer | None = None
        self.logs: dict[int, list[Place]] = {}

    def statistics(self) -> riverrun.ProducerStatistics:
        """Return the producer's own counts."""
        assert self._producer is not None
        return self._producer.statistics()

    async def produce(self, producer: riverrun.Producer) -> None:
        """Send records to all partitions in turn, at the rate, whatever becomes of earlier ones."""
        self._producer = producer
        now_s = asyncio.get_running_loop().time
        first_s = began_s = now_s()
        sent = 0
        while not self.world.stop.is_set():
            due = int((now_s() - began_s) * self._rate) - sent
            if due > self._rate * _BEHIND_S:
                began_s = now_s() - sent / self._rate
            for _ in range(due):
                self._send(producer, PARTITIONS[sent % len(PARTITIONS)])
                sent += 1
                if sent % 500 == 0:
                    await producer.drain()
            await asyncio.sleep(_TICK_S)
        self.sent_per_s = sent / (now_s() - first_s)

    def _send(self, producer: riverrun.Producer, partition: int) -> None:
        number = self.recorder.sending(PRODUCER, partition)
        sending = Sending(self.world, PRODUCER, partition, number, _PADDING)
        self.recorder.begins(partition, number)
        future = producer.send_nowait(self.world.topic, sending.value, partition=partition)
        future.add_done_callback(functools.partial(self._settled, sending))

    def _settled(self, sending: Sending, future: asyncio.Future[riverrun.RecordMetadata]) -> None:
        error = future.exception()
        if error is None:
            sending.settled(Outcome.ACKED, future.result().offset)
            return
        assert isinstance(error, RiverrunError), error
        sending.settled(Outcome.REFUSED if error.outcome_known else Outcome.UNKNOWN)
        if not self.recorder.broken:  # one tells it; there may be thousands
            self.world.failed(PRODUCER, error)

    async def answered(self, partitions: Iterable[int], since_s: float) -> dict[int, float]:
        """Wait until partitions have acknowledged what was sent after a moment; return when each did.

        Raises:
            AssertionError: one does not, or somebody was told what must not happen.
        """
        pulses = {partition: self.recorder.acknowledged[partition] for partition in partitions}
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    found = {p: pulse.first_asked_after(since_s) for p, pulse in pulses.items()}
                    answers = {p: at_s for p, at_s in found.items() if at_s is not None}
                    if answers.keys() == found.keys():
                        return answers
                    if self.recorder.broken:
                        raise AssertionError(f"{self.world.topic}: {self._complaints()}")
                    self.recorder.changed.clear()
                    await self.recorder.changed.wait()
        except TimeoutError:
            missing = [p for p, pulse in pulses.items() if pulse.first_asked_after(since_s) is None]
            raise AssertionError(
                f"partitions {missing} of {self.world.topic} acknowledged nothing for {PATIENCE_S} s"
            ) from None

    def _complaints(self) -> str:
        told = [each for each in self.recorder.events if isinstance(each, Failed)]
        return "; ".join(f"{each.who}: {each.what}" for each in told)

    async def goes_on(self) -> None:
        """Wait until every partition has acknowledged something that is sent from now on."""
        await self.answered(PARTITIONS, asyncio.get_running_loop().time())

    def longest_gap_s(self, begin_s: float, end_s: float, partitions: Sequence[int]) -> float:
        """Return for how long at most one of some partitions acknowledged nothing."""
        pulses = self.recorder.acknowledged
        return max(pulses[p].longest_gap_s(begin_s, end_s) for p in partitions)

    async def read_everything(self, client: riverrun.Client) -> None:
        """Read all logs in two ways, and let the consumer know where the end is."""
        world = self.world
        self.logs = await read_everything(world)
        world.ends.set_result({partition: len(log) for partition, log in self.logs.items()})
        for partition, log in self.logs.items():
            self.recorder.dumped("stub", partition, log)
        for partition, log in (await read_again(client, world.topic)).items():
            self.recorder.dumped("client", partition, log)

    def anomalies(self) -> list[str]:
        """Return what is wrong with the history; call it after the block."""
        return [f"{self.world.topic}: {line}" for line in anomalies(self.recorder.events)]


def anomalies(events: Sequence[Event]) -> list[str]:
    """Return what is wrong with a history, and whether it was of any use."""
    found = list(summary(check(events)))
    acknowledged = any(isinstance(e, Written) and e.outcome is Outcome.ACKED for e in events)
    return found if acknowledged else [*found, "nothing was acknowledged"]


async def read_again(client: riverrun.Client, topic: str) -> dict[int, list[Place]]:
    """Read a topic from beginning to end with the client library."""
    logs: dict[int, list[Place]] = {partition: [] for partition in PARTITIONS}
    async with client.consumer(topic, stop_at_end=True) as consumer:
        async for view in consumer.batches():
            for record in view.to_records():
                logs[record.partition].append((record.offset, record.value or b""))
    return logs


def digest(logs: Mapping[int, Sequence[Place]]) -> str:
    """Return what tells logs apart that differ in anything."""
    made = hashlib.sha256()
    for partition, log in sorted(logs.items()):
        made.update(b"%d:%d\n" % (partition, len(log)))
        for offset, value in log:
            made.update(b"%d %b\n" % (offset, value))
    return made.hexdigest()


@contextlib.asynccontextmanager
async def under_load(
    cluster: ClusterProcesses,
    topic: str,
    seed: int,
    *,
    rate: int,
    replicas: int = 3,
    configs: Mapping[str, str] | None = None,
) -> AsyncIterator[Load]:
    """Make a topic, write and read it; behind the block all of it has been acknowledged and read.

    Args:
        cluster: which must be whole again by the end of the block.
        topic: a new one, so that its whole history is known.
        seed: of the run.
        rate: records in a second.
        replicas: of each partition.
        configs: of the topic.
    """
    recorder = TimedRecorder(asyncio.get_running_loop().time)
    gateway = cluster.brokers[1].address
    world = World(gateway, seed, recorder, topic=topic, bootstrap=cluster.bootstrap)
    load = Load(world, recorder, rate)
    async with riverrun.Client(cluster.bootstrap, connect_timeout_s=PATIENCE_S) as client:
        await client.admin().create_topic(
            topic, partitions=len(PARTITIONS), replication_factor=replicas, configs=configs
        )
        async with asyncio.TaskGroup() as reading:
            reading.create_task(readers.staying(world, CONSUMER))
            async with _producing(client, load):
                yield load
            await load.read_everything(client)


@contextlib.asynccontextmanager
async def _producing(client: riverrun.Client, load: Load) -> AsyncIterator[None]:
    producer = client.producer()
    try:
        async with asyncio.TaskGroup() as producing:
            producing.create_task(load.produce(producer))
            try:
                yield
            finally:
                load.world.stop.set()
    finally:
        await producer.close(timeout_s=PATIENCE_S)
