"""One run: a broker under load is killed again and again, comes back, and everything is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import random
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import riverrun
from tests.e2e.broker_process import BrokerProcess
from tests.e2e.kill import readers, stub_readers
from tests.e2e.kill.client_producers import in_chunks, newcomers, pipelined
from tests.e2e.kill.history import Event, Killed, PowerCut, Recorder
from tests.e2e.kill.refused_producer import refused
from tests.e2e.kill.stub_producers import expecting_offsets, idempotent_unary
from tests.e2e.kill.world import PARTITIONS, TOPIC, World
from tests.e2e.power.cuts import Kind, cut_power
from tests.e2e.power.disk import FaultyDisk

# A broker that is back, and nobody gets anything acknowledged: something is stuck.
PROGRESS_TIMEOUT_S = 40.0
LOAD_S = (0.02, 0.8)
DOWN_S = (0.0, 0.3)
DRAIN_S = (0.0, 0.3)
# As disks do: long enough to be killed in, and for the next group to gather.
SYNC_MS = 4.0


class Fault(enum.Enum):
    """How the broker ends in one round."""

    DRAINED = "drained"
    """In order, after SIGTERM: the next start finds snapshots of the producers."""
    UNDER_LOAD = "under load"
    WHILE_STARTING = "while starting"
    """Under load, and once more while it comes back."""
    WHILE_DRAINING = "while draining"


_SHARES = {
    Fault.UNDER_LOAD: 60,
    Fault.WHILE_STARTING: 25,
    Fault.WHILE_DRAINING: 10,
    Fault.DRAINED: 5,
}

# Who has to get something done between two crashes; the producer that is refused gets nothing done.
_WORKERS = (
    *("idempotent", "newcomer", "plain", "leader", "weak", "chunks", "stub", "expecting"),
    *("staying", "group", "stub-group"),
)

# A crash is no excuse for what a broker logs so: an assertion of its own, or a store that lost data.
BUG = re.compile(r'"level": "(error|critical)"|^Traceback')

Tell = Callable[[int], None]
"""Is told after each round how many there were."""


class Rig:
    """A broker, what is done to it, and everybody who uses it meanwhile.

    Attributes:
        broker: the broker; stop it in the end.
        recorder: has what happened, also where a run came to an early end.

    Args:
        folder: for the broker's data.
        seed: what every random choice comes from; what the machine does meanwhile is not in it.
        cuts: the power is cut whenever the broker has ended, each round in the next of these ways;
            None is a round in which it stays.
        configs: of the topic.
        sync_ms: how long a sync takes where the power is cut.

    Raises:
        NoCompiler: a power cut cannot be played here.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        cuts: Sequence[Kind | None] = (),
        configs: Mapping[str, str] | None = None,
        sync_ms: float = SYNC_MS,
    ) -> None:
        self._disk = FaultyDisk(folder / "data", sync_ms=sync_ms) if cuts else None
        self._cuts = cuts
        self._configs = configs
        self._number = 0
        self.broker = BrokerProcess(folder, environ=self._disk.environ if self._disk else {})
        self.recorder = Recorder()
        self._dice = random.Random(seed)
        self._seed = seed
        self._start_s = 1.0

    async def run(self, rounds: int, tell: Tell = lambda _: None) -> list[Event]:
        """Kill it so many times, or until somebody complains, and return what happened.

        Raises:
            AssertionError: the broker does not come back, or nothing goes on after it did.
        """
        await self._start(self.broker.start)
        world = World(self.broker.address, self._seed, self.recorder)
        async with riverrun.Client(world.address) as client:
            await client.admin().create_topic(
                TOPIC, partitions=len(PARTITIONS), configs=self._configs
            )
        async with asyncio.TaskGroup() as reading:
            for reader in (
                readers.staying(world, "staying"),
                readers.coming_and_going(world, "group"),
                stub_readers.resuming(world, "stub-group"),
                stub_readers.measuring(world),
            ):
                reading.create_task(reader)
            async with self._producing(world):
                for number, fault in enumerate(self._plan(rounds), 1):
                    if self.recorder.broken:
                        break
                    self._number = number
                    await self._round(world, fault)
                    tell(number)
                await self._progress(world)
            await self._read_everything(world)
        for line in self.broker.logs().splitlines():
            if BUG.search(line):
                world.failed("broker", line)
        return self.recorder.events

    @contextlib.asynccontextmanager
    async def _producing(self, world: World) -> AsyncIterator[None]:
        async with self._patience() as patience, asyncio.TaskGroup() as producing:
            for producer in (
                pipelined(world, "idempotent"),
                newcomers(world, "newcomer"),
                pipelined(world, "plain", idempotent=False),
                pipelined(world, "leader", idempotent=False, acks="leader"),
                pipelined(world, "weak", idempotent=False, acks="none"),
                in_chunks(world, "chunks"),
                idempotent_unary(world, "stub"),
                expecting_offsets(world, "expecting"),
                refused(world, "refused"),
            ):
                producing.create_task(producer)
            yield
            world.stop.set()
            patience.reschedule(asyncio.get_running_loop().time() + PROGRESS_TIMEOUT_S)

    @contextlib.asynccontextmanager
    async def _patience(self) -> AsyncIterator[asyncio.Timeout]:
        try:
            async with asyncio.timeout(None) as patience:
                yield patience
        except TimeoutError:
            raise AssertionError(
                f"producers do not end {PROGRESS_TIMEOUT_S} s after the last crash; unanswered: "
                f"{self.recorder.unanswered}\n{self.broker.logs()}"
            ) from None

    def _plan(self, rounds: int) -> list[Fault]:
        """Choose the faults; the first four rounds have one of each."""
        crashes = [fault for fault in Fault if fault is not Fault.DRAINED]
        each = [Fault.DRAINED, *self._dice.sample(crashes, len(crashes))]
        more = self._dice.choices([*_SHARES], [*_SHARES.values()], k=rounds)
        return [*each, *more][:rounds]

    async def _round(self, world: World, fault: Fault) -> None:
        """Let everybody get something done, kill the broker at some moment, bring it back."""
        await self._progress(world)
        await asyncio.sleep(self._dice.uniform(*LOAD_S))
        if fault is Fault.DRAINED:
            world.recorder.add(Killed(fault.value, _unanswered(world)))
            assert await asyncio.to_thread(self.broker.term) == 0, self.broker.logs()
            self._cut_power(world)
        elif fault is Fault.WHILE_DRAINING:
            os.kill(self.broker.pid, signal.SIGTERM)
            await asyncio.sleep(self._dice.uniform(*DRAIN_S))
            await self._kill(world, fault)
        else:
            await self._busy(world)
            await self._kill(world, Fault.UNDER_LOAD)
        await asyncio.sleep(self._dice.uniform(*DOWN_S))
        if fault is Fault.WHILE_STARTING:
            await self._kill_while_starting(world)
        await self._start(self.broker.restart)
        # Before anybody else is back: what is committed must not need a new append to be known.
        await stub_readers.measure_once(world)

    async def _progress(self, world: World) -> None:
        """Wait until everybody has got something done since now, or somebody has complained."""
        recorder = world.recorder
        before = Counter(recorder.done)
        try:
            async with asyncio.timeout(PROGRESS_TIMEOUT_S):
                while not recorder.broken and self._waiting(before):
                    recorder.changed.clear()
                    await recorder.changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"{self._waiting(before)} got nothing done for {PROGRESS_TIMEOUT_S} s, before that "
                f"{before}\n{self.broker.logs()}"
            ) from None

    def _waiting(self, before: Counter[str]) -> list[str]:
        """Return who has got no further."""
        return [name for name in _WORKERS if self.recorder.done[name] == before[name]]

    async def _busy(self, world: World) -> None:
        """Wait for a moment at which something durable is sent and not answered."""
        while not any(_unanswered(world).values()):
            world.recorder.changed.clear()
            await world.recorder.changed.wait()

    async def _kill(self, world: World, how: Fault) -> None:
        world.recorder.add(Killed(how.value, _unanswered(world)))
        # The broker may have come to its end by itself.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.broker.pid, signal.SIGKILL)
        await asyncio.to_thread(self.broker.kill9)
        self._cut_power(world)

    def _cut_power(self, world: World) -> None:
        """Take from the disk of the broker, which is dead, what a power cut would."""
        kind = self._cuts[(self._number - 1) % len(self._cuts)] if self._cuts else None
        if self._disk is not None and kind is not None:
            lost = cut_power(self._disk, kind, self._dice).of(".log")
            world.recorder.add(PowerCut(self._number, kind.value, lost))

    async def _kill_while_starting(self, world: World) -> None:
        """Start the broker and kill it before it is ready, or soon after."""
        starting = asyncio.create_task(asyncio.to_thread(self.broker.restart))
        await asyncio.sleep(self._dice.uniform(0.3, 1.1) * self._start_s)
        world.recorder.add(Killed(Fault.WHILE_STARTING.value, _unanswered(world)))
        with contextlib.suppress(AssertionError, ProcessLookupError):
            os.kill(self.broker.pid, signal.SIGKILL)
        with contextlib.suppress(AssertionError):
            await starting
            await asyncio.to_thread(self.broker.kill9)
        self._cut_power(world)

    async def _start(self, start: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await asyncio.to_thread(start)
        self._start_s = loop.time() - began_s

    async def _read_everything(self, world: World) -> None:
        """Read all logs in both ways, and let the readers know where the end is."""
        logs = await stub_readers.read_everything(world)
        async with (
            riverrun.Client(world.address) as client,
            client.consumer(TOPIC, stop_at_end=True) as consumer,
        ):
            again: dict[int, list[tuple[int, bytes]]] = {partition: [] for partition in PARTITIONS}
            async for record in consumer:
                again[record.partition].append((record.offset, record.value or b""))
        world.ends.set_result({partition: len(log) for partition, log in logs.items()})
        for partition in PARTITIONS:
            world.recorder.dumped("stub", partition, logs[partition])
            world.recorder.dumped("client", partition, again[partition])


def _unanswered(world: World) -> dict[str, int]:
    return {name: count for name, count in world.recorder.unanswered.items() if count}
