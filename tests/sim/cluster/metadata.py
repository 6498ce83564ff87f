"""The metadata store of a simulated cluster: etcd's promises, and everything it does not promise.

Transactions are linearizable and revisions only grow. A lease ends early or late, a watch is behind,
breaks or asks for what is compacted, and an answer may be lost although the transaction was applied.
Values stand here as objects; nothing is encoded.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Hashable

from riverrun_server.ports.metadata import (
    MAX_OPERATIONS,
    Compare,
    Entry,
    Event,
    FutureRevision,
    InvalidTransaction,
    LeaseNotFound,
    Listing,
    Put,
    Relation,
    Target,
    Transaction,
    TransactionResult,
    WatchBatch,
)
from tests.sim.cluster.network import Network
from tests.sim.cluster.world import Life, Process, World

STORE = "store"

_RELATIONS = {
    Relation.EQUAL: operator.eq,
    Relation.NOT_EQUAL: operator.ne,
    Relation.LESS: operator.lt,
    Relation.GREATER: operator.gt,
}


class SimLease:
    """A lease as the store holds it."""

    __slots__ = ("deadline_s", "lease_id", "ttl_s")

    def __init__(self, lease_id: int, ttl_s: float) -> None:
        self.lease_id = lease_id
        self.ttl_s = ttl_s
        self.deadline_s = 0.0


class SimWatch:
    """A node's place in the order of events; ended by `close`, an interruption or compaction."""

    def __init__(
        self,
        node: Hashable,
        process: Process,
        start_revision: int,
        deliver: Callable[[WatchBatch], None],
        interrupted: Callable[[], None],
    ) -> None:
        self.node = node
        self.process = process
        self.next_revision = start_revision
        self.deliver = deliver
        self.interrupted = interrupted
        self.is_open = True
        self.is_armed = False

    def close(self) -> None:
        """Deliver nothing any more."""
        self.is_open = False


