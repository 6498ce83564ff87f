"""One broker process's dealings with the metadata store: its lease, its registration, its image.

Everything goes over the network and may be lost; whatever an answer leaves open is settled by listing
everything again. The image only ever goes forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.image import ClusterImage, KeyChange, Touched, Versioned
from riverrun_server.core.cluster.standing import broker_epoch
from riverrun_server.core.cluster.steps import EARLIER, Erase, Step, Write
from riverrun_server.core.cluster.values import BrokerRegistration, LiveProcess
from riverrun_server.ports.metadata import (
    Compare,
    Delete,
    Entry,
    Listing,
    MetadataError,
    Operation,
    Put,
    Transaction,
    TransactionResult,
    WatchBatch,
)
from tests.sim.cluster.clock import BrokerClock
from tests.sim.cluster.metadata import STORE, SimLease, SimMetadata, SimWatch
from tests.sim.cluster.network import Lost, Network
from tests.sim.cluster.world import Process, World

LEASE_S = 3.0
MARGIN_S = 0.5
CALL_TIMEOUT_S = 1.0
RETRY_S = 0.25


class Session:
    """Transitions: new -> listed -> alive (the live key is put) -> registered -> ready.

    A lost lease leads back to alive with another one; an interrupted watch, to another listing. Both
    leave the registration, and so the broker epoch, as they are.

    Args:
        registration: makes what is to be registered, with what the image says of this broker.
        changed: told of every change of the image, from when it is first listed.
        ready: called once, when the process is registered and its image shows that.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        store: SimMetadata,
        process: Process,
        clock: BrokerClock,
        broker: int,
        start_time_ms: int,
        registration: Callable[[BrokerRegistration | None], BrokerRegistration],
        changed: Callable[[Touched], None],
        ready: Callable[[], None],
    ) -> None:
        self.image = ClusterImage()
        self.broker_epoch = 0
        self.lease_id = 0
        self.deadline_s = float("-inf")
        self.interrupted_s = float("-inf")
        self._world, self._network, self._store = world, network, store
        self._process, self._clock, self._broker = process, clock, broker
        self._start_time_ms = start_time_ms
        self._registration = registration
        self._changed = changed
        self._ready = ready
        self._watch: SimWatch | None = None
        self._listing = 0
        self._listed: list[Callable[[], None]] = []
        self._dice = world.dice(f"session {process.name}")

    def begin(self) -> None:
        """List, live, register, watch, and do so for as long as the process runs."""
        self._list(self._go_live)

    def call(self, handle: Callable[[], object], done: Callable[[object], None]) -> None:
        """Ask the store; `done` gets its answer, the MetadataError that it raised, or Lost."""

        def carefully() -> object:
            try:
                return handle()
            except MetadataError as error:
                return error

        self._network.call(self._broker, STORE, carefully, done, CALL_TIMEOUT_S)

    def commit(self, steps: Sequence[Step], done: Callable[[object], None]) -> None:
        """Apply steps in order; `done` gets the last one's answer, or the first that is no success."""
        assert steps
        written: dict[str, int] = {}

        def advance(number: int) -> None:
            step = steps[number]

            def answered(answer: object) -> None:
                last = number == len(steps) - 1
                if last or not isinstance(answer, TransactionResult) or not answer.succeeded:
                    done(answer)
                    return
                written.update(dict.fromkeys((each.key for each in step.changes), answer.revision))
                advance(number + 1)

            self.call(lambda: self._store.transact(transaction(step, written)), answered)

        advance(0)

    def later(self, local_s: float, action: Callable[[], object]) -> None:
        """Call something after a time by this broker's clock."""
        self._world.after(self._clock.true_s(local_s), action, process=self._process)

    # The image.

    def _list(self, then: Callable[[], None] | None = None) -> None:
        """List everything and watch from there; whoever asks again meanwhile asks for a newer one."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if then is not None:
            self._listed.append(then)
        self._listing += 1
        listing = self._listing

        def listed(answer: object) -> None:
            if listing != self._listing:
                return
            if not isinstance(answer, Listing):
                self.later(RETRY_S, lambda: listing == self._listing and self._list())
                return
            changes = [change(entry.key, entry) for entry in answer.entries]
            touched = self.image.load(answer.revision, changes)
            self._begin_watch(answer.revision + 1)
            waiting, self._listed = self._listed, []
            self._changed(touched)
            for each in waiting:
                each()

        self.call(self._store.scan, listed)

    def _begin_watch(self, revision: int) -> None:
        self._watch = self._store.watch(
            self._broker, self._process, revision, self._apply, self._list
        )

    def _apply(self, batch: WatchBatch) -> None:
        changes = [change(event.key, event.entry) for event in batch.events]
        before = self.image.revision
        assert batch.revision > before, (batch.revision, before)
        self._changed(self.image.apply(batch.revision, changes))

    # The lease.

    def _go_live(self) -> None:
        sent_s = self._clock.monotonic()

        def granted(answer: object) -> None:
            if not isinstance(answer, SimLease):
                self.later(RETRY_S, self._go_live)
                return
            self._put_live(answer, sent_s)

        self.call(lambda: self._store.grant(LEASE_S), granted)

    def _put_live(self, lease: SimLease, sent_s: float) -> None:
        key = keys.live(self._broker)
        value = LiveProcess(
            incarnation=self._registration(None).incarnations.fsync,
            start_time_ms=self._start_time_ms,
        )
        before = self.image.live.get(self._broker)
        if before is not None and before.value.incarnation != value.incarnation:
            # Another life of this broker's data: wait for its lease to end.
            self.later(RETRY_S, lambda: self._list(self._go_live))
            return
        revision = before.mod_revision if before else 0
        put = Transaction((Compare.unchanged(key, revision),), (Put(key, value, lease.lease_id),))

        def answered(answer: object) -> None:
            if not isinstance(answer, TransactionResult) or not answer.succeeded:
                self.later(RETRY_S, lambda: self._list(self._go_live))
                return
            self.lease_id = lease.lease_id
            self.deadline_s = max(self.deadline_s, sent_s + LEASE_S - MARGIN_S)
            self.later(LEASE_S / 3, self._keep_alive)
            if not self.broker_epoch:
                self._register()

        self.call(lambda: self._store.transact(put), answered)

    def _keep_alive(self) -> None:
        sent_s = self._clock.monotonic()

        def answered(answer: object) -> None:
            if isinstance(answer, SimLease):
                self.deadline_s = max(self.deadline_s, sent_s + LEASE_S - MARGIN_S)
                self.later(LEASE_S / 3, self._keep_alive)
            elif answer is Lost.LOST:
                self.interrupted_s = self._clock.monotonic()
                self.later(LEASE_S / 10, self._keep_alive)
            else:
                self.interrupted_s = self._clock.monotonic()
                self._list(self._go_live)

        lease_id = self.lease_id
        self.call(lambda: self._store.keep_alive(lease_id), answered)

    # The registration.

    def _register(self) -> None:
        before = self.image.brokers.get(self._broker)
        if before is not None and before.value.start_time_ms == self._start_time_ms:
            # An earlier attempt whose answer was lost.
            self.broker_epoch = broker_epoch(before)
            self._ready()
            return
        value = self._registration(before.value if before else None)
        key = keys.broker(self._broker)
        revision = before.mod_revision if before else 0
        put = Transaction((Compare.unchanged(key, revision),), (Put(key, value),))

        def answered(answer: object) -> None:
            self.later(RETRY_S / 10, lambda: self._list(self._register))

        self.call(lambda: self._store.transact(put), answered)


def change(key: str, entry: Entry | None) -> KeyChange:
    """Return a key as the image takes it."""
    parsed = keys.parse(key)
    assert parsed is not None, key
    return KeyChange(parsed, None if entry is None else Versioned(entry.value, entry.mod_revision))


def transaction(step: Step, written: dict[str, int]) -> Transaction:
    """Return a step as a transaction; `written` has what earlier steps of its plan left."""
    compares: list[Compare] = []
    operations: list[Operation] = []
    for change in step.changes:
        at = change.mod_revision
        compares.append(Compare.unchanged(change.key, written[change.key] if at == EARLIER else at))
        if isinstance(change, Write):
            operations.append(Put(change.key, change.value))
        elif isinstance(change, Erase):
            operations.append(Delete(change.key))
    return Transaction(tuple(compares), tuple(operations))
