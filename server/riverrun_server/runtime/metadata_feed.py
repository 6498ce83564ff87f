"""Keeps an image of the metadata up to date: one listing, then every change in order.

When the store no longer keeps what came between, or the watch cannot show that it missed nothing,
everything is listed again, for as long as that takes: a store that does not answer changes nothing of
what is served. Events are applied by their revision and never twice (watches of real stores have
repeated and reordered them).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final

import structlog

from riverrun_server.core.backoff import Backoff
from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.image import ClusterImage, KeyChange, Touched, Versioned
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    ClusterValue,
    ControllerValue,
    LiveProcess,
    PartitionValue,
    Tombstone,
    TopicValue,
    Value,
)
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.metadata import (
    Compacted,
    Documents,
    Entry,
    MetadataError,
    MetadataStore,
    MetadataUnavailable,
    StoreEnded,
    Watch,
    WatchInterrupted,
)

_RETRY_S: Final = 0.1
_RETRY_MAX_S: Final = 5.0

_KINDS: dict[type, type[Value]] = {
    keys.ClusterKey: ClusterValue,
    keys.BrokerKey: BrokerRegistration,
    keys.LiveKey: LiveProcess,
    keys.ControllerKey: ControllerValue,
    keys.TopicKey: TopicValue,
    keys.PartitionKey: PartitionValue,
    keys.TombstoneKey: Tombstone,
}

_log = structlog.stdlib.get_logger(__name__)


class MetadataFeed:
    """Feeds one image.

    Transitions: new -> following (`load`) -> following (`next`, also by listing again) -> closed.

    Attributes:
        following: changes are seen as they come.

    Args:
        store: what is followed.
        documents: how values stand in it.
        image: what is kept up to date.
        dice: spreads the listings of brokers that lost the store together.
        pause: waits, in seconds, before a store is asked again that did not answer.
    """

    def __init__(
        self,
        store: MetadataStore,
        documents: Documents,
        image: ClusterImage,
        dice: Dice,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._documents = documents
        self._image = image
        self._dice = dice
        self._pause = pause
        self._watch: Watch | None = None
        self.following = False

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
        self.following = True
        return touched

    async def next(self) -> Touched:
        """Wait for the next change and apply it.

        Raises:
            InvalidDocument: a value is not what its key promises.
            StoreEnded: no change will ever come.
            MetadataUnavailable: the feed was closed.
        """
        assert self._watch is not None, "not loaded"
        try:
            batch = await self._watch.next()
        except (Compacted, WatchInterrupted) as lost:
            return await self._list_again(lost)
        changes = [(event.key, event.entry) for event in batch.events]
        return self._image.apply(batch.revision, self._decoded(changes))

    async def close(self) -> None:
        """Let go of the watch."""
        if self._watch is not None:
            await self._watch.close()

    async def _list_again(self, lost: MetadataError) -> Touched:
        """List everything as soon as the store answers; until then what is known stays."""
        self.following = False
        backoff = Backoff(self._dice.uniform, _RETRY_S, _RETRY_MAX_S)
        _log.warning("metadata is listed again", revision=self._image.revision, why=str(lost))
        while True:
            try:
                touched = await self.load()
            except StoreEnded:
                raise
            except MetadataUnavailable as error:
                _log.warning("metadata cannot be listed, what is known stays", error=str(error))
                await self._pause(backoff.next_s())
            else:
                _log.info("metadata is followed again", revision=self._image.revision)
                return touched

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
