"""One process for each broker of a cluster: a leased key says that it is alive.

A second process that calls itself the same broker does not start while the key is there, and the first
one ends when its key is another's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.values import LiveProcess
from riverrun_server.ports.clock import Clock, Dice
from riverrun_server.ports.metadata import (
    Compare,
    Documents,
    Entry,
    LeaseNotFound,
    MetadataError,
    MetadataStore,
    MetadataUnavailable,
    Put,
    StoreEnded,
    Transaction,
    UnknownOutcome,
)
from riverrun_server.runtime.lease_keeper import LeaseKeeper
from riverrun_server.runtime.settling import settle

LEASE_S: Final = 3.0
_MARGIN_S: Final = 0.5
_NONCE_BYTES: Final = 8
# What an earlier process left ends after its lease, and etcd may let it live a little longer.
_WAIT_S: Final = 3 * LEASE_S
_LOOK_EVERY_S: Final = 0.25
# A look that takes longer says nothing; the lease has to be renewed meanwhile.
_LOOK_S: Final = LEASE_S / 6
# A store that is away must not hold up the end of the process.
_END_S: Final = 1.0

_log = structlog.stdlib.get_logger(__name__)


class Superseded(MetadataError):
    """Another process is alive as this broker."""


class BrokerLiveness:
    """Holds the key of one broker for one process.

    Transitions: new -> alive (`begin`) -> alive (`run`, also with a new lease where the store was
    away for longer than the old one) -> superseded (`run` raised) | ended (`end`).

    Args:
        store: where the key stands.
        documents: writes its value.
        clock: counts the lease's time.
        dice: makes nonces.
        broker_id: of this broker.
        process: what is said of the process.
        pause: waits, in seconds.
    """

    def __init__(
        self,
        store: MetadataStore,
        documents: Documents,
        clock: Clock,
        dice: Dice,
        broker_id: int,
        process: LiveProcess,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._documents = documents
        self._clock = clock
        self._dice = dice
        self._key = keys.live(broker_id)
        self._broker_id = broker_id
        self._process = process
        self._pause = pause
        self._keeper = LeaseKeeper(store, clock, LEASE_S, _MARGIN_S, pause)
        self._revision = 0

    @property
    def lease_id(self) -> int:
        """The lease that the key goes with."""
        return self._keeper.lease_id

    @property
    def holds(self) -> bool:
        """Whether the lease may be relied on at this moment; ask again after every await."""
        return self._keeper.holds

    @property
    def deadline(self) -> float:
        """Until when it may be relied on, by the clock; only grows while the lease is held."""
        return self._keeper.deadline

    def deadline_with(self, shown: int) -> float:
        """Return until when the lease may be relied on for what a view of the metadata says.

        While the key is gone another process may get what this one had, whoever took the key away. So
        where another was put a lease says nothing until the key has come with the metadata: then
        everything from before has, too.

        Args:
            shown: the revision of the key in that view, 0 where it has none.
        """
        is_mine = shown == self._revision != 0
        return self.deadline if is_mine else float("-inf")

    async def begin(self) -> None:
        """Put the key, after one that an earlier process left is gone.

        Raises:
            Superseded: another process holds it.
            MetadataError: the store does not answer.
        """
        give_up = self._clock.monotonic() + _WAIT_S
        while (holder := await self._take()) is not None:
            if self._clock.monotonic() >= give_up:
                raise self._superseded(holder)
            await self._pause(_LOOK_EVERY_S)

    async def run(self) -> None:
        """Keep the key until cancelled.

        Raises:
            Superseded: another process holds it; this one has to end.
            StoreEnded
        """
        while True:
            try:
                await self._keeper.run(self._look)
            except LeaseNotFound:
                _log.warning("this broker's lease has ended; it gets another", key=self._key)
            await self._again()

    async def end(self) -> None:
        """Take the key away, so that the next process need not wait for its end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await self._keeper.release()

    async def _again(self) -> None:
        while True:
            try:
                holder = await self._take()
            except StoreEnded:
                raise
            except (MetadataUnavailable, UnknownOutcome, LeaseNotFound) as error:
                _log.warning("this broker has no lease yet", error=str(error))
                await self._pause(_LOOK_EVERY_S)
                continue
            if holder is not None:
                raise self._superseded(holder)
            return

    async def _take(self) -> Entry | None:
        """Put the key with a new lease; return who holds it where somebody does."""
        before = await self._store.get(self._key)
        if before is not None and not self._is_mine(before):
            return before
        self._revision = 0
        lease_id = await self._keeper.acquire()
        value = self._documents.encode(self._process, self._dice.token(_NONCE_BYTES))
        result = await settle(
            self._store,
            Transaction(
                (Compare.unchanged(self._key, before.mod_revision if before else 0),),
                (Put(self._key, value, lease_id),),
            ),
        )
        if not result.succeeded:
            return await self._store.get(self._key)
        self._revision = result.revision
        return None

    async def _look(self) -> None:
        """See whether the key is still the one that was put.

        Raises:
            Superseded: it is another process's.
            LeaseNotFound: it is gone, whoever took it away.
        """
        try:
            async with asyncio.timeout(_LOOK_S):
                entry = await self._store.get(self._key)
        except StoreEnded:
            raise
        except (MetadataUnavailable, TimeoutError):
            return
        if entry is None:
            raise LeaseNotFound(f"{self._key} is gone")
        if entry.mod_revision != self._revision:
            raise self._superseded(entry)

    def _is_mine(self, entry: Entry) -> bool:
        """Return whether a key is of this process, or of one before it on this data directory.

        The directory is locked by its process, so that one is gone.
        """
        other = self._documents.decode(LiveProcess, entry)
        return other.incarnation == self._process.incarnation

    def _superseded(self, entry: Entry) -> Superseded:
        other = self._documents.decode(LiveProcess, entry)
        return Superseded(
            f"broker {self._broker_id} is alive in another process, on {other.host!r} since "
            f"{other.start_time_ms} ms; each broker of a cluster needs a --broker-id of its own"
        )
