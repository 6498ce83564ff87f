"""The order in which a deleted topic goes, step by step."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.changes import NewTopic
from riverrun_server.core.cluster.image import ClusterImage, KeyChange, Versioned
from riverrun_server.core.cluster.values import BrokerRegistration, Id, Tombstone, TombstoneState
from riverrun_server.ports.metadata import Delete
from riverrun_server.runtime.metadata_feed import Applied
from riverrun_server.runtime.topic_deletions import TopicDeletions
from tests.runtime.catalog_world import LIVES, CatalogWorld

TOPIC_ID = Id(b"t" * 16)


class Deleting:
    """Notes what it is asked for; every step takes effect at once."""

    def __init__(self, state=TombstoneState.DELETING, pending=(1,), maker=(0, 0)):
        self.image, self.applied, self.done = ClusterImage(), Applied(), []
        broker, epoch = maker
        self.step(
            Tombstone(
                topic="t",
                topic_id=TOPIC_ID,
                state=state,
                pending=pending,
                maker=broker,
                maker_epoch=epoch,
            )
        )
        self.deletions = TopicDeletions(
            self.image, self.applied, self, self, 1, self.durable, asyncio.sleep
        )

    def step(self, tombstone):
        revision = self.image.revision + 1
        now = Versioned(tombstone, revision) if tombstone else None
        self.image.apply(revision, [KeyChange(keys.TombstoneKey(TOPIC_ID), now)])

    def register(self, broker, **what):
        """Register a broker's process; return its epoch."""
        revision = self.image.revision + 1
        value = BrokerRegistration(broker_id=broker, incarnations=LIVES, endpoints={}, **what)
        change = KeyChange(keys.BrokerKey(broker), Versioned(value, revision))
        self.image.apply(revision, [change])
        self.applied.publish(revision)
        return revision

    async def drop(self, topic_id):
        assert topic_id == TOPIC_ID
        self.done.append("drop")

    async def durable(self):
        self.done.append("sync")

    async def commit(self, steps):
        change = steps[-1].changes[-1]
        value = getattr(change, "value", None)
        self.done.append(value.state.value if value else "gone")
        self.step(value)
        self.applied.publish(self.image.revision)
        return self.image.revision

    async def run(self):
        task = asyncio.create_task(self.deletions.run())
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])


async def test_data_goes_first_then_it_is_synced_then_the_tombstone_goes():
    deleting = Deleting()
    deleting.applied.publish(1)
    await deleting.run()
    assert deleting.done == ["drop", "sync", "gone"]


async def test_nothing_is_deleted_before_the_topic_is_no_longer_served():
    deleting = Deleting()
    await deleting.run()
    assert deleting.done == []
    deleting.applied.publish(1)
    deleting.deletions.wake()
    await deleting.run()
    assert deleting.done == ["drop", "sync", "gone"]


async def test_a_topic_that_is_being_made_is_left_alone_until_it_is_given_up():
    deleting = Deleting(TombstoneState.CREATING, ())
    deleting.applied.publish(1)
    with deleting.deletions.holding(TOPIC_ID):
        await deleting.run()
        assert deleting.done == []
    await deleting.run()
    assert deleting.done == ["deleting", "drop", "sync", "gone"]


@pytest.mark.parametrize(
    "ends",
    [
        lambda deleting, epoch: deleting.register(2),
        lambda deleting, epoch: deleting.register(2, broker_epoch=epoch, fenced=True),
    ],
    ids=["begins anew", "is fenced"],
)
async def test_a_topic_that_another_broker_is_making_is_left_to_it_until_its_process(ends):
    deleting = Deleting(TombstoneState.CREATING, (), maker=(2, 2))
    epoch = deleting.register(2)
    deleting.deletions.wake()
    await deleting.run()
    assert deleting.done == []
    ends(deleting, epoch)
    deleting.deletions.wake()
    await deleting.run()
    assert deleting.done == ["deleting", "drop", "sync", "gone"]


async def test_a_topic_that_others_still_hold_keeps_its_tombstone():
    deleting = Deleting(pending=(1, 2))
    deleting.applied.publish(1)
    await deleting.run()
    assert deleting.done == ["drop", "sync", "deleting"]
    assert deleting.image.tombstones[TOPIC_ID].value.pending == (2,)


async def test_a_topic_that_only_others_held_is_left_to_them():
    deleting = Deleting(pending=(2,))
    deleting.applied.publish(1)
    await deleting.run()
    assert deleting.done == []


class ChecksTheDisk:
    """A store that looks at the disk whenever a tombstone goes."""

    def __init__(self, store, world):
        self._store = store
        self._world = world
        self.looked = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def transact(self, transaction):
        for operation in transaction.operations:
            if isinstance(operation, Delete) and operation.key.startswith("tombstones/"):
                self.looked += 1
                assert not [key for key in self._world.disk.synced_rows if key.startswith(b"log/")]
        return await self._store.transact(transaction)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_the_disk_has_forgotten_the_data_before_the_metadata_does(partitions):
    world, stores = CatalogWorld(), []

    def wrap(store):
        stores.append(ChecksTheDisk(store, world))
        return stores[-1]

    async with world.started(wrap=wrap) as catalog:
        await catalog.changes.create(NewTopic("t", partitions))
        await world.disk.durable()
        await catalog.changes.delete("t")
    assert stores[0].looked == 1
