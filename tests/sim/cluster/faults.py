"""The kinds of faults: to processes, the network, the metadata store, disks and clocks, and by operators.

Each begins, and says how it ends and whether it did harm.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from tests.sim.cluster.disk import SimDisk
from tests.sim.cluster.metadata import STORE
from tests.sim.cluster.nemesis import Cluster, Fault, Ongoing, Slot, fault
from tests.sim.cluster.network import Node
from tests.sim.cluster.world import Life

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
    """A broker comes back with an empty disk: at once where that may be, else once nobody counts on it."""
    slot = _any(list(cluster.slots.values()), each.picks[0])
    if not slot.is_running:
        return None
    lives = slot.disk.incarnations.fsync

    def replace() -> None:
        if slot.disk.incarnations.fsync == lives and cluster.may_lose(slot.id):
            slot.cut_power()
            slot.disk.wipe()

    def end() -> None:
        if not slot.is_running:
            replace()
        slot.start()

    if cluster.may_lose(slot.id):
        replace()
    else:
        slot.cut_power()
    return Ongoing(end, lambda: slot.disk.incarnations.fsync != lives)


# The network.

_HELD = (
    "messages held",
    "connections refused by a cut",
    "requests lost",
    "messages lost with a stream",
)


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
        for pair in down:
            mend(pair)

    return Ongoing(end, bit)


@fault
def leaders_isolated_in_turn(cluster: Cluster, each: Fault) -> Ongoing:
    """Whoever leads a partition is cut off until another leads, which is cut off then, and so on.

    Clients reach them all, so each leaves a tail of its own that is not committed (KIP-279's shapes).
    """
    partition = cluster.partitions[int(each.picks[2] * len(cluster.partitions))]
    network = cluster.network
    bit = _grew(network.bitten, *_HELD)
    isolated: list[tuple[int, list[tuple[Node, Node]]]] = []
    is_over = False

    def mend() -> None:
        _, pairs = isolated.pop(0)
        for pair in pairs:
            network.mend(*pair)

    def isolate() -> None:
        if is_over:
            return
        leader = cluster.leader_of(partition)
        if leader not in [broker for broker, _ in isolated]:
            others: list[Node] = [STORE, *(other for other in cluster.slots if other != leader)]
            pairs = [pair for other in others for pair in ((leader, other), (other, leader))]
            for pair in pairs:
                network.cut(*pair)
            isolated.append((leader, pairs))
            # The one before comes back shortly before or after the next is elected.
            if len(isolated) > 1:
                cluster.world.after(each.picks[0] * 4.0, lambda: isolated and mend())
        cluster.world.after(0.3 + each.picks[1], isolate)

    def end() -> None:
        nonlocal is_over
        is_over = True
        while isolated:
            mend()

    isolate()
    return Ongoing(end, bit)


@fault
def broken_streams(cluster: Cluster, each: Fault) -> Ongoing | None:
    """The streams between a broker and the others break; they reach each other again at once."""
    one, other = _two(cluster, each)
    others = [other] if each.picks[1] < 0.5 else [each for each in cluster.slots if each != one]
    if not sum(cluster.network.break_streams(one, other) for other in others):
        return None
    return Ongoing(lambda: None, _always)


@fault
def slow_link(cluster: Cluster, each: Fault) -> Ongoing:
    """What one broker sends another takes long and varies much."""
    pair = _two(cluster, each)
    slow = cluster.network.slow
    slow[pair] = 0.05 + each.picks[1]
    return Ongoing(lambda: slow.pop(pair, None), _grew(cluster.network.bitten, "messages slowed"))


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
    kept = both if each.picks[1] < 0.4 else both[:1] if each.picks[1] < 0.7 else both[1:]
    ongoing = _cutting(cluster, kept)
    watch = _grew(cluster.store.bitten, "watches held")
    call, lost = ongoing.bit, _grew(cluster.network.bitten, "requests lost")
    return Ongoing(ongoing.end, lambda: call() or watch() or lost())


@fault
def slow_store(cluster: Cluster, each: Fault) -> Ongoing:
    """What a broker asks of the store arrives late, also when it has long given up on an answer."""
    one, _ = _two(cluster, each)
    slow = cluster.network.slow
    slow[one, STORE] = 0.2 + 3.0 * each.picks[1]
    return Ongoing(
        lambda: slow.pop((one, STORE), None), _grew(cluster.network.bitten, "messages slowed")
    )


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
    return Ongoing(lambda: delays.pop(one, None), _grew(cluster.store.bitten, "watches delayed"))


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
    disk.slow_s = 0.05 + 4.0 * each.picks[1] ** 2

    def end() -> None:
        disk.slow_s = 0.0

    return Ongoing(end, _grew(disk.bitten, "syncs slowed"))


def _refusing(
    disk: SimDisk, name: str, begin: Callable[[], None], end: Callable[[], None]
) -> Ongoing:
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
    """One broker's store takes no writes for a while, or refuses a few and takes what follows them."""
    if each.picks[3] < 0.5:
        disk = cluster.slots[_two(cluster, each)[0]].disk
        writes = 1 + int(3 * each.picks[1])
        return _refusing(
            disk, "writes stalled", lambda: disk.stall_once(writes), lambda: disk.stall_once(0)
        )
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
    return Ongoing(lambda: cluster.scrub(slot.id, partition), _always)


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
    if not cluster.change_min_isr(1 + int(each.picks[0] * 2)):
        return None
    return Ongoing(lambda: None, _always)


@fault
def another_class(cluster: Cluster, each: Fault) -> Ongoing | None:
    """A topic becomes durable, or need not be so any more; and perhaps changes its mind at once."""
    if not cluster.change_class():
        return None
    if each.picks[0] < 0.3:
        cluster.world.after(each.picks[1], cluster.change_class)
    return Ongoing(lambda: None, _always)


@fault
def another_topic(cluster: Cluster, each: Fault) -> Ongoing | None:
    """The topic is deleted and another one of the same name is made."""
    return Ongoing(lambda: None, _always) if cluster.make_anew() else None


@fault
def one_more_partition(cluster: Cluster, each: Fault) -> Ongoing | None:
    """The topic gets one more partition."""
    return Ongoing(lambda: None, _always) if cluster.grow() else None


@fault
def trimmed(cluster: Cluster, each: Fault) -> Ongoing | None:
    """What is committed is deleted from the log's start on, in part or whole."""
    partition = cluster.partitions[int(each.picks[2] * len(cluster.partitions))]
    if not cluster.trim(partition, min(1.0, 1.3 * each.picks[0])):
        return None
    return Ongoing(lambda: None, _always)
