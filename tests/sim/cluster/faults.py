"""What goes wrong in a simulated cluster, planned from the seed, and counted only where it did harm.

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
from tests.sim.cluster.metadata import STORE, SimMetadata
from tests.sim.cluster.network import Network, Node
from tests.sim.cluster.world import Life, Process, World


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
        """Whether everything committed is still on the disk of another one that may be elected."""
        ...

    def corrupt(self, broker: int, partition: PartitionId) -> bool:
        """Flip a bit in a batch; return whether there was one."""
        ...

    def change_min_isr(self, partition: PartitionId, min_isr: int) -> bool:
        """Change what a topic asks for; return whether it was another number."""
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
        lasts_s = dice.choice((dice.uniform(0.01, 0.5), dice.uniform(0.5, 5.0), dice.uniform(3, 12)))
        picks = tuple(dice.random() for _ in range(4))
        found.append(Fault(at_s, lasts_s, dice.choice(kinds), picks))


class Nemesis:
    """Carries out a plan, ends everything in the end, and counts what did harm."""

    def __init__(self, cluster: Cluster) -> None:
        self.counts: Counter[str] = Counter()
        self._cluster = cluster
        self._ongoing: dict[int, tuple[Fault, Ongoing]] = {}

    def schedule(self, faults: Sequence[Fault]) -> None:
        """Let everything happen at its time."""
        for number, each in enumerate(faults):
            delay_s = each.at_s - self._cluster.world.now_s
            self._cluster.world.after(delay_s, self._begin, number, each)

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


# Victims.


def _victim(cluster: Cluster, each: Fault) -> Slot | None:
    """Choose a broker whose process runs: the leader of a partition as often as any."""
    if each.picks[1] < 0.5:
        place = int(each.picks[2] * len(cluster.partitions))
        slot = cluster.slots[cluster.leader_of(cluster.partitions[place])]
    else:
        slot = _any(list(cluster.slots.values()), each.picks[0])
    return slot if slot.is_running and slot.process.life is Life.RUNNING else None


def _any(items: Sequence[Slot], pick: float) -> Slot:
    return items[int(pick * len(items))]


def _two(cluster: Cluster, each: Fault) -> tuple[int, int]:
    """Choose two brokers: the first is the leader of a partition as often as any."""
    ids = sorted(cluster.slots)
    if each.picks[2] < 0.5:
        place = int(2 * each.picks[2] * len(cluster.partitions))
        one = cluster.leader_of(cluster.partitions[place])
        ids.remove(one)
    else:
        one = ids.pop(int(each.picks[0] * len(ids)))
    return one, ids[int(each.picks[3] * len(ids))]


def _grew(counts: Counter[str], *names: str) -> Callable[[], bool]:
    """Return a question: have these counts grown since now?"""
    before = {name: counts[name] for name in names}
    return lambda: any(counts[name] > count for name, count in before.items())


def _always() -> bool:
    return True


# Processes.


@fault
def kill(cluster: Cluster, each: Fault) -> Ongoing | None:
    """A process ends; what it wrote is there when the next one begins."""
    slot = _victim(cluster, each)
    if slot is None:
        return None
    slot.kill()
    return Ongoing(slot.start, _always)


@fault
def quick_restart(cluster: Cluster, each: Fault) -> Ongoing | None:
    """A process ends and the next one begins at once, well inside its lease."""
    slot = _victim(cluster, each)
    if slot is None:
        return None
    slot.kill()
    slot.start()
    return Ongoing(lambda: None, _always)


@fault
def orderly_restart(cluster: Cluster, each: Fault) -> Ongoing | None:
    """A process says that it is about to end, hands on what it leads, ends, and is followed by another."""
    slot = _victim(cluster, each)
    if slot is None:
        return None
    process = slot.process
    slot.drain()

    def end() -> None:
        if slot.process is process:
            slot.kill()
        slot.start()

    return Ongoing(end, _always)


@fault
def power_cut(cluster: Cluster, each: Fault) -> Ongoing | None:
    """A machine loses its power, and what was not synced."""
    slot = _victim(cluster, each)
    if slot is None:
        return None
    slot.cut_power()
    return Ongoing(slot.start, _always)


@fault
def power_cut_of_all(cluster: Cluster, each: Fault) -> Ongoing | None:
    """Every machine loses its power at once; they come back one after another."""
    running = [slot for slot in cluster.slots.values() if slot.is_running]
    if not running:
        return None
    for slot in running:
        slot.cut_power()
    first = int(each.picks[0] * len(running))

    def end() -> None:
        for number, slot in enumerate(running[first:] + running[:first]):
            cluster.world.after(number * each.picks[3] * 2.0, slot.start)

    return Ongoing(end, _always)


@fault
def pause(cluster: Cluster, each: Fault) -> Ongoing | None:
    """A process stands still and notices nothing."""
    slot = _victim(cluster, each)
    if slot is None:
        return None
    process = slot.process
    cluster.world.pause(process)
    held: list[int] = []

    def end() -> None:
        held.append(len(process.held))
        cluster.world.resume(process)

    return Ongoing(end, lambda: held[0] > 0)


@fault
def replaced_disk(cluster: Cluster, each: Fault) -> Ongoing | None:
    """A broker comes back with an empty disk."""
    slot = _any(list(cluster.slots.values()), each.picks[0])
    if not slot.is_running or not cluster.may_lose(slot.id):
        return None
    slot.cut_power()
    slot.disk.wipe()
    return Ongoing(slot.start, _always)


# The network.

_HELD = ("messages held", "connections refused by a cut", "requests lost", "messages lost with a stream")


def _cutting(cluster: Cluster, pairs: Sequence[tuple[Node, Node]]) -> Ongoing:
    network = cluster.network
    bit = _grew(network.bitten, *_HELD)
    for pair in pairs:
        network.cut(*pair)

    def end() -> None:
        for pair in pairs:
            network.mend(*pair)

    return Ongoing(end, bit)


@fault
def cut_between_two(cluster: Cluster, each: Fault) -> Ongoing:
    """Two brokers do not reach each other; both reach the store."""
    one, other = _two(cluster, each)
    return _cutting(cluster, [(one, other), (other, one)])


@fault
def cut_one_way(cluster: Cluster, each: Fault) -> Ongoing:
    """One broker does not reach another, which reaches it."""
    return _cutting(cluster, [_two(cluster, each)])


@fault
def isolated_broker(cluster: Cluster, each: Fault) -> Ongoing:
    """A broker reaches no other and, as often as not, not the store."""
    one, _ = _two(cluster, each)
    others: list[Node] = [other for other in cluster.slots if other != one]
    if each.picks[1] < 0.5:
        others.append(STORE)
    return _cutting(cluster, [pair for o in others for pair in ((one, o), (o, one))])


@fault
def split(cluster: Cluster, each: Fault) -> Ongoing:
    """The brokers fall apart into two groups."""
    ids = sorted(cluster.slots)
    half = {one for place, one in enumerate(ids) if (each.picks[place % 4] * 7) % 1 < 0.5}
    pairs: list[tuple[Node, Node]] = [
        (a, b) for a in ids for b in ids if a != b and (a in half) != (b in half)
    ]
    return _cutting(cluster, pairs)


@fault
def swizzle(cluster: Cluster, each: Fault) -> Ongoing:
    """Links go one after another and come back in another order."""
    dice = random.Random(repr(each.picks))
    pairs: list[tuple[Node, Node]] = [
        (a, b) for a in cluster.slots for b in cluster.slots if a != b
    ]
    dice.shuffle(pairs)
    network, down = cluster.network, []
    bit = _grew(network.bitten, *_HELD)
    over = False

    def cut(pair: tuple[Node, Node]) -> None:
        if not over:
            network.cut(*pair)
            down.append(pair)

    def mend(pair: tuple[Node, Node]) -> None:
        if pair in down:
            down.remove(pair)
            network.mend(*pair)

    for place, pair in enumerate(pairs):
        cluster.world.after(each.lasts_s * place / (3 * len(pairs)), cut, pair)
    back = dice.sample(pairs, len(pairs))
    for place, pair in enumerate(back):
        cluster.world.after(each.lasts_s * (2 + place / len(pairs)) / 3, mend, pair)

    def end() -> None:
        nonlocal over
        over = True
        for pair in list(down):
            mend(pair)

    return Ongoing(end, bit)


@fault
def broken_streams(cluster: Cluster, each: Fault) -> Ongoing | None:
    """The streams between two brokers break; the brokers reach each other again at once."""
    if not cluster.network.break_streams(*_two(cluster, each)):
        return None
    return Ongoing(lambda: None, _always)


@fault
def slow_link(cluster: Cluster, each: Fault) -> Ongoing:
    """What one broker sends another takes long and varies much."""
    pair = _two(cluster, each)
    slow = cluster.network.slow
    slow[pair] = 0.05 + each.picks[1]
    return Ongoing(
        lambda: slow.pop(pair, None), _grew(cluster.network.bitten, "messages slowed")
    )


# The metadata store.


@fault
def store_away(cluster: Cluster, each: Fault) -> Ongoing | None:
    """The store answers nobody, and does late what it was asked meanwhile."""
    process = cluster.store.process
    if process.life is not Life.RUNNING:
        return None
    cluster.world.pause(process)
    held: list[int] = []

    def end() -> None:
        held.append(len(process.held))
        cluster.world.resume(process)
        if each.picks[0] < 0.5:
            cluster.store.renew_all_leases()

    return Ongoing(end, lambda: held[0] > 0)


@fault
def store_cut_off(cluster: Cluster, each: Fault) -> Ongoing:
    """One broker does not reach the store, or hears nothing from it."""
    one, _ = _two(cluster, each)
    both: list[tuple[Node, Node]] = [(one, STORE), (STORE, one)]
    kept = both if each.picks[1] < 0.4 else both[: 1] if each.picks[1] < 0.7 else both[1:]
    ongoing = _cutting(cluster, kept)
    watch = _grew(cluster.store.bitten, "watches held")
    call, lost = ongoing.bit, _grew(cluster.network.bitten, "requests lost")
    return Ongoing(ongoing.end, lambda: call() or watch() or lost())


@fault
def lost_store_replies(cluster: Cluster, each: Fault) -> Ongoing:
    """Some of the store's answers are lost, those to successful transactions too."""
    network = cluster.network
    network.lose_replies[STORE] = 0.2 + 0.6 * each.picks[0]
    return Ongoing(
        lambda: network.lose_replies.pop(STORE, None), _grew(network.bitten, "replies lost")
    )


