"""A broker's lease on its liveness key, on a metadata store that is slow, in virtual time."""

from __future__ import annotations

import asyncio

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.values import LiveProcess
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.ports.metadata import Compare, Delete, Transaction
from riverrun_server.runtime.broker_liveness import BrokerLiveness
from tests.core.cluster_world import make_id
from tests.metadata.fakes import FakeDisk, SeededDice
from tests.runtime.test_controlling import LoopClock
from tests.sim.loop import simulate


def test_a_lease_counts_once_the_metadata_show_the_key_that_goes_with_it():
    """A key that was taken away early, its broker fenced and replaced; the news of that are late."""

    async def run():
        disk = FakeDisk()
        async with EmbeddedStore(disk, disk.durable, LoopClock(), SeededDice(0)) as store:
            process = LiveProcess(incarnation=make_id(1))
            liveness = BrokerLiveness(
                store, JsonDocuments(), LoopClock(), SeededDice(1), 1, process
            )
            await liveness.begin()
            first = (await store.get(keys.live(1))).mod_revision
            assert liveness.deadline_with(first) == liveness.deadline
            assert liveness.deadline_with(0) == float("-inf")
            running = asyncio.create_task(liveness.run())
            await asyncio.sleep(2)
            assert liveness.deadline_with(first) == liveness.deadline
            taken = Compare.unchanged(keys.live(1), first)
            await store.transact(Transaction((taken,), (Delete(keys.live(1)),)))
            for _ in range(100):
                await asyncio.sleep(0.05)
                if (entry := await store.get(keys.live(1))) is not None:
                    break
            await asyncio.sleep(0.05)
            assert liveness.holds
            assert liveness.deadline_with(first) == float("-inf"), "another may lead by now"
            assert liveness.deadline_with(entry.mod_revision) == liveness.deadline
            running.cancel()
            await asyncio.wait([running])

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
