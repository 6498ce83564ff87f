"""One soak: a broker, everybody at work on it, and a sample of it every few seconds."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

import riverrun
from tests.e2e.broker_process import BrokerProcess
from tests.e2e.soak import past, readers, visitors, writers
from tests.e2e.soak.samples import Sample, Sampler
from tests.e2e.soak.world import TOPICS, World
from tests.e2e.witness import Witness

GROUP = "soak-group"
# Retention has to have something to do within the first minutes.
_ENVIRON = {"RIVERRUN_RETENTION_CHECK_INTERVAL_S": "2s"}
_WORTH_TELLING = re.compile(r'"level": "(warning|error|critical)"|^Traceback')
# A machine that is busy with something else makes the loop late too; a trend in it is judged apart.
_LATE = re.compile(r'"lag_ms": (\d+), .*"event": "event loop was late"')
_LATE_MAX_MS = 5_000
_LINES_MAX = 100

Tell = Callable[[Sample, World], None]
"""Is told of each sample."""


class Rig:
    """One run.

    Attributes:
        broker: the broker; stop it in the end.
        samples: what was measured so far.
        complaints: what the broker logged that nobody wants to read: warnings and worse.
        late_ms: how late its event loop was each time that it said so.
    """

    def __init__(self, folder: Path, seed: int, *, sample_every_s: float = 5.0) -> None:
        self.broker = BrokerProcess(folder, environ=_ENVIRON, on_line=self._logged)
        self.samples: list[Sample] = []
        self.complaints: list[str] = []
        self.late_ms: list[int] = []
        self._folder = folder
        self._seed = seed
        self._sample_every_s = sample_every_s

    async def run(self, seconds: float, tell: Tell = lambda _sample, _world: None) -> World:
        """Run for so long, then let readers come to the end, and return what happened.

        Raises:
            ExceptionGroup: somebody at work came upon what nobody foresaw.
        """
        await asyncio.to_thread(self.broker.start)
        world = World(self.broker.address, self._seed)
        async with riverrun.Client(world.address) as client:
            for topic, (partitions, configs) in TOPICS.items():
                await client.admin().create_topic(topic, partitions=partitions, configs=configs)
        async with asyncio.TaskGroup() as reading:
            reading.create_task(readers.keeping_up(world, "keeping up"))
            async with asyncio.TaskGroup() as working:
                for work in (
                    writers.steady(world, "plain", "none", 400, range(50, 800)),
                    writers.steady(world, "gzip", "gzip", 100, range(50, 2_000)),
                    writers.steady(world, "large", "none", 100, range(2_000, 20_000)),
                    writers.in_chunks(world, "chunks"),
                    writers.unary(world, "unary"),
                    writers.newcomers(world, "newcomers"),
                    readers.coming_and_going(world, GROUP),
                    past.reading_the_past(world, "past"),
                    visitors.topics_come_and_go(world, "topics"),
                    visitors.administrator(world, "administrator", GROUP),
                    visitors.passing_by(world, "passing by"),
                ):
                    working.create_task(work)
                with Witness(self._folder) as witness:
                    await self._watch(world, witness, seconds, tell)
                    if witness.gone():
                        world.failed("witness", "it has ended by itself")
                world.stop.set()
            world.ended.set()
        exit_code = await asyncio.to_thread(self.broker.term)
        if exit_code:
            world.failed("broker", f"ended with {exit_code}")
        world.failed("broker", *self.complaints)
        return world

    async def _watch(self, world: World, witness: Witness, seconds: float, tell: Tell) -> None:
        """Take samples until the time is up or somebody complains."""
        sampler = Sampler(self.broker.pid, self.broker.http_address, self.broker.data_dir)
        until_s = time.monotonic() + seconds
        while not world.failures and (left_s := until_s - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, self._sample_every_s))
            latencies_ms, world.latencies_ms = world.latencies_ms, []
            self.samples.append(
                await sampler.take(latencies_ms, witness.take(), witness.take_syncs())
            )
            tell(self.samples[-1], world)

    def _logged(self, line: str) -> None:
        if not _WORTH_TELLING.search(line):
            return
        late = _LATE.search(line)
        if late is not None and int(late[1]) <= _LATE_MAX_MS:
            self.late_ms.append(int(late[1]))
        elif len(self.complaints) < _LINES_MAX:
            self.complaints.append(line.rstrip("\n"))
