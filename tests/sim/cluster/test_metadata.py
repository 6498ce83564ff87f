"""The simulated metadata store keeps etcd's promises and breaks what etcd does not promise."""

from __future__ import annotations

import pytest

from riverrun_server.ports.metadata import (
    Compare,
    Delete,
    FutureRevision,
    InvalidTransaction,
    LeaseNotFound,
    Put,
    Relation,
    Target,
    Transaction,
)
from tests.sim.cluster.metadata import STORE, SimMetadata
from tests.sim.cluster.network import Network
from tests.sim.cluster.world import Process, World


class Stage:
    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed)
        self.network = Network(self.world)
        self.store = SimMetadata(self.world, self.network)
        self.process = Process("watcher")
        self.seen: list[int] = []
        self.interruptions = 0

    def put(self, key: str, value: object, *compares: Compare, lease: int = 0):
        return self.store.transact(Transaction(compares, (Put(key, value, lease),)))

    def watch(self, start: int):
        return self.store.watch("w", self.process, start, self._deliver, self._interrupted)

    def run(self, for_s: float) -> None:
        self.world.run(self.world.now_s + for_s)

    def _deliver(self, batch) -> None:
        self.seen.append(batch.revision)

    def _interrupted(self) -> None:
        self.interruptions += 1


def test_a_transaction_applies_whole_or_says_what_stands_there():
    stage = Stage()
    done = stage.put("a", "one", Compare.absent("a"))
    assert done.succeeded
    again = stage.put("a", "two", Compare.absent("a"))
    assert not again.succeeded
    assert again.entries["a"].value == "one"
    assert stage.put("a", "two", Compare.unchanged("a", done.revision)).succeeded
    entry = stage.store.get("a")
    assert (entry.value, entry.create_revision, entry.version) == ("two", done.revision, 2)
    assert stage.put("a", "three", Compare.same_life("a", done.revision)).succeeded
    gone = stage.store.transact(Transaction((Compare.exists("a"),), (Delete("a"),)))
    assert gone.succeeded
    assert not stage.put("b", "x", Compare("a", Target.VALUE, Relation.NOT_EQUAL, "y")).succeeded


def test_a_transaction_that_changes_nothing_takes_no_revision():
    stage = Stage()
    before = stage.store.revision
    assert stage.store.transact(Transaction((), (Delete("a"),))).revision == before
    assert not stage.put("a", 1, Compare.exists("a")).succeeded
    assert stage.store.revision == before


def test_a_transaction_is_bounded_and_changes_no_key_twice():
    stage = Stage()
    with pytest.raises(InvalidTransaction):
        stage.store.transact(Transaction((), (Put("a", 1), Delete("a"))))
    with pytest.raises(InvalidTransaction):
        stage.store.transact(Transaction((), tuple(Put(str(n), n) for n in range(101))))


def test_keys_go_with_their_lease_and_never_before_its_time():
    stage = Stage()
    lease = stage.store.grant(3.0)
    stage.put("live", "me", lease=lease.lease_id)
    for _ in range(5):
        stage.run(2.9)
        assert stage.store.get("live")
        stage.store.keep_alive(lease.lease_id)
    stage.run(2.99)
    assert stage.store.get("live")
    stage.run(0.3)
    assert stage.store.get("live") is None
    with pytest.raises(LeaseNotFound):
        stage.store.keep_alive(lease.lease_id)
    with pytest.raises(LeaseNotFound):
        stage.put("live", "me", lease=lease.lease_id)


def test_leases_end_early_or_late_when_the_store_is_in_trouble():
    stage = Stage()
    lease = stage.store.grant(3.0)
    stage.put("live", "me", lease=lease.lease_id)
    assert stage.store.end_leases_early(1.0) == 1
    assert stage.store.get("live") is None
    stage.store.late_leases_s = 100.0
    lease = stage.store.grant(3.0)
    stage.put("live", "me", lease=lease.lease_id)
    stage.run(3.3)
    assert stage.store.get("live")
    assert stage.store.renew_all_leases() == 1
    stage.run(200.0)
    assert stage.store.get("live") is None


def test_a_watch_delivers_every_revision_once_in_order():
    stage = Stage()
    for number in range(10):
        stage.put("a", number)
    stage.watch(2)
    for number in range(10):
        stage.put("b", number)
        stage.run(0.001)
    stage.run(1.0)
    assert stage.seen == list(range(2, 22))
    with pytest.raises(FutureRevision):
        stage.watch(stage.store.revision + 2)
    stage.watch(stage.store.revision + 1)


def test_a_watch_that_is_cut_off_is_late_and_misses_nothing():
    stage = Stage()
    stage.watch(2)
    stage.network.cut(STORE, "w")
    for number in range(5):
        stage.put("a", number)
    stage.run(5.0)
    assert stage.seen == []
    stage.network.mend(STORE, "w")
    stage.run(1.0)
    assert stage.seen == [2, 3, 4, 5, 6]
    assert stage.store.bitten["watches held"] > 0


def test_a_watch_that_needs_what_is_compacted_is_interrupted():
    stage = Stage()
    stage.watch(2)
    for number in range(5):
        stage.put("a", number)
    assert stage.store.compact(keep=2) == 4
    stage.run(1.0)
    assert stage.seen == []
    assert stage.interruptions == 1
    stage.watch(5)
    stage.run(1.0)
    assert stage.seen == [5, 6]


def test_an_interrupted_watch_says_so_once_and_is_silent():
    stage = Stage()
    stage.watch(2)
    assert stage.store.interrupt_watches("w") == 1
    stage.put("a", 1)
    stage.run(1.0)
    assert (stage.seen, stage.interruptions) == ([], 1)
    assert stage.store.interrupt_watches("w") == 0


def test_a_slow_watch_is_slow():
    stage = Stage()
    stage.watch(2)
    stage.store.watch_delay_s["w"] = 50.0
    stage.put("a", 1)
    stage.run(0.1)
    assert stage.seen == []
    stage.run(60.0)
    assert stage.seen == [2]
    assert stage.store.bitten["watches delayed"] > 0


def test_whoever_observes_hears_of_each_revision_before_anybody_else():
    world = World(1)
    heard = []
    store = SimMetadata(world, Network(world), lambda revision, events: heard.append(revision))
    result = store.transact(Transaction((), (Put("a", 1), Put("b", 2))))
    assert heard == [result.revision]