@fault
def leases_end_early(cluster: Cluster, each: Fault) -> Ongoing | None:
    """The store ends leases that were kept alive."""
    if not cluster.store.end_leases_early(0.3 + 0.7 * each.picks[0]):
        return None
    return Ongoing(lambda: None, _always)


@fault
def leases_end_late(cluster: Cluster, each: Fault) -> Ongoing:
    """The store keeps leases that nobody keeps alive."""
    store = cluster.store
    store.late_leases_s = 6.0 * each.picks[0]

    def end() -> None:
        store.late_leases_s = 0.0

    return Ongoing(end, _always)


@fault
def slow_watch(cluster: Cluster, each: Fault) -> Ongoing:
    """One broker hears of changes long after the others."""
    one, _ = _two(cluster, each)
    delays = cluster.store.watch_delay_s
    delays[one] = 0.1 + 2.0 * each.picks[1]
    return Ongoing(
        lambda: delays.pop(one, None), _grew(cluster.store.bitten, "watches delayed")
    )


@fault
def broken_watch(cluster: Cluster, each: Fault) -> Ongoing | None:
    """A watch breaks; its broker lists everything again."""
    one, _ = _two(cluster, each)
    if not cluster.store.interrupt_watches(one):
        return None
    return Ongoing(lambda: None, _always)


