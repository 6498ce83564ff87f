"""Several brokers that need the brokers' own topic at the same moment get one and the same."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.changes import NewTopic, TopicPolicy
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import Leader
from riverrun_server.core.cluster.steps import ABSENT, Step, Write
from riverrun_server.core.cluster.values import BrokerRegistration, Id, Incarnations
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.ports.metadata import MetadataUnavailable
from riverrun_server.runtime.metadata_feed import Applied, MetadataFeed
from riverrun_server.runtime.metadata_writer import MetadataWriter
from riverrun_server.runtime.offsets_topic import OFFSETS_TOPIC, OFFSETS_TOPIC_CONFIGS
from riverrun_server.runtime.topic_changes import TopicChanges
from riverrun_server.runtime.topics_caught_up import TopicsCaughtUp
from tests.metadata.fakes import FakeDisk, ManualClock, SeededDice


class NoDeletions:
    """Leaves everything alone."""

    @staticmethod
    def holding(topic_id):
        return contextlib.nullcontext()


class Broker:
    """The part of a broker that makes topics, and follows what others make."""

    def __init__(self, broker, store):
        self.id = broker
        self.image = ClusterImage()
        self.applied = Applied()
        self.writer = MetadataWriter(store, JsonDocuments(), SeededDice(broker))
        self.feed = MetadataFeed(store, JsonDocuments(), self.image, SeededDice(broker))
        self.caught_up = TopicsCaughtUp(store, self.applied)
        self.changes = TopicChanges(
            self.image,
            self.applied,
            self.writer,
            TopicPolicy(default_replication_factor=3),
            ManualClock(),
            SeededDice(broker),
            NoDeletions(),
        )
        self.follows = asyncio.Event()
        self.follows.set()

    async def register(self):
        lives = Incarnations(Id(bytes([self.id]) * 16), Id(bytes([self.id]) * 16))
        registration = BrokerRegistration(
            broker_id=self.id, incarnations=lives, endpoints={}, host=f"h{self.id}"
        )
        write = Write(keys.broker(self.id), registration, ABSENT)
        epoch = await self.writer.commit((Step((write,)),))
        self.changes.leader = Leader(self.id, epoch, lives)

    async def follow(self):
        await self.feed.load()
        self.applied.publish(self.image.revision)
        while True:
            await self.feed.next()
            await self.follows.wait()
            self.applied.publish(self.image.revision)

    async def ensure(self, partitions=16):
        await self.changes.ensure_internal(
            NewTopic(OFFSETS_TOPIC, partitions, 0, dict(OFFSETS_TOPIC_CONFIGS))
        )
        return self.image.topics[OFFSETS_TOPIC].value


@pytest.fixture
async def brokers():
    disk = FakeDisk()
    async with EmbeddedStore(disk, disk.durable, ManualClock(), SeededDice()) as store:
        brokers = [Broker(each, store) for each in (1, 2, 3)]
        for each in brokers:
            await each.register()
        tasks = [
            asyncio.create_task(work)
            for each in brokers
            for work in (each.follow(), each.changes.run())
        ]
        for each in brokers:
            while not await _knows_all(each):
                pass
        try:
            yield brokers
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for each in brokers:
                await each.feed.close()


async def _knows_all(broker):
    await asyncio.sleep(0)
    return len(broker.image.brokers) == 3 and broker.applied.revision > 0


@pytest.mark.parametrize("partitions", [16, 200])
async def test_the_offsets_topic_is_made_once_by_brokers_that_need_it_at_once(brokers, partitions):
    """With 200 partitions it takes several transactions."""
    async with asyncio.timeout(20):
        made = await asyncio.gather(*[each.ensure(partitions) for each in brokers * 3])
    assert len({topic.topic_id for topic in made}) == 1
    [topic] = {topic.topic_id: topic for topic in made}.values()
    assert (topic.partitions, topic.replication_factor, topic.internal) == (partitions, 3, True)
    for each in brokers:
        values = each.image.partitions[topic.topic_id]
        assert [len(values[number].value.replicas) for number in sorted(values)] == [3] * partitions


async def test_a_broker_has_caught_up_once_it_knows_what_was_made_before(brokers):
    behind, maker, _ = brokers
    behind.follows.clear()
    await maker.ensure()
    catching_up = asyncio.create_task(behind.caught_up())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not catching_up.done()
    behind.follows.set()
    async with asyncio.timeout(10):
        await catching_up
    assert OFFSETS_TOPIC in behind.image.topics
    async with asyncio.timeout(10):
        await behind.caught_up()


async def test_without_the_store_nobody_says_that_it_has_caught_up():
    class Gone:
        async def scan(self, prefix):
            raise MetadataUnavailable("no answer")

    with pytest.raises(Refusal, match="no answer") as caught:
        await TopicsCaughtUp(Gone(), Applied())()
    assert caught.value.reason is Reason.NOT_READY


async def test_a_broker_that_ends_does_not_wait_for_what_it_will_not_hear(brokers):
    behind, maker, _ = brokers
    behind.follows.clear()
    await maker.ensure()
    catching_up = asyncio.create_task(behind.caught_up())
    for _ in range(50):
        await asyncio.sleep(0)
    behind.applied.stop()
    with pytest.raises(Refusal) as caught:
        await catching_up
    assert caught.value.reason is Reason.SHUTTING_DOWN
