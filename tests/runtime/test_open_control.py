"""Brokers that share one metadata store; each test fails until what it found is repaired."""

from __future__ import annotations

import asyncio

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.changes import NewTopic
from riverrun_server.core.cluster.values import LiveProcess, TombstoneState
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.ports.metadata import Compare, Delete, Transaction
from riverrun_server.runtime.broker_liveness import BrokerLiveness
from tests.core.cluster_world import make_id
from tests.metadata.fakes import FakeDisk, SeededDice
from tests.runtime.test_controlling import Broker, LoopClock
from tests.runtime.test_topic_deletions import TOPIC_ID, Deleting
from tests.sim.loop import simulate


async def test_a_topic_that_another_broker_is_making_is_left_to_it():
    """Its tombstone is seen by all; only the maker knows that it is not given up."""
    deleting = Deleting(TombstoneState.CREATING, ())
    deleting.applied.publish(1)
    await deleting.run()
    assert deleting.done == []
    assert deleting.image.tombstones[TOPIC_ID].value.state is TombstoneState.CREATING


def test_a_broker_between_two_leases_claims_nothing():
    """The leases of two brokers end, one revision after the other; the image shows the first only."""

    async def run():
        disk = FakeDisk()
        async with EmbeddedStore(disk, disk.durable, LoopClock(), SeededDice(0)) as store:
            broker = Broker(store, 1)
            await broker.start()
            await asyncio.sleep(1)
            assert broker.image.controller is not None
            broker.liveness._keeper._lease = None  # as `acquire` leaves it while it waits
            found = broker.image.controller.mod_revision
            await store.transact(
                Transaction(
                    (Compare.unchanged(keys.CONTROLLER, found),), (Delete(keys.CONTROLLER),)
                )
            )
            await asyncio.sleep(0.1)
            ended = [task.exception() for task in broker._tasks if task.done()]
            await broker.die()
            assert ended == []

    simulate(run(), 1)


def test_a_topic_that_cannot_be_made_now_does_not_end_the_control():
    async def run():
        disk = FakeDisk()
        async with EmbeddedStore(disk, disk.durable, LoopClock(), SeededDice(0)) as store:
            broker = Broker(store, 1, internal=(NewTopic("__x", 1, 1),))
            await broker.start()

            async def make(topics):
                raise Refusal(Reason.STORAGE_STALLED, "the metadata store took nothing")

            broker.controlling._make = make
            await asyncio.sleep(10)
            ended = [task.exception() for task in broker._tasks if task.done()]
            await broker.die()
            assert ended == []

    simulate(run(), 1)


def test_a_slow_look_at_the_key_does_not_hold_up_the_lease():
    """A read may take five seconds, a lease has three: it ends while it could have been renewed."""

    class Slow(EmbeddedStore):
        slow = False

        async def get(self, key, **how):
            if self.slow and key == keys.live(1):
                self.slow = False
                await asyncio.sleep(4.5)
            return await super().get(key, **how)

    async def run():
        disk = FakeDisk()
        async with Slow(disk, disk.durable, LoopClock(), SeededDice(0)) as store:
            liveness = BrokerLiveness(
                store,
                JsonDocuments(),
                LoopClock(),
                SeededDice(1),
                1,
                LiveProcess(incarnation=make_id(1)),
            )
            await liveness.begin()
            lease = liveness.lease_id
            running = asyncio.create_task(liveness.run())
            await asyncio.sleep(5)
            store.slow = True
            held = []
            for _ in range(100):
                await asyncio.sleep(0.1)
                held.append(liveness.holds)
            running.cancel()
            await asyncio.wait([running])
            assert all(held), f"no lease for {held.count(False) / 10} s"
            assert liveness.lease_id == lease

    simulate(run(), 1)