@fault
def compaction(cluster: Cluster, each: Fault) -> Ongoing:
    """The store forgets old revisions, also ones that somebody has not heard of yet."""
    before = cluster.store.compacted_revision
    cluster.store.compact(keep=int(4 * each.picks[0]))
    return Ongoing(lambda: None, lambda: cluster.store.compacted_revision > before)


# Disks and clocks.


@fault
def slow_disk(cluster: Cluster, each: Fault) -> Ongoing:
    """Syncs of one broker take long."""
    disk = _any(list(cluster.slots.values()), each.picks[0]).disk
    disk.slow_s = 0.05 + 2.0 * each.picks[1]

    def end() -> None:
        disk.slow_s = 0.0

    return Ongoing(end, _grew(disk.bitten, "syncs slowed"))


def _refusing(disk: SimDisk, name: str, begin: Callable[[], None], end: Callable[[], None]) -> Ongoing:
    before = disk.store.refused
    begin()

    def undo() -> None:
        end()
        disk.bitten[name] += disk.store.refused - before

    return Ongoing(undo, lambda: disk.store.refused > before)


@fault
def full_disk(cluster: Cluster, each: Fault) -> Ongoing:
    """One broker's disk has no room."""
    disk = _any(list(cluster.slots.values()), each.picks[0]).disk
    return _refusing(
        disk, "writes refused", lambda: disk.fill(full=True), lambda: disk.fill(full=False)
    )


