"""Committed offsets under elections, broken streams and late news, in virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import OffsetCommit
from tests.rpc.coordinators_world import Coordinators
from tests.rpc.reading_world import World
from tests.sim.loop import simulate

SECONDS = 20.0


def commit(offset, partition=0):
    return OffsetCommit("d", b"", partition, offset % 10, metadata=str(offset))


async def store(offsets, group, *commits):
    return [each.refusal for each in await offsets.commit(group, commits)]


async def found(offsets, group, partition=0):
    """Return the number of the commit that is found; 0 where there is none."""
    committed = await offsets.committed(group)
    [value] = [value for key, value in committed.items() if key.partition == partition] or [None]
    return 0 if value is None else int(value.metadata)


class Client:
    """Commits for one group through any broker, one after the other, and looks through any other."""

    def __init__(self, world, group):
        self.world = world
        self.group = group
        self.asked = self.acknowledged = self.told = self.refused = 0

    async def run(self):
        dice = self.world.dice
        while True:
            await self.commit(self.world.brokers[dice.choice(Coordinators.ids)])
            await asyncio.sleep(dice.choice([0, 0.05]))
            await self.look(self.world.brokers[dice.choice(Coordinators.ids)])

    async def commit(self, offsets):
        self.asked += 1
        [refusal] = await store(offsets, self.group, commit(self.asked))
        if refusal is None:
            self.acknowledged = self.asked
        else:
            self.refused += 1

    async def look(self, offsets):
        acknowledged = self.acknowledged
        value = await found(offsets, self.group)
        assert acknowledged <= value <= self.asked, (acknowledged, value, self.asked)
        # What was told is never taken back either.
        assert self.told <= value, (self.told, value)
        self.told = value


class Pipeline(Client):
    """Commits many at once through one broker; the last one counts."""

    async def commit(self, offsets):
        first, self.asked = self.asked + 1, self.asked + self.world.dice.randint(1, 8)
        numbers = range(first, self.asked + 1)
        tasks = []
        for number in numbers:
            tasks.append(asyncio.ensure_future(store(offsets, self.group, commit(number))))
            # In an order that the loop's dice do not change.
            await asyncio.sleep(self.world.dice.choice([1e-6, 0.01]))
        for number, [refusal] in zip(numbers, await asyncio.gather(*tasks), strict=True):
            if refusal is None:
                self.acknowledged = number
            else:
                self.refused += 1


async def trouble(world):
    """Elect and break streams, now and then many times in a row."""
    dice = world.dice
    while True:
        await asyncio.sleep(dice.choice([0.01, 0.1, 1.0]))
        if dice.random() < 0.5:
            world.elect(dice.choice(Coordinators.ids))
        else:
            dice.choice(list(dice.choice(list(world.links.values())).streams.values())).breaks()


@pytest.mark.parametrize("seed", range(15))
def test_no_commit_that_was_acknowledged_is_ever_older_than_what_is_told(seed):
    async def run():
        world = Coordinators(random.Random(seed))
        async with world.running():
            clients = [Client(world, "a"), Client(world, "b"), Pipeline(world, "c")]
            tasks = [asyncio.create_task(each.run()) for each in clients]
            tasks.append(asyncio.create_task(trouble(world)))
            done, _ = await asyncio.wait(
                tasks, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION
            )
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in done:
                task.result()
            assert world.elections > 5
            # Whatever went on, once it is over every broker tells everything.
            world.elect(2)
            await asyncio.sleep(1)
            for client in clients:
                for offsets in world.brokers.values():
                    await client.look(offsets)
                assert client.acknowledged > 20
            return world.log_start, sum(each.refused for each in clients)

    simulate(run(), seed)


def test_what_is_not_led_here_is_not_kept_here():
    async def run():
        world = Coordinators(random.Random(1))
        async with world.running():
            assert await store(world.brokers[3], "g", commit(1)) == [None]
            assert [each.coordinator.entries for each in world.brokers.values()] == [1, 0, 0]
            world.elect(3)
            await asyncio.sleep(1)
            assert [each.coordinator.entries for each in world.brokers.values()] == [0, 0, 1]

    simulate(run(), 1)


@pytest.mark.parametrize("hears", [True, False])
def test_a_broker_that_is_elected_again_reads_everything_anew_whether_its_metadata_said_so(hears):
    async def run():
        world = Coordinators(random.Random(1))
        async with world.running():
            assert await store(world.brokers[1], "g", commit(1)) == [None]
            if not hears:
                world.hearsay[1].hear = lambda *_: None
            world.elect(2, told_within_s=0)
            await asyncio.sleep(0.01)
            assert await store(world.brokers[2], "g", commit(2)) == [None]
            world.elect(1, told_within_s=0)
            await asyncio.sleep(1e-3)
            assert await found(world.brokers[1], "g") == 2
            assert await store(world.brokers[1], "h", commit(3)) == [None]
            assert await found(world.brokers[1], "g") == 2

    simulate(run(), 1)


def test_a_rewrite_of_what_another_broker_has_changed_meanwhile_brings_nothing_old_back():
    async def run():
        world = Coordinators(random.Random(1))
        async with world.running():
            old, new = world.brokers[1], world.brokers[2]
            assert await store(old, "g", commit(1)) == [None]
            for number in range(10):
                assert await store(old, "h", commit(number)) == [None]
            world.hearsay[1].hear = lambda *_: None
            world.elect(2, told_within_s=0)
            await asyncio.sleep(0.01)
            assert await store(new, "g", commit(2)) == [None]
            world.elect(1, told_within_s=0)
            await asyncio.sleep(0.01)
            # Nobody asks for offsets, which would notice; then the log is long enough.
            for number in range(30):
                assert await store(old, "h", commit(number)) == [None]
            assert world.log_start > 0
            assert await found(old, "g") == 2

    simulate(run(), 1)


def test_an_idle_coordinator_does_nothing():
    async def run():
        world = Coordinators(random.Random(1))
        async with world.running():
            assert await store(world.brokers[1], "g", commit(1)) == [None]
            replica = world.replicas[1]
            takes, submitted = replica.takes, replica.submitted
            await asyncio.sleep(3600)
            assert (replica.takes, replica.submitted) == (takes, submitted)

    simulate(run(), 1)


def test_nothing_begins_any_more_while_what_runs_comes_to_its_end():
    async def run():
        told = []
        async with World() as world:

            async def lasting():
                try:
                    await asyncio.Event().wait()
                finally:
                    with pytest.raises(Refusal) as refused:
                        world.offsets.spawn(asyncio.sleep(0), "too late")
                    told.append(refused.value.reason)

            world.offsets.spawn(lasting(), "lasting")
            await asyncio.sleep(1)
        assert told == [Reason.NOT_READY]

    simulate(run(), 1)
