"""Keeps one lease of the metadata store alive, and knows by its own clock for how long it holds.

A lease gives liveness and nothing else: what is done while it holds is fenced where it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from riverrun_server.core.cluster.lease_term import LeaseTerm
from riverrun_server.ports.clock import Clock
from riverrun_server.ports.metadata import (
    Lease,
    LeaseNotFound,
    MetadataError,
    MetadataStore,
    MetadataUnavailable,
    StoreEnded,
)


class LeaseKeeper:
    """Holds a lease.

    Transitions: new -> held (`acquire`) -> held (renewed by `run`) -> lost (`run` raised) -> held
    (`acquire`). While it is held, `holds` turns false at the deadline, and true again where a renewal
    was answered after all.

    Args:
        store: gives the lease.
        clock: counts its time; a suspended machine's has to go on.
        ttl_s: asked for; the store may give more.
        margin_s: so much earlier than the store `holds` turns false.
        pause: waits, in seconds, between renewals.
    """

    def __init__(
        self,
        store: MetadataStore,
        clock: Clock,
        ttl_s: float,
        margin_s: float,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ttl_s = ttl_s
        self._pause = pause
        self._term = LeaseTerm(margin_s)
        self._lease: Lease | None = None

    @property
    def lease_id(self) -> int:
        """The lease, for the keys that go with it."""
        assert self._lease is not None, "no lease was acquired"
        return self._lease.lease_id

    @property
    def holds(self) -> bool:
        """Whether the lease may be relied on at this moment; ask again after every await."""
        return self._lease is not None and self._term.holds(self._clock.monotonic())

    @property
    def deadline(self) -> float:
        """Until when the lease may be relied on, by the clock."""
        return self._term.deadline if self._lease is not None else float("-inf")

    async def acquire(self) -> int:
        """Get a new lease; return its id.

        Raises:
            MetadataError: as MetadataStore.grant; an earlier lease is no longer held.
        """
        self._lease, self._term = None, self._term.anew()
        sent_at = self._clock.monotonic()
        self._lease = await self._store.grant(self._ttl_s)
        self._term.begin(sent_at, self._lease.ttl_s)
        return self._lease.lease_id

    async def run(self, renewed: Callable[[], Awaitable[None]] | None = None) -> None:
        """Renew until the lease is lost; run it in a task of its own.

        Args:
            renewed: called after each renewal; what it raises ends the run.

        Raises:
            LeaseNotFound: the store has ended the lease.
            StoreEnded: the store will answer nothing any more.
        """
        failed = False
        while True:
            await self._pause(self._term.pause_s(failed=failed))
            failed = not await self._renew()
            if not failed and renewed is not None:
                await renewed()

    async def release(self) -> None:
        """End the lease and its keys, where the store answers; else they end by themselves."""
        lease, self._lease = self._lease, None
        if lease is not None:
            with contextlib.suppress(MetadataError):
                await self._store.revoke(lease.lease_id)

    async def _renew(self) -> bool:
        """Return whether the store has answered that the lease goes on."""
        sent_at = self._clock.monotonic()
        try:
            # An answer later than this is of no use: the next attempt is due.
            async with asyncio.timeout(self._term.pause_s(failed=False)):
                lease = await self._store.keep_alive(self.lease_id)
        except LeaseNotFound:
            self._lease = None
            raise
        except StoreEnded:
            raise
        except (MetadataUnavailable, TimeoutError):
            return False
        self._term.begin(sent_at, lease.ttl_s)
        return True
