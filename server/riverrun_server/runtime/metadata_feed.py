"""Keeps an image of the metadata up to date: one listing, then every change in order.

When the store no longer keeps what came between, everything is listed again. Events are applied by
their revision and never twice (watches of real stores have repeated and reordered them).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.image import ClusterImage, KeyChange, Touched, Versioned
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    ClusterValue,
    PartitionValue,
    Tombstone,
    TopicValue,
    Value,
)
from riverrun_server.ports.metadata import Compacted, Documents, Entry, MetadataStore, Watch

_KINDS: dict[type, type[Value]] = {
    keys.ClusterKey: ClusterValue,
    keys.BrokerKey: BrokerRegistration,
    keys.TopicKey: TopicValue,
    keys.PartitionKey: PartitionValue,
    keys.TombstoneKey: Tombstone,
}


class MetadataFeed:
    """Feeds one image.

    Transitions: new -> following (`load`) -> following (`next`, also by listing again) -> closed.
    """

    def __init__(self, store: MetadataStore, documents: Documents, image: ClusterImage) -> None:
        self._store = store
        self._documents = documents
        self._image = image
        self._watch: Watch | None = None

    async def load(self) -> Touched:
        """List everything.

        Raises:
            InvalidDocument: a value is not what its key promises.
            MetadataUnavailable
        """
        await self.close()
        listing = await self._store.scan("")
        changes = [(entry.key, entry) for entry in listing.entries]
        touched = self._image.load(listing.revision, list(self._decoded(changes)))
        self._watch = self._store.watch("", listing.revision + 1)
        return touched

    async def next(self) -> Touched:
        """Wait for the next change and apply it.

        Raises:
            InvalidDocument, MetadataUnavailable
        """
        assert self._watch is not None, "not loaded"
        try:
            batch = await self._watch.next()
        except Compacted:
            return await self.load()
        changes = [(event.key, event.entry) for event in batch.events]
        return self._image.apply(batch.revision, self._decoded(changes))

    async def close(self) -> None:
        """Let go of the watch."""
        if self._watch is not None:
            await self._watch.close()

    def _decoded(self, changes: Iterable[tuple[str, Entry | None]]) -> Iterator[KeyChange]:
        for name, entry in changes:
            key = keys.parse(name)
            if key is None:
                continue
            now = None
            if entry is not None:
                value = self._documents.decode(_KINDS[type(key)], entry)
                now = Versioned(value, entry.mod_revision)
            yield KeyChange(key, now)


class Applied:
    """The revision up to which changes have taken effect, and who waits for it to move on."""

    def __init__(self) -> None:
        self.revision = 0
        self._moved = asyncio.Event()
        self._stopped = False

    def publish(self, revision: int) -> None:
        """Say that everything up to a revision has taken effect."""
        assert revision >= self.revision, (revision, self.revision)
        self.revision = revision
        self._ring()

    def stop(self) -> None:
        """End every wait: nothing will take effect any more."""
        self._stopped = True
        self._ring()

    async def reached(self, revision: int) -> bool:
        """Wait for a revision; return False where it will not come."""
        while self.revision < revision:
            if not await self.moved():
                return False
        return True

    async def moved(self) -> bool:
        """Wait for any change; return False where none will come."""
        if not self._stopped:
            await self._moved.wait()
        return not self._stopped

    def _ring(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
