"""What goes wrong in a simulated cluster: a plan made from the seed, carried out, and counted where it bit.

A plan is made before the run and is a list that can be shortened: each fault draws its victims from
numbers that it carries, so leaving one out changes nothing about the others.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from riverrun_server.core.log.batch import PartitionId
from tests.sim.cluster.clock import BrokerClock
from tests.sim.cluster.disk import SimDisk
from tests.sim.cluster.metadata import SimMetadata
from tests.sim.cluster.network import Network
from tests.sim.cluster.world import Process, World


class Fault(NamedTuple):
    """One thing that will go wrong.

    Attributes:
        at_s: when it begins.
        lasts_s: for how long.
        kind: a name in `KINDS`.
        picks: numbers in [0, 1) that choose the victims.
    """

    at_s: float
    lasts_s: float
    kind: str
    picks: tuple[float, ...]

    def __str__(self) -> str:
        """Name it in a trace."""
        picks = ",".join(f"{pick:.3f}" for pick in self.picks)
        return f"{self.kind} at {self.at_s:.3f} s for {self.lasts_s:.3f} s ({picks})"


class Slot(Protocol):
    """A broker through all its processes."""

    id: int
    disk: SimDisk
    clock: BrokerClock

    @property
    def process(self) -> Process:
        """The newest process."""
        ...

    @property
    def is_running(self) -> bool:
        """Whether that process has not ended; it may be paused."""
        ...

    def start(self) -> None:
        """Begin a process, where none is running."""
        ...

    def kill(self) -> None:
        """End the process as SIGKILL does."""
        ...

    def drain(self) -> None:
        """Announce the end of the process."""
        ...

    def cut_power(self) -> int:
        """End the process and lose what was not synced; return how many writes that were."""
        ...


class Cluster(Protocol):
    """What faults are done to."""

    world: World
    network: Network
    store: SimMetadata
    slots: dict[int, Slot]
    partitions: list[PartitionId]

    def leader_of(self, partition: PartitionId) -> int:
        """Return who leads a partition, as the metadata store has it."""
        ...

    def may_lose(self, broker: int) -> bool:
        """Whether a disk may be lost without a promise being broken."""
        ...

    def corrupt(self, broker: int, partition: PartitionId) -> bool:
        """Flip a bit in a batch; return whether there was one."""
        ...

    def scrub(self, broker: int, partition: PartitionId) -> None:
        """Have a broker read all that it stores of a partition."""
        ...

    def change_min_isr(self, min_isr: int) -> bool:
        """Change what the topic asks for; return whether it was another number."""
        ...

    def make_anew(self) -> bool:
        """Delete the topic and make one of the same name; return whether that could be."""
        ...

    def grow(self) -> bool:
        """Give the topic one more partition; return whether that could be."""
        ...

    def trim(self, partition: PartitionId, share: float) -> bool:
        """Have a leader delete a share of what is committed; return whether it did."""
        ...


@dataclass(slots=True)
class Ongoing:
    """A fault that has begun.

    Attributes:
        end: undoes it.
        bit: whether it did harm; asked once, behind `end`.
    """

    end: Callable[[], object]
    bit: Callable[[], bool]


Begin = Callable[[Cluster, Fault], Ongoing | None]
KINDS: dict[str, Begin] = {}


def fault(begin: Begin) -> Begin:
    """Register a kind of fault under its function's name."""
    KINDS[begin.__name__] = begin
    return begin


def plan(
    dice: random.Random, from_s: float, to_s: float, kinds: Sequence[str], mean_gap_s: float
) -> list[Fault]:
    """Return the faults of one run, in order."""
    found: list[Fault] = []
    at_s = from_s
    while True:
        at_s += dice.expovariate(1 / mean_gap_s)
        if at_s >= to_s:
            return found
        # Mostly about as long as a lease, now and then a moment, now and then much longer.
        lasts_s = dice.choice(
            (dice.uniform(0.01, 0.5), dice.uniform(0.5, 5.0), dice.uniform(3, 12))
        )
        picks = tuple(dice.random() for _ in range(4))
        found.append(Fault(at_s, lasts_s, dice.choice(kinds), picks))


class Nemesis:
    """Carries out a plan, ends everything in the end, and counts what did harm."""

    def __init__(self, cluster: Cluster) -> None:
        self.counts: Counter[str] = Counter()
        self._cluster = cluster
        self._ongoing: dict[int, tuple[Fault, Ongoing]] = {}
        self._scheduled = 0

    def schedule(self, faults: Sequence[Fault]) -> None:
        """Let everything happen at its time."""
        for each in faults:
            delay_s = each.at_s - self._cluster.world.now_s
            self._cluster.world.after(delay_s, self._begin, self._scheduled, each)
            self._scheduled += 1

    def heal(self) -> None:
        """End everything that still goes on."""
        for number in sorted(self._ongoing):
            self._end(number)

    def _begin(self, number: int, each: Fault) -> None:
        ongoing = KINDS[each.kind](self._cluster, each)
        if ongoing is None:
            return
        self._cluster.world.note("nemesis", "begin", each)
        self._ongoing[number] = (each, ongoing)
        self._cluster.world.after(each.lasts_s, self._end, number)

    def _end(self, number: int) -> None:
        if number not in self._ongoing:
            return
        each, ongoing = self._ongoing.pop(number)
        ongoing.end()
        bit = ongoing.bit()
        self._cluster.world.note("nemesis", "end", each.kind, "bit" if bit else "harmless")
        if bit:
            self.counts[each.kind] += 1
