"""Brokers that control themselves, on a metadata store with leases, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.changes import NewTopic, TopicPolicy, create
from riverrun_server.core.cluster.controller import Controller
from riverrun_server.core.cluster.controller_election import ControllerElection
from riverrun_server.core.cluster.fencing import Fencing
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import Leader
from riverrun_server.core.cluster.steps import ABSENT, Step, Write
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    Incarnations,
    LiveProcess,
)
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.ports.metadata import Compare, Delete, Transaction
from riverrun_server.runtime.broker_liveness import LEASE_S, BrokerLiveness
from riverrun_server.runtime.controlling import Controlling
from riverrun_server.runtime.metadata_feed import MetadataFeed
from riverrun_server.runtime.metadata_writer import MetadataWriter
from tests.core.cluster_world import make_id
from tests.metadata.fakes import FakeDisk, SeededDice
from tests.sim.loop import simulate

POLICY = TopicPolicy(default_replication_factor=3)
DOCUMENTS = JsonDocuments()


class LoopClock:
    def monotonic(self):
        return asyncio.get_running_loop().time()

    def wall_ms(self):
        return 1_700_000_000_000 + int(self.monotonic() * 1000)


class Broker:
    """One process as far as control is concerned."""

    def __init__(self, store, broker, internal=()):
        self.id = broker
        self.store = store
        self.image = ClusterImage()
        self.internal = internal
        self.writer = MetadataWriter(store, DOCUMENTS, SeededDice(broker))
        self._tasks = []

    async def start(self):
        clock, dice = LoopClock(), SeededDice(self.id)
        lives = Incarnations(make_id(self.id), make_id(self.id))
        process = LiveProcess(incarnation=lives.fsync)
        self.liveness = BrokerLiveness(self.store, DOCUMENTS, clock, dice, self.id, process)
        await self.liveness.begin()
        feed = MetadataFeed(self.store, DOCUMENTS, self.image, dice)
        await feed.load()
        found = self.image.brokers.get(self.id)
        registration = BrokerRegistration(broker_id=self.id, incarnations=lives, endpoints={})
        write = Write(keys.broker(self.id), registration, found.mod_revision if found else ABSENT)
        self.epoch = await self.writer.commit((Step((write,)),))
        self.leader = Leader(self.id, self.epoch, lives)
        fencing = Fencing(self.id, LEASE_S)
        self.controlling = Controlling(
            self.image,
            ControllerElection(self.id, self.epoch),
            Controller(self.id, self.epoch, POLICY, fencing, self.internal),
            fencing,
            self.liveness,
            self.store,
            self.writer,
            DOCUMENTS,
            clock,
            dice,
            self.make,
        )
        self._tasks = [
            asyncio.create_task(each)
            for each in (self.liveness.run(), self._follow(feed), self.controlling.run())
        ]

    async def _follow(self, feed):
        while True:
            await feed.next()
            self.controlling.wake()

    async def make(self, topics):
        for number, topic in enumerate(topics):
            await self.create(topic, make_id(0x900 + number))

    async def create(self, topic, topic_id):
        plan = create(self.image, topic, POLICY, self.leader, topic_id, 7)
        await self.writer.commit(plan.steps)

    async def die(self):
        """End as SIGKILL does: the lease runs out by itself."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def partition(self):
        [topic] = self.image.topics.values()
        return self.image.partitions[topic.value.topic_id][0].value


