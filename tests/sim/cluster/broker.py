"""A simulated broker: one slot through all its processes, each of which drives the real machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverrun_server.core.cluster.image import Touched
from riverrun_server.core.cluster.values import BrokerRegistration
from riverrun_server.core.log.batch import PartitionId
from tests.sim.cluster.clock import RATE_ERROR_MAX, BrokerClock
from tests.sim.cluster.control import Control
from tests.sim.cluster.disk import SimDisk
from tests.sim.cluster.network import Stream
from tests.sim.cluster.requests import Fetched
from tests.sim.cluster.session import Session
from tests.sim.cluster.world import Life, Process

if TYPE_CHECKING:
    from tests.sim.cluster.cluster import Cluster


class Slot:
    """A broker's place: its id, its disk and its clock outlive its processes."""

    def __init__(self, cluster: Cluster, broker: int) -> None:
        world = cluster.world
        dice = world.dice(f"slot {broker}")
        self.id = broker
        self.disk = SimDisk(world, broker)
        rate = 1 + dice.uniform(-RATE_ERROR_MAX, RATE_ERROR_MAX)
        self.clock = BrokerClock(world, rate, dice.uniform(0, 1000))
        self.starts = 0
        self._cluster = cluster
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
        self._cluster.world.note(self.id, "start", self.starts)
        self._broker = Broker(self._cluster, self)
        self._broker.begin()

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
        return self.disk.cut_power()

    def unrest(self, partition: PartitionId) -> str | None:
        """Return why a partition that is led here is not at rest, or None."""
        return self.broker.unrest(partition)

    def _end(self, how: str) -> None:
        self._cluster.world.note(self.id, how)
        self._cluster.world.end(self.process)
        self._cluster.network.vanish(self.id)


class Broker:
    """One process."""

    def __init__(self, cluster: Cluster, slot: Slot) -> None:
        self.process = Process(f"{slot.id}.{slot.starts}")
        self._cluster, self._slot = cluster, slot
        cluster.network.attach(slot.id, self)
        self.session = Session(
            cluster.world,
            cluster.network,
            cluster.store,
            self.process,
            slot.clock,
            slot.id,
            slot.starts,
            self._registration,
            self._changed,
            self._ready,
        )
        self._control: Control | None = None

    def begin(self) -> None:
        """Come up."""
        self.session.begin()

    def _registration(self, before: BrokerRegistration | None) -> BrokerRegistration:
        return BrokerRegistration(
            broker_id=self._slot.id,
            incarnations=self._slot.disk.incarnations,
            endpoints={},
            host=f"host-{self._slot.id}",
            start_time_ms=self._slot.starts,
        )

    def _ready(self) -> None:
        cluster, slot = self._cluster, self._slot
        cluster.world.note(slot.id, "registered", self.session.broker_epoch)
        self._control = Control(
            self.session, cluster.store, slot.clock, slot.id, cluster.policy, cluster.world.note
        )
        self._control.look()

    def _changed(self, touched: Touched) -> None:
        if self._control is not None:
            self._control.look()

    # A node of the network.

    def opened(self, stream: Stream) -> None:
        """Somebody has opened a stream to here."""

    def received(self, stream: Stream, payload: object) -> None:
        """Something has arrived."""

    def broken(self, stream: Stream) -> None:
        """A stream is gone."""

    # What clients and tests ask.

    def fetch(self, partition: PartitionId, position: int, last_epoch: int | None) -> Fetched:
        """Read."""
        return Fetched()

    def trim(self, partition: PartitionId, share: float) -> bool:
        """Delete a share of what is committed."""
        return False

    def unrest(self, partition: PartitionId) -> str | None:
        """Return why a partition that is led here is not at rest, or None."""
        return None
