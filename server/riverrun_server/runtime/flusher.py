"""The one flusher of a store: everything that arrived during a sync is the next group.

What a sync proves is captured on the loop *before* the sync begins: an append that lands while the
disk works belongs to the next one. A sync that fails proves nothing about what is on the disk
(fsync errors are not retryable, the kernel may have dropped the pages), so nothing is answered any
more and the process ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import structlog

from riverrun_server.ports.clock import Clock
from riverrun_server.ports.log import StorageError, StorageFailed
from riverrun_server.ports.threads import Threads

_log = structlog.stdlib.get_logger(__name__)


Point = TypeVar("Point")


class Syncable(Protocol[Point]):
    """What has written something that a sync can prove."""

    def sync_point(self) -> Point:
        """Say what has been written, for a sync begins now."""
        ...

    def synced(self, point: Point) -> None:
        """Learn that what had been written at a point is on disk."""
        ...


class SyncedStore(Protocol):
    """What a flusher needs of a store; both methods block and run in its thread."""

    def sync(self) -> None:
        """Make everything written before this call durable."""
        ...

    def write_watermark(self, *, clean: bool) -> None:
        """Note outside of the store how far it is durable."""
        ...


class Flusher:
    """Syncs a store whenever something was written, and tells who waits.

    Args:
        store: what is synced.
        clock: times syncs.
        thread: a pool of one thread that nobody else uses.
        observe_sync: told how long each sync took, in seconds.
        observe_wait: told how long the oldest append of each group waited for its sync to begin.

    Transitions: idle -> syncing (touched) -> idle | syncing (touched meanwhile); any -> failed.
    """

    WATERMARK_INTERVAL_S = 1.0

    def __init__(
        self,
        store: SyncedStore,
        clock: Clock,
        thread: Threads,
        *,
        observe_sync: Callable[[float], None] = lambda _seconds: None,
        observe_wait: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._observe_sync = observe_sync
        self._observe_wait = observe_wait
        self._dirty_since = 0.0
        self._dirty: dict[int, Syncable[Any]] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._work = asyncio.Event()
        self._thread = thread
        self._failure: StorageFailed | None = None
        self._marked_at = clock.monotonic()
        self._mark_stale = False
        self._mark_timer: asyncio.TimerHandle | None = None

    def touch(self, partition: Syncable[Any]) -> None:
        """Have a partition told how much of it the next sync proves."""
        if not self._dirty:
            self._dirty_since = self._clock.monotonic()
        self._dirty[id(partition)] = partition
        self._work.set()

    def forget(self, partition: Syncable[Any]) -> None:
        """Tell a partition nothing any more; it is closed."""
        self._dirty.pop(id(partition), None)

    async def durable(self) -> None:
        """Return once everything written to the store before this call is on disk.

        Raises:
            StorageFailed: nobody knows what is on the disk.
        """
        self._check()
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._work.set()
        await waiter

    async def answers(self) -> None:
        """Return once the thread has looked up: a disk that hangs in a sync keeps it away."""
        await self._thread.run(lambda: None)

    def fail(self, error: StorageError) -> None:
        """End the process: a write failed in a way that says nothing good about the disk."""
        if self._failure is None:
            self._failure = StorageFailed(str(error))
        self._work.set()

    async def run(self) -> None:
        """Sync until cancelled.

        Raises:
            StorageFailed: a sync failed; end the process without answering anything.
        """
        waiters: list[asyncio.Future[None]] = []
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                self._check()
                waiters, self._waiters = self._waiters, []
                await self._round()
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(None)
        except asyncio.CancelledError:
            for waiter in waiters:
                waiter.cancel()
            raise
        except Exception as error:
            raise self._failed(error, waiters) from error
        finally:
            if self._mark_timer is not None:
                self._mark_timer.cancel()

    def _check(self) -> None:
        if self._failure:
            raise self._failure

    def _failed(self, error: Exception, waiters: list[asyncio.Future[None]]) -> StorageFailed:
        """Tell everyone: whatever it was, nobody may wait for a sync that never comes."""
        self._failure = StorageFailed(f"the store could not be synced: {error}")
        for waiter in [*waiters, *self._waiters]:
            if not waiter.done():
                waiter.set_exception(self._failure)
        self._waiters.clear()
        return self._failure

    async def _round(self) -> None:
        captured = [(each, each.sync_point()) for each in self._dirty.values()]
        if captured:
            self._observe_wait(self._clock.monotonic() - self._dirty_since)
        self._dirty.clear()
        await self._thread.run(self._sync)
        for partition, point in captured:
            partition.synced(point)
        if self._mark_stale and self._mark_timer is None:
            # The last writes of a burst are noted too, though nothing follows them.
            loop = asyncio.get_running_loop()
            self._mark_timer = loop.call_later(self.WATERMARK_INTERVAL_S, self._mark_soon)

    def _mark_soon(self) -> None:
        self._mark_timer = None
        self._work.set()

    async def close(self, within_s: float) -> None:
        """Wait for the thread, so long at most; call it after `run` has ended.

        Raises:
            ThreadsHang: the disk does not come back from a sync.
        """
        for waiter in self._waiters:
            waiter.cancel()
        await self._thread.close(within_s)

    def _sync(self) -> None:
        began = self._clock.monotonic()
        self._store.sync()
        ended = self._clock.monotonic()
        self._observe_sync(ended - began)
        if ended - self._marked_at < self.WATERMARK_INTERVAL_S:
            self._mark_stale = True
            return
        try:
            self._store.write_watermark(clean=False)
        except StorageError as error:
            # The old mark is still true, only weaker; it is written with the next sync.
            _log.warning("the durable watermark could not be written", why=str(error))
            self._mark_stale = True
            return
        self._marked_at = ended
        self._mark_stale = False