class Cluster:
    def __init__(self, store, brokers):
        self.store = store
        self.brokers = brokers

    async def until(self, condition, timeout_s=60.0):
        """Wait, in virtual time; return how long it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - virtual time costs nothing
                await asyncio.sleep(0.01)
        return loop.time() - began

    async def create_topic(self):
        """Make a topic of one partition; everybody knows it then."""
        await self.brokers[1].create(NewTopic("t", 1), make_id(0x500))
        await self.until(lambda: all(broker.image.topics for broker in self.brokers.values()))

    def controllers(self):
        return {
            broker.image.controller and broker.image.controller.value.broker_id
            for broker in self.brokers.values()
        }


@contextlib.asynccontextmanager
async def cluster(internal=()):
    disk = FakeDisk()
    async with EmbeddedStore(disk, disk.durable, LoopClock(), SeededDice()) as store:
        brokers = {broker: Broker(store, broker, internal) for broker in (1, 2, 3)}
        them = Cluster(store, brokers)
        for broker in brokers.values():
            await broker.start()
        await them.until(lambda: all(len(each.image.brokers) == 3 for each in brokers.values()))
        await them.until(lambda: len(them.controllers()) == 1 and None not in them.controllers())
        try:
            yield them
        finally:
            for broker in them.brokers.values():
                await broker.die()


@pytest.mark.parametrize("seed", range(5))
def test_a_dead_leader_that_was_the_controller_too_is_replaced_within_its_lease_and_a_second(seed):
    async def scenario():
        async with cluster() as them:
            await them.create_topic()
            controller = next(iter(them.controllers()))
            leader = them.brokers[controller].partition().leader
            for broker in {controller, leader}:
                await them.brokers.pop(broker).die()
            survivor = next(iter(them.brokers.values()))
            took_s = await them.until(lambda: survivor.partition().leader in them.brokers)
            assert took_s < LEASE_S + 1.5 + (LEASE_S if len(them.brokers) == 1 else 0)
            value = survivor.partition()
            assert value.leader_epoch == 1
            assert {each.broker for each in value.isr} == set(them.brokers)
            assert survivor.image.brokers[leader].value.fenced

    simulate(scenario(), seed)


@pytest.mark.parametrize("seed", range(5))
def test_a_broker_that_comes_back_is_let_back_and_is_not_in_sync_by_that_alone(seed):
    async def scenario():
        async with cluster() as them:
            await them.create_topic()
            leader = them.brokers[1].partition().leader
            await them.brokers.pop(leader).die()
            survivor = next(iter(them.brokers.values()))
            await them.until(lambda: survivor.image.brokers[leader].value.fenced)
            await them.until(lambda: survivor.partition().leader != leader)
            again = them.brokers[leader] = Broker(them.store, leader)
            await again.start()
            await them.until(lambda: not survivor.image.brokers[leader].value.fenced)
            assert leader not in {each.broker for each in survivor.partition().isr}

    simulate(scenario(), seed)


@pytest.mark.parametrize("seed", range(5))
def test_the_brokers_own_topics_are_made_once_there_are_brokers_enough(seed):
    async def scenario():
        internal = (NewTopic("offsets", 4, 3),)
        async with cluster(internal) as them:
            await them.until(lambda: all(b.image.topics for b in them.brokers.values()))
            [topic] = them.brokers[1].image.topics.values()
            assert (topic.value.topic, topic.value.partitions) == ("offsets", 4)
            await asyncio.sleep(5)
            assert len(them.brokers[1].image.topics) == 1

    simulate(scenario(), seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_cluster_at_rest_writes_nothing(seed):
    async def scenario():
        async with cluster() as them:
            await them.brokers[1].create(NewTopic("t", 6), make_id(0x500))
            await asyncio.sleep(5)
            revision = (await them.store.scan("")).revision
            await asyncio.sleep(60)
            assert (await them.store.scan("")).revision == revision

    simulate(scenario(), seed)


class BetweenLeases:
    """A session whose lease has ended while the store has not given the next one yet."""

    holds = False

    @property
    def lease_id(self):
        raise AssertionError("no lease was acquired")


def test_a_broker_between_two_leases_claims_nothing():
    """The leases of two brokers end, one revision after the other; the image shows the first only."""

    async def run():
        disk = FakeDisk()
        async with EmbeddedStore(disk, disk.durable, LoopClock(), SeededDice(0)) as store:
            broker = Broker(store, 1)
            await broker.start()
            await asyncio.sleep(1)
            assert broker.image.controller is not None
            broker.controlling._session = BetweenLeases()
            found = broker.image.controller.mod_revision
            await store.transact(
                Transaction(
                    (Compare.unchanged(keys.CONTROLLER, found),), (Delete(keys.CONTROLLER),)
                )
            )
            await asyncio.sleep(1)
            assert broker.image.controller is None
            ended = [task.exception() for task in broker._tasks if task.done()]
            await broker.die()
            assert ended == []

    simulate(run(), 1)