class SimMetadata:
    """The store; a node of the network that is reached by calls. Its state survives everything.

    Args:
        world: time and dice.
        network: cut links hold its watches.
        committed: told of every revision with its events, before anybody else hears of it.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        committed: Callable[[int, tuple[Event, ...]], None] = lambda revision, events: None,
    ) -> None:
        self.process = Process(STORE)
        self.revision = 1
        self.compacted_revision = 0
        self.bitten: Counter[str] = Counter()
        self.watch_delay_s: dict[Hashable, float] = {}
        self.late_leases_s = 0.0
        self._world = world
        self._network = network
        self._committed = committed
        self._dice = world.dice("metadata")
        self._entries: dict[str, Entry] = {}
        self._history: list[WatchBatch] = []
        self._leases: dict[int, SimLease] = {}
        self._watches: list[SimWatch] = []
        network.attach(STORE, self)

    # A node of the network; nobody opens streams to it.

    def opened(self, stream: object) -> None:
        raise AssertionError(stream)

    received = broken = opened

    # Reading.

    def get(self, key: str) -> Entry | None:
        """Return a key as it stands."""
        return self._entries.get(key)

    def scan(self, prefix: str = "") -> Listing:
        """Return all keys under a prefix, in order."""
        found = [each for key, each in sorted(self._entries.items()) if key.startswith(prefix)]
        return Listing(self.revision, found)

    # Changing.

    def transact(self, transaction: Transaction) -> TransactionResult:
        """Apply a transaction or say why not, as ports.metadata.MetadataStore does."""
        _check(transaction)
        for each in transaction.operations:
            if isinstance(each, Put) and each.lease and each.lease not in self._leases:
                raise LeaseNotFound(f"lease {each.lease} has ended or never was")
        if not all(map(self._holds, transaction.compares)):
            entries = {each.key: self._entries.get(each.key) for each in transaction.compares}
            return TransactionResult(succeeded=False, revision=self.revision, entries=entries)
        self._apply(transaction)
        return TransactionResult(succeeded=True, revision=self.revision)

    def grant(self, ttl_s: float) -> SimLease:
        """Make a lease."""
        lease = SimLease(self.revision * 1_000 + len(self._leases) + 1, ttl_s)
        while lease.lease_id in self._leases:
            lease.lease_id += 1
        self._leases[lease.lease_id] = lease
        self._renew(lease)
        return lease

    def keep_alive(self, lease_id: int) -> SimLease:
        """Let a lease begin anew.

        Raises:
            LeaseNotFound: it has ended.
        """
        lease = self._leases.get(lease_id)
        if lease is None:
            raise LeaseNotFound(f"lease {lease_id} has ended or never was")
        self._renew(lease)
        return lease

    def revoke(self, lease_id: int) -> None:
        """End a lease and delete its keys.

        Raises:
            LeaseNotFound: it has ended.
        """
        if self._leases.pop(lease_id, None) is None:
            raise LeaseNotFound(f"lease {lease_id} has ended or never was")
        keys = [key for key, each in self._entries.items() if each.lease == lease_id]
        if keys:
            self._commit(dict.fromkeys(sorted(keys)))

    def watch(
        self,
        node: Hashable,
        process: Process,
        start_revision: int,
        deliver: Callable[[WatchBatch], None],
        interrupted: Callable[[], None],
    ) -> SimWatch:
        """Deliver every change from a revision on, in order, some time after it happened.

        `interrupted` is called once when it cannot go on: list again and watch from there.

        Raises:
            FutureRevision: the store has not come so far.
        """
        if start_revision > self.revision + 1:
            raise FutureRevision(f"revision {start_revision}, the store is at {self.revision}")
        watch = SimWatch(node, process, start_revision, deliver, interrupted)
        self._watches = [each for each in self._watches if each.is_open]
        self._watches.append(watch)
        self._arm(watch)
        return watch

    # What goes wrong, on demand.

    def compact(self, keep: int) -> int:
        """Forget all but the newest revisions; return up to which."""
        compacted = max(self.compacted_revision, self.revision - keep)
        self._history = [each for each in self._history if each.revision > compacted]
        self.compacted_revision = compacted
        return compacted

    def interrupt_watches(self, node: Hashable) -> int:
        """Break a node's watches; return how many there were."""
        found = [each for each in self._watches if each.node == node and each.is_open]
        for watch in found:
            self._interrupt(watch)
        return len(found)

    def end_leases_early(self, dice_below: float) -> int:
        """End some leases long before their time, as a stuck leader of etcd may; return how many."""
        ended = 0
        for lease_id in sorted(self._leases):
            if self._dice.random() < dice_below:
                self.revoke(lease_id)
                ended += 1
        return ended

    def renew_all_leases(self) -> int:
        """Give every lease its full time again, as a new leader of etcd does."""
        for lease in self._leases.values():
            self._renew(lease)
        return len(self._leases)

    # Inside.

    def _holds(self, compare: Compare) -> bool:
        entry = self._entries.get(compare.key)
        if compare.target is Target.VALUE:
            if entry is None:
                return False
            actual = entry.value
        else:
            actual = 0 if entry is None else getattr(entry, compare.target.value)
        return _RELATIONS[compare.relation](actual, compare.operand)

    def _apply(self, transaction: Transaction) -> None:
        changed: dict[str, Put | None] = {}
        for each in transaction.operations:
            if isinstance(each, Put):
                changed[each.key] = each
            elif each.key in self._entries:
                changed[each.key] = None
        if changed:
            self._commit(changed)

    def _commit(self, changed: dict[str, Put | None]) -> None:
        self.revision += 1
        events = []
        for key, put in changed.items():
            before = self._entries.pop(key, None)
            entry = None
            if put is not None:
                entry = self._entries[key] = Entry(
                    key,
                    put.value,
                    before.create_revision if before else self.revision,
                    self.revision,
                    before.version + 1 if before else 1,
                    put.lease,
                )
            events.append(Event(key, entry, self.revision))
        batch = WatchBatch(self.revision, tuple(events))
        self._history.append(batch)
        self._committed(self.revision, batch.events)
        for watch in self._watches:
            self._arm(watch)

    def _renew(self, lease: SimLease) -> None:
        lease.deadline_s = self._world.now_s + lease.ttl_s
        self._expire_after(lease, lease.ttl_s)

    def _expire_after(self, lease: SimLease, delay_s: float) -> None:
        # Never before its time by itself; how much later is up to the store.
        late_s = self._dice.uniform(0.0, 0.2 + self.late_leases_s)
        self._world.after(delay_s + late_s, self._expire, lease, process=self.process)

    def _expire(self, lease: SimLease) -> None:
        if lease.lease_id not in self._leases or self._world.now_s < lease.deadline_s:
            return
        self._world.note(STORE, "lease expired", lease.lease_id)
        self.revoke(lease.lease_id)

    def _arm(self, watch: SimWatch) -> None:
        if not watch.is_open or watch.is_armed or watch.next_revision > self.revision:
            return
        watch.is_armed = True
        slow_s = self.watch_delay_s.get(watch.node, 0.0)
        if slow_s:
            self.bitten["watches delayed"] += 1
        delay_s = self._dice.uniform(0.0005, 0.005) + self._dice.uniform(0.0, slow_s)
        self._world.after(delay_s, self._pump, watch, process=watch.process)

    def _pump(self, watch: SimWatch) -> None:
        watch.is_armed = False
        if not watch.is_open or watch.process.life is Life.ENDED:
            return
        if self._network.is_cut(STORE, watch.node) or self.process.life is not Life.RUNNING:
            self.bitten["watches held"] += 1
            watch.is_armed = True
            self._world.after(0.1, self._pump, watch, process=watch.process)
            return
        if watch.next_revision <= self.compacted_revision:
            self.bitten["watches compacted"] += 1
            self._interrupt(watch)
            return
        for batch in self._from(watch.next_revision, self._dice.randint(1, 4)):
            watch.next_revision = batch.revision + 1
            watch.deliver(batch)
            if not watch.is_open:
                return
        self._arm(watch)

    def _from(self, revision: int, limit: int) -> list[WatchBatch]:
        # Every revision is in the history unless compacted, so places can be counted.
        first = max(0, revision - self._history[0].revision) if self._history else 0
        return self._history[first : first + limit]

    def _interrupt(self, watch: SimWatch) -> None:
        watch.is_open = False
        delay_s = self._dice.uniform(0.0, 0.05)
        self._world.after(delay_s, watch.interrupted, process=watch.process)


def _check(transaction: Transaction) -> None:
    count = max(len(transaction.compares), len(transaction.operations))
    if count > MAX_OPERATIONS:
        raise InvalidTransaction(f"{count} operations in a transaction, max {MAX_OPERATIONS}")
    if len({each.key for each in transaction.operations}) < len(transaction.operations):
        raise InvalidTransaction("a transaction changes the same key twice")
