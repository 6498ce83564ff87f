"""A client that does nothing wrong: `python -m tests.e2e.hostile.prober ADDRESS`, a line when each record is due and one when it is done.

It writes at a modest rate and reads what it wrote, in a process of its own, so that what it measures
is the broker and not its attacker. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import grpc.aio

from riverrun.v1 import consumer_pb2 as c
from riverrun.v1 import errors_pb2
from riverrun.v1 import producer_pb2 as p
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.producer_pb2_grpc import ProducerServiceStub
from riverrun.v1.records_pb2 import Record

TOPIC = "well-behaved"
_EVERY_S = 0.05
_TIMEOUT_S = 20


@dataclass(frozen=True)
class Probe:
    """One record of the prober: when it was due, how long it took to be read, what it was told."""

    at: float
    value: str
    told: str
    ms: float


class Prober:
    """Runs the prober's process and collects what it tells."""

    def __init__(self, address: str) -> None:
        self.probes: list[Probe] = []
        # When the records were due that nothing has been told of yet.
        self._due: dict[str, float] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.hostile.prober", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            probe = Probe(**json.loads(line))
            if not probe.told:
                self._due[probe.value] = probe.at
                continue
            self.probes.append(probe)
            self._due.pop(probe.value, None)

    def end(self) -> None:
        """Let it end, and wait until everything it told is there."""
        self._process.stdin.close()
        self._process.wait(60)
        self._reader.join(10)
        self._process.stdout.close()

    def latencies(self, begin: float, end: float) -> list[float]:
        """Return how long the records took that were due in between, in ms and in order.

        Those that are not done count with what they have taken so far, else the slowest would count
        for nothing; those that were not written have no latency.
        """
        now = time.monotonic()
        late = [(now - at) * 1000 for at in list(self._due.values()) if begin <= at < end]
        done = [p.ms for p in list(self.probes) if begin <= p.at < end and p.told == "ok"]
        return sorted(done + late)

    def unwritten(self, begin: float, end: float) -> int:
        """Return how many records that were due in between were answered with an error."""
        return sum(begin <= each.at < end and each.told != "ok" for each in list(self.probes))


def quantile(latencies: list[float], share: float) -> float:
    """Return the latency that so many are below, or infinity where there are none."""
    if not latencies:
        return float("inf")
    return latencies[min(len(latencies) - 1, int(len(latencies) * share))]


@dataclass
class _Reading:
    waiting: dict[bytes, asyncio.Event] = field(default_factory=dict)

    async def read(self, channel: grpc.aio.Channel) -> None:
        """Follow the topic for as long as it takes."""
        request = c.ReadRequest(topic=TOPIC, partition=0)
        setattr(request, "from", c.FROM_EARLIEST)
        async for answer in ConsumerServiceStub(channel).Read(request):
            for record in answer.delivery.records:
                if (waiter := self.waiting.pop(record.value, None)) is not None:
                    waiter.set()


async def _probe(stub: ProducerServiceStub, reading: _Reading, number: int) -> None:
    value, seen = b"probe-%d" % number, asyncio.Event()
    reading.waiting[value] = seen
    began, told = time.monotonic(), "ok"
    _tell(began, value, "", 0.0)
    request = p.ProduceRequest(topic=TOPIC, partition=0, records=[Record(value=value)])
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            answer = await stub.Produce(request)
            if answer.results[0].HasField("error"):
                told = errors_pb2.Outcome.Name(answer.results[0].error.outcome)
            else:
                await seen.wait()
    except TimeoutError:
        told = "unknown"
    except grpc.aio.AioRpcError as error:
        details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        refused = b"OUTCOME" not in details and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        told = "refused" if refused and details else "unknown"
    _tell(began, value, told, (time.monotonic() - began) * 1000)


def _tell(at: float, value: bytes, told: str, ms: float) -> None:
    probe = {"at": at, "value": value.decode(), "told": told, "ms": ms}
    sys.stdout.write(json.dumps(probe) + "\n")
    sys.stdout.flush()


async def _main(address: str) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, ended.set)
    async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as tasks:
        reading = _Reading()
        reader = asyncio.create_task(reading.read(channel))
        number = 0
        while not ended.is_set():
            tasks.create_task(_probe(ProducerServiceStub(channel), reading, number))
            number += 1
            try:
                async with asyncio.timeout(_EVERY_S):
                    await ended.wait()
            except TimeoutError:
                pass
        loop.remove_reader(sys.stdin)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
