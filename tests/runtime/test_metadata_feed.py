"""A feed that loses its watch, or its store, keeps what it knows and lists again as soon as it can."""

from __future__ import annotations

import pytest

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.image import Versioned
from riverrun_server.core.cluster.values import ControllerValue, LiveProcess
from riverrun_server.ports.metadata import (
    AccessDenied,
    Delete,
    MetadataUnavailable,
    Put,
    StoreEnded,
    Transaction,
    WatchInterrupted,
)
from tests.runtime.catalog_world import LIVES, CatalogWorld, create, until


class Unsteady:
    """A store whose watches break and whose listings fail, as told."""

    def __init__(self, store):
        self._store = store
        self.breaks = None
        self.failures = []
        self.listings = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def scan(self, prefix, **more):
        self.listings += 1
        if self.failures:
            raise self.failures.pop(0)
        return await self._store.scan(prefix, **more)

    def watch(self, prefix, start_revision):
        return UnsteadyWatch(self, self._store.watch(prefix, start_revision))


class UnsteadyWatch:
    def __init__(self, store, watch):
        self._store, self._watch = store, watch

    async def next(self):
        batch = await self._watch.next()
        if self._store.breaks is not None:
            # The event is lost together with the watch.
            lost, self._store.breaks = self._store.breaks, None
            raise lost
        return batch

    async def close(self):
        await self._watch.close()


@pytest.fixture
async def world():
    world = CatalogWorld()
    world.stores = []
    world.wrap = lambda store: world.stores.append(Unsteady(store)) or world.stores[-1]
    return world


async def test_what_was_lost_with_a_watch_is_found_by_listing_again(world):
    async with world.started(wrap=world.wrap) as catalog:
        await create(catalog, "before")
        store = world.stores[-1]
        store.breaks = WatchInterrupted("cut")
        store.failures = [MetadataUnavailable("away"), AccessDenied("no"), MetadataUnavailable("x")]
        listings, pauses = store.listings, world.pauses
        await create(catalog, "lost")
        assert (store.listings - listings, world.pauses - pauses) == (4, 3)
        for name in ("before", "lost"):
            assert len(catalog.partitions(name)) == 1
        await create(catalog, "after")


async def test_topics_are_served_while_nothing_can_be_listed(world):
    async with world.started(wrap=world.wrap) as catalog:
        await create(catalog, "t")
        store = world.stores[-1]
        world.may_retry.clear()
        store.breaks = WatchInterrupted("cut")
        store.failures = [MetadataUnavailable("away")]
        await world.store.transact(Transaction((), (Put("anything", b""),)))
        await until(lambda: not store.failures)
        assert not catalog.follows_metadata
        [partition] = catalog.partitions("t")
        assert (await partition.watermarks()).log_end_offset == 0
        world.may_retry.set()
        await create(catalog, "u")
        assert catalog.follows_metadata


async def test_a_store_that_has_ended_ends_the_catalog(world):
    async def served():
        async with world.started(wrap=world.wrap) as catalog:
            store = world.stores[-1]
            store.breaks = WatchInterrupted("cut")
            store.failures = [StoreEnded("another one")]
            await world.store.transact(Transaction((), (Put("anything", b""),)))
            await until(lambda: catalog.changes._stopped)

    with pytest.raises(ExceptionGroup) as group:
        await served()
    assert group.group_contains(StoreEnded, match="another one")


async def test_who_is_alive_and_who_controls_is_seen_as_it_changes_and_in_a_listing(world):
    alive = LiveProcess(incarnation=LIVES.fsync, host="m2")
    controls = ControllerValue(broker_id=2, broker_epoch=7)
    async with world.started(wrap=world.wrap) as catalog:
        image, store = catalog._image, world.stores[-1]
        puts = (
            Put(keys.live(2), world.documents.encode(alive, b"1")),
            Put(keys.CONTROLLER, world.documents.encode(controls, b"2")),
        )
        revision = (await world.store.transact(Transaction((), puts))).revision
        await until(lambda: image.revision >= revision)
        assert image.live == {2: Versioned(alive, revision)}
        assert image.controller == Versioned(controls, revision)
        # What goes while the watch is broken is found to be gone.
        store.breaks = WatchInterrupted("cut")
        gone = Transaction((), (Delete(keys.live(2)), Delete(keys.CONTROLLER)))
        revision = (await world.store.transact(gone)).revision
        await until(lambda: image.revision >= revision)
        assert (image.live, image.controller) == ({}, None)
