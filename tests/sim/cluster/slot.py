"""A broker's place in a simulated cluster: its id, its disk and its clock outlive its processes."""

from __future__ import annotations

from tests.sim.cluster.broker import Broker, Place, Surroundings
from tests.sim.cluster.clock import RATE_ERROR_MAX, BrokerClock
from tests.sim.cluster.disk import SimDisk
from tests.sim.cluster.session import Session
from tests.sim.cluster.world import Life, Process


class Slot:
    """A broker's place: its id, its disk and its clock outlive its processes."""

    def __init__(self, around: Surroundings, broker: int, disk: SimDisk) -> None:
        world = around.world
        dice = world.dice(f"slot {broker}")
        self.id = broker
        self.disk = disk
        rate = 1 + dice.uniform(-RATE_ERROR_MAX, RATE_ERROR_MAX)
        self.clock = BrokerClock(world, rate, dice.uniform(0, 1000))
        self.starts = 0
        self._around = around
        self._broker: Broker | None = None

    @property
    def broker(self) -> Broker:
        """The newest process; there is one once the world has begun."""
        assert self._broker is not None, self.id
        return self._broker

    @property
    def process(self) -> Process:
        """The newest process as the world knows it."""
        return self.broker.process

    @property
    def session(self) -> Session:
        """What that process knows of the metadata."""
        return self.broker.session

    @property
    def is_running(self) -> bool:
        """Whether that process has not ended; it may be paused."""
        return self._broker is not None and self._broker.process.life is not Life.ENDED

    def start(self) -> None:
        """Begin a process, where none is running."""
        if self.is_running:
            return
        self.starts += 1
        self._around.world.note(self.id, "start", self.starts)
        place = Place(self.id, self.disk, self.clock)
        self._broker = Broker(self._around, place, self.starts, self.cut_power)
        self._broker.session.begin()

    def kill(self) -> None:
        """End the process as SIGKILL does."""
        if self.is_running:
            self._end("kill")
            self.disk.kill()

    def cut_power(self) -> int:
        """End the process and lose what was not synced; return how many writes that were."""
        if not self.is_running:
            return 0
        self._end("power cut")
        self._around.network.silent.add(self.id)
        return self.disk.cut_power()

    def drain(self) -> None:
        """Say that the process is about to end, so that others lead in its place."""
        if self.is_running:
            self._around.world.note(self.id, "drain")
            self.broker.drain()

    def _end(self, how: str) -> None:
        self._around.world.note(self.id, how)
        self._around.world.end(self.process)
        self._around.network.vanish(self.id)
