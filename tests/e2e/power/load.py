"""Load for a broker whose disk fails: producers that send each record once, and what they are told."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping

import grpc.aio

import riverrun
from riverrun._net.failures import error_detail
from riverrun.v1.errors_pb2 import OUTCOME_NOTHING_HAPPENED, ErrorReason
from riverrun.v1.producer_pb2 import ProduceRequest
from riverrun.v1.records_pb2 import Record
from tests.e2e.kill.anomalies import Anomaly
from tests.e2e.kill.calls import AGAIN_S
from tests.e2e.kill.checker import check
from tests.e2e.kill.history import Outcome, Recorder
from tests.e2e.kill.stub_readers import read_everything
from tests.e2e.kill.world import CALL_TIMEOUT_S, PARTITIONS, SHARED, TOPIC, World
from tests.e2e.kill.world import producers as stub_of

_PATIENCE_S = 30.0


class Load:
    """Some producers at work on a broker, for as long as the block of `under_load` lasts.

    Attributes:
        world: the run.
        told: why appends were refused or failed, by reason; "" where nobody answered.
        seen: how many records have come to which outcome.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.told: Counter[str] = Counter()
        self.seen: Counter[Outcome] = Counter()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that the producers bring about.

        Raises:
            TimeoutError: it does not.
        """
        async with asyncio.timeout(_PATIENCE_S):
            while not holds():
                self.world.recorder.changed.clear()
                await self.world.recorder.changed.wait()

    async def until_more(self, outcome: Outcome, count: int) -> None:
        """Wait until so many more records have come to an outcome."""
        enough = self.seen[outcome] + count
        await self.until(lambda: self.seen[outcome] >= enough)

    async def anomalies(self) -> list[Anomaly]:
        """Read everything and return what is wrong; the producers have ended by now."""
        recorder = self.world.recorder
        for partition, log in (await read_everything(self.world)).items():
            recorder.dumped("stub", partition, log)
        return check(recorder.events)

    async def produce(self, name: str) -> None:
        """Send records one after the other, each once."""
        world, dice = self.world, self.world.rng(name)
        async with world.channel() as channel:
            stub = stub_of(channel)
            while not world.stop.is_set():
                sending = world.sending(name, dice.choice(SHARED), dice)
                record = Record(value=sending.value)
                request = ProduceRequest(topic=TOPIC, partition=sending.partition, records=[record])
                try:
                    response = await stub.Produce(request, timeout=CALL_TIMEOUT_S)
                except grpc.aio.AioRpcError as failure:
                    outcome = self._told(failure)
                    sending.settled(self._seen(outcome))
                    await asyncio.sleep(AGAIN_S)
                else:
                    offset = response.results[0].base_offset
                    sending.settled(self._seen(Outcome.ACKED), offset)

    def _seen(self, outcome: Outcome) -> Outcome:
        self.seen[outcome] += 1
        return outcome

    def _told(self, failure: grpc.aio.AioRpcError) -> Outcome:
        error = error_detail(failure)
        if error is None:
            self.told[""] += 1
            return Outcome.UNKNOWN
        self.told[ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")] += 1
        known = error.outcome == OUTCOME_NOTHING_HAPPENED
        return Outcome.REFUSED if known else Outcome.UNKNOWN


@contextlib.asynccontextmanager
async def under_load(
    address: str, seed: int, *, producers: int = 6, configs: Mapping[str, str] | None = None
) -> AsyncIterator[Load]:
    """Make the topic and put a broker under load; the producers end with the block."""
    async with riverrun.Client(address) as client:
        await client.admin().create_topic(TOPIC, partitions=len(PARTITIONS), configs=configs)
    load = Load(World(address, seed, Recorder()))
    async with asyncio.TaskGroup() as producing:
        for number in range(producers):
            producing.create_task(load.produce(f"producer-{number}"))
        try:
            yield load
        finally:
            load.world.stop.set()