@fault
def stalled_disk(cluster: Cluster, each: Fault) -> Ongoing:
    """One broker's store takes no writes for a while."""
    disk = _any(list(cluster.slots.values()), each.picks[0]).disk
    return _refusing(
        disk, "writes stalled", lambda: disk.stall(stalled=True), lambda: disk.stall(stalled=False)
    )


@fault
def failed_sync(cluster: Cluster, each: Fault) -> Ongoing | None:
    """A sync fails; the process has to end, and nobody knows what is on the disk."""
    slot = _victim(cluster, each)
    if slot is None:
        return None
    slot.disk.fail_next_sync()

    def end() -> None:
        slot.disk.fail_next_sync(fails=False)
        slot.start()

    return Ongoing(end, _grew(slot.disk.bitten, "syncs failed"))


@fault
def flipped_bit(cluster: Cluster, each: Fault) -> Ongoing | None:
    """A bit of a stored batch flips while others still have everything."""
    slot = _any(list(cluster.slots.values()), each.picks[0])
    partition = cluster.partitions[int(each.picks[2] * len(cluster.partitions))]
    if not cluster.may_lose(slot.id) or not cluster.corrupt(slot.id, partition):
        return None
    return Ongoing(lambda: None, _always)


@fault
def clock_jump(cluster: Cluster, each: Fault) -> Ongoing:
    """One broker's time of day jumps forward or back, by up to half a day."""
    slot = _any(list(cluster.slots.values()), each.picks[0])
    by_ms = int((each.picks[1] - 0.5) * 86_400_000)
    slot.clock.jump(by_ms)
    return Ongoing(lambda: slot.clock.jump(-by_ms), lambda: abs(by_ms) > 60_000)


# What operators do.


@fault
def another_min_isr(cluster: Cluster, each: Fault) -> Ongoing | None:
    """A topic asks for another number of replicas in sync."""
    partition = cluster.partitions[int(each.picks[2] * len(cluster.partitions))]
    if not cluster.change_min_isr(partition, 1 + int(each.picks[0] * 2)):
        return None
    return Ongoing(lambda: None, _always)


@fault
def trimmed(cluster: Cluster, each: Fault) -> Ongoing | None:
    """What is committed is deleted from the log's start on, in part or whole."""
    partition = cluster.partitions[int(each.picks[2] * len(cluster.partitions))]
    if not cluster.trim(partition, min(1.0, 1.3 * each.picks[0])):
        return None
    return Ongoing(lambda: None, _always)
