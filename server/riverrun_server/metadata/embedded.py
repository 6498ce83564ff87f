"""The metadata store of a single broker: a map in memory, rows in the broker's own store.

A transaction is decided and written in one step without an await, so it sees every one before it;
its answer, like every answer that shows it, waits until the disk has it. One task syncs for all who
wait and then lets watches see the events. Events are kept in memory for a bounded number of
revisions; a watch is a place among them and holds nothing itself.

Leases live as long as the process: whoever held one is gone when the store is opened again, so the
keys of all leases are deleted then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self, TypeVar

from riverrun_server.metadata.leases import Leases
from riverrun_server.metadata.revisions import RevisionedMap
from riverrun_server.metadata.rows import Rows
from riverrun_server.ports.clock import Clock, Dice
from riverrun_server.ports.log import StorageError, StorageStalled, Table
from riverrun_server.ports.metadata import (
    Delete,
    Entry,
    Event,
    Lease,
    Listing,
    MetadataUnavailable,
    Operation,
    Put,
    StoreEnded,
    Transaction,
    TransactionResult,
    UnknownOutcome,
    WatchBatch,
)
from riverrun_server.runtime.ending import end

R = TypeVar("R")

HISTORY_REVISIONS: Final = 1_000
# A store that compacts is stalled for seconds at the worst; after this something else is wrong.
_STALL_S: Final = 30.0
_STALL_STEP_S: Final = 0.05


class EmbeddedStore:
    """Implements ports.metadata.MetadataStore; use it as an async context manager.

    Transitions: open -> failed (a write or a sync failed: nothing is answered any more);
    open | failed -> closed.

    Args:
        table: where the rows are kept.
        durable: returns once everything written to the table before the call is on the disk;
            raises StorageError when that will never be known.
        clock: times leases.
        dice: makes lease ids.
        history_revisions: events of this many revisions are kept for watches and past reads.
        pause: waits, in seconds; only while the store is stalled.

    Raises:
        CorruptData: the rows are damaged, or of another version.
    """

    def __init__(
        self,
        table: Table,
        durable: Callable[[], Awaitable[None]],
        clock: Clock,
        dice: Dice,
        *,
        history_revisions: int = HISTORY_REVISIONS,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rows = Rows(table)
        self._sync = durable
        self._clock = clock
        self._dice = dice
        self._pause = pause
        revision, entries = self._rows.load()
        self._map = RevisionedMap(entries, revision, history_revisions)
        self._leases = Leases()
        # What is found was recovered by the store, and that is durable.
        self._durable_revision = revision
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._watches: set[_EmbeddedWatch] = set()
        self._work = asyncio.Event()
        self._ended: str | None = "it has not been started"
        self._task: asyncio.Task[None] | None = None
        leased = [entry.key for entry in entries if entry.lease]
        if leased:
            self._apply(tuple(Delete(key) for key in leased))

    async def __aenter__(self) -> Self:
        """Start the task that syncs and ends leases."""
        assert self._task is None, "opened twice"
        self._ended = None
        self._work.set()
        self._task = asyncio.create_task(self._run(), name="metadata-store")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; whoever still waits learns that the outcome is unknown."""
        assert self._task is not None
        try:
            await end(self._task)
        finally:
            self._end("it was closed")

    # --- reading ---------------------------------------------------------------------------------

    async def get(self, key: str, *, revision: int | None = None) -> Entry | None:
        """Return a key as it stands, or stood at a revision."""
        self._begin()
        entry = self._map.get(key, revision)
        await self._readable(self._map.revision if revision is None else revision)
        return entry

    async def scan(self, prefix: str, *, revision: int | None = None) -> Listing:
        """Return all keys that begin with `prefix`, as they stand, or stood at a revision."""
        self._begin()
        at = self._map.revision if revision is None else revision
        listing = Listing(at, self._map.scan(prefix, revision))
        await self._readable(at)
        return listing

    def watch(self, prefix: str, start_revision: int) -> _EmbeddedWatch:
        """Return a watch of every change under `prefix` from a revision on."""
        watch = _EmbeddedWatch(self, prefix, start_revision)
        self._watches.add(watch)
        return watch

    # --- writing ---------------------------------------------------------------------------------

    async def transact(self, transaction: Transaction) -> TransactionResult:
        """Apply a transaction or say why not."""
        transaction.check()
        result = await self._unstalled(lambda: self._decide(transaction))
        await self._written(result.revision)
        return result

    async def grant(self, ttl_s: float) -> Lease:
        """Make a lease."""
        self._begin()
        if self._leases.full:
            raise MetadataUnavailable("there are too many leases; is one made for every request?")
        lease_id = (int.from_bytes(self._dice.token(8)) >> 1) or 1
        self._leases.grant(lease_id, ttl_s, self._clock.monotonic())
        self._work.set()  # the task has a new deadline to wait for
        return Lease(lease_id, ttl_s)

    async def keep_alive(self, lease_id: int) -> Lease:
        """Let a lease begin anew with its full time."""
        self._begin()
        return Lease(lease_id, self._leases.keep_alive(lease_id, self._clock.monotonic()))

    async def revoke(self, lease_id: int) -> None:
        """End a lease now, and its keys with it."""
        await self._written(await self._unstalled(lambda: self._end_lease(lease_id)))

    def expire(self) -> None:
        """End the leases whose time is up, as every call does first and the task in between.

        A store that cannot write keeps them a little longer, which a lease allows.
        """
        for lease_id in self._leases.expired(self._clock.monotonic()):
            try:
                self._end_lease(lease_id)
            except StorageError:
                return

    # --- steps -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._ended is not None:
            raise StoreEnded(f"the metadata store has ended: {self._ended}")
        self.expire()

    def _decide(self, transaction: Transaction) -> TransactionResult:
        self._begin()
        for operation in transaction.operations:
            if isinstance(operation, Put) and operation.lease:
                self._leases.keys(operation.lease)
        if not all(map(self._map.holds, transaction.compares)):
            entries = {each.key: self._map.get(each.key) for each in transaction.compares}
            return TransactionResult(succeeded=False, revision=self._map.revision, entries=entries)
        self._apply(transaction.operations)
        return TransactionResult(succeeded=True, revision=self._map.revision)

    def _end_lease(self, lease_id: int) -> int:
        self._apply(tuple(Delete(key) for key in self._leases.keys(lease_id)))
        self._leases.end(lease_id)
        return self._map.revision

    def _apply(self, operations: tuple[Operation, ...]) -> None:
        """Write operations as the next revision, then show them to the next step."""
        events: tuple[Event, ...] = self._map.decide(operations)
        if not events:
            return
        self._rows.write(self._map.revision + 1, events)
        self._map.apply(events)
        self._leases.applied(events)
        self._work.set()

    async def _unstalled(self, step: Callable[[], R]) -> R:
        """Take a step, again and again while the store is stalled; it decides anew each time."""
        give_up = self._clock.monotonic() + _STALL_S
        while True:
            try:
                return step()
            except StorageStalled as error:
                if self._clock.monotonic() >= give_up:
                    raise MetadataUnavailable(f"the store is stalled: {error}") from error
            except StorageError as error:
                raise MetadataUnavailable(f"the store refused a write: {error}") from error
            await self._pause(_STALL_STEP_S)

    # --- syncing ---------------------------------------------------------------------------------

    async def _written(self, revision: int) -> None:
        try:
            await self._readable(revision)
        except MetadataUnavailable as error:
            raise UnknownOutcome(f"written, but perhaps not on the disk: {error}") from error

    async def _readable(self, revision: int) -> None:
        """Wait until everything up to a revision is durable."""
        if self._durable_revision >= revision:
            return
        if self._ended is not None:
            raise StoreEnded(f"the metadata store has ended: {self._ended}")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((revision, waiter))
        self._work.set()
        await waiter

    async def _run(self) -> None:
        try:
            while True:
                await self._wait_for_work()
                self.expire()
                target = self._map.revision
                if target > self._durable_revision:
                    await self._sync()
                    self._publish(target)
        except StorageError as error:
            self._end(f"it failed: {error}")
        except BaseException as error:
            self._end(f"its task ended: {error!r}")
            raise

    async def _wait_for_work(self) -> None:
        deadline = self._leases.next_deadline
        timeout = None
        if deadline is not None:
            timeout = max(deadline - self._clock.monotonic(), _STALL_STEP_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._work.wait()
        self._work.clear()

    def _publish(self, revision: int) -> None:
        self._durable_revision = revision
        waiting, self._waiting = self._waiting, []
        for needed, waiter in waiting:
            if needed > revision:
                self._waiting.append((needed, waiter))
            elif not waiter.done():
                waiter.set_result(None)
        for watch in self._watches:
            watch.wake()

    def _end(self, why: str) -> None:
        self._ended = why = self._ended or why
        for _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(StoreEnded(f"the metadata store has ended: {why}"))
        self._waiting.clear()
        for watch in self._watches:
            watch.wake()

    # --- for watches -----------------------------------------------------------------------------

    def next_batch(self, prefix: str, start: int) -> tuple[WatchBatch | None, int]:
        """Return the next durable change from a revision on, and where to go on."""
        if self._ended is not None:
            raise StoreEnded(f"the metadata store has ended: {self._ended}")
        return self._map.next_batch(prefix, start, self._durable_revision)

    def forget(self, watch: _EmbeddedWatch) -> None:
        """Wake a watch no more."""
        self._watches.discard(watch)


class _EmbeddedWatch:
    """Implements ports.metadata.Watch: a place in the store's history."""

    def __init__(self, store: EmbeddedStore, prefix: str, start_revision: int) -> None:
        assert start_revision > 0, start_revision
        self._store = store
        self._prefix = prefix
        self._position = start_revision
        self._wake = asyncio.Event()
        self._closed = False

    async def next(self) -> WatchBatch:
        """Wait for the next change under the prefix."""
        while not self._closed:
            self._wake.clear()
            batch, self._position = self._store.next_batch(self._prefix, self._position)
            if batch is not None:
                return batch
            await self._wake.wait()
        raise MetadataUnavailable("the watch is closed")

    async def close(self) -> None:
        """Let go."""
        self._closed = True
        self._store.forget(self)
        self.wake()

    def wake(self) -> None:
        """Look again."""
        self._wake.set()
