"""Brokers that hold replicas: real machines, streams and metadata store, records in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import time

from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.steps import ABSENT, Step, Write
from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    Id,
    Incarnations,
    PartitionValue,
    Replica,
    TopicValue,
)
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.hot_tail import TailBudget
from riverrun_server.core.replication.terms import Terms
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.links import PeerLinks
from riverrun_server.peer.server import PeerServer
from riverrun_server.ports.partitions import Acks, Append
from riverrun_server.runtime.clock import SystemClock
from riverrun_server.runtime.flusher import Flusher
from riverrun_server.runtime.metadata_feed import MetadataFeed
from riverrun_server.runtime.metadata_writer import MetadataWriter
from riverrun_server.runtime.partition_services import PartitionServices
from riverrun_server.runtime.replication.driver import ReplicationDriver
from riverrun_server.runtime.replication.partition import ReplicatedPartition
from riverrun_server.runtime.replication.replica_log import ReplicaServices
from riverrun_server.runtime.replication.replicas import Replicas
from riverrun_server.runtime.threads import OneThread
from riverrun_server.storage.memory import MemoryStore
from riverrun_server.wire.ingress import IngressLimits, accept
from riverrun_server.wire.stored import received_records, scan_batch, stored_batch
from tests.metadata.fakes import SeededDice
from tests.runtime.manual import InlineThreads

TOPIC_ID = Id(bytes(range(16)))
PARTITION = PartitionId(TOPIC_ID, 0)
NOW_MS = 1_700_000_000_000
TERMS = Terms(lag_s=0.6, retry_s=0.2)


def life(broker):
    return Id(bytes([broker]) * 16)


class Broker:
    """One process of a broker: everything of it that replication needs."""

    def __init__(self, broker, metadata, store):
        self.id = broker
        self.metadata = metadata
        self.store = store
        self.image = ClusterImage()
        self.writer = MetadataWriter(metadata, JsonDocuments(), SeededDice(broker))
        self.answers = []
        self._answered = asyncio.Event()
        self._tasks = []

    async def start(self):
        self.feed = MetadataFeed(self.metadata, JsonDocuments(), self.image, SeededDice(self.id))
        await self.feed.load()
        known = self.image.brokers.get(self.id)
        registration = BrokerRegistration(
            broker_id=self.id,
            incarnations=Incarnations(life(self.id), life(self.id)),
            endpoints={},
        )
        step = Step(
            (Write(keys.broker(self.id), registration, known.mod_revision if known else ABSENT),)
        )
        self.epoch = await self.writer.commit((step,))
        self.flusher = Flusher(self.store, SystemClock(), OneThread(f"flusher-{self.id}"))
        services = ReplicaServices(
            self.store, TailBudget(1 << 20), scan_batch, lambda: NOW_MS, self.flusher.fail
        )
        self.replicas = Replicas(self.id, self.epoch, services, TERMS)
        self.driver = ReplicationDriver(
            self.replicas,
            self.flusher,
            self.writer,
            self._send,
            time.monotonic,
            lambda: float("inf"),
        )
        myself = Myself("cluster", self.id, self.epoch, lambda: NOW_MS)
        self.links = PeerLinks(myself, self.driver, SeededDice(self.id))
        self.server = PeerServer("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.server.port}"
        await self.server.start(self.handlers(myself))
        self._tasks = [
            asyncio.create_task(each)
            for each in (self.flusher.run(), self.driver.run(), self._follow())
        ]

    def handlers(self, _myself):
        """The services that other brokers are offered."""
        return (self.links.service.handler(),)

    def reach(self, addresses):
        """Learn where the others are."""
        self.links.follow(addresses)

    def _send(self, envelope):
        self.links.send(envelope)

    async def _follow(self):
        await self.feed.load()
        self.update()
        while True:
            await self.feed.next()
            self.update()

    def update(self):
        """Take note of changed metadata."""
        self.replicas.open_missing(self.image)
        self.driver.update(self.image)

    async def stop(self):
        """End as a crash would, but for what the flusher's thread is at."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.links.close()
        await self.server.stop()
        await self.driver.close()
        await self.flusher.close(5)
        await self.feed.close()

    def append(self, *values, acks=Acks.ALL):
        """Append records as one batch; the answer joins `answers`."""
        records = RecordSet(records=[Record(value=value) for value in values])
        batch = RecordBatch(records=records.SerializeToString())
        accepted = accept(batch, IngressLimits(1 << 20), NOW_MS)

        def done(appended):
            self.answers.append(appended)
            self._answered.set()

        self.driver.append(PARTITION, Append(accepted, acks, done))

    async def answered(self, count):
        async with asyncio.timeout(10):
            while len(self.answers) < count:
                self._answered.clear()
                await self._answered.wait()
        return self.answers

    def partition(self):
        """Return the partition as services see it here."""
        services = PartitionServices(
            self.store, self.flusher, lambda: NOW_MS, TailBudget(1 << 20), InlineThreads()
        )
        replica = self.replicas.find(PARTITION)
        return ReplicatedPartition(
            "t", TopicConfig(), replica, self.driver, services, time.monotonic
        )

    @property
    def machine(self):
        return self.replicas.find(PARTITION).log.machine

    def values(self):
        """Every record that is stored here, committed or not."""
        replica = self.replicas.find(PARTITION)
        batches = replica.log.read(0, self.machine.log_end, 1 << 30) if self.machine.log_end else []
        return [
            record.value
            for batch in batches
            for record in received_records(
                batch.data, batch.base_offset, batch.next_offset, 1 << 30
            )
        ]


class Cluster:
    """Some brokers and one partition that all of them hold; broker 1 is made its leader."""

    def __init__(self, metadata, brokers=3, process=Broker):
        self.metadata = metadata
        self.process = process
        self.stores = {
            broker: MemoryStore(stored_batch, scan_batch) for broker in range(1, brokers + 1)
        }
        self.brokers = {}

    async def start(self):
        for broker in self.stores:
            await self.start_broker(broker)
        first = self.brokers[1]
        topic = TopicValue(
            topic="t", topic_id=TOPIC_ID, partitions=1, replication_factor=len(self.stores)
        )
        value = PartitionValue(
            leader=1,
            leader_epoch=1,
            leader_broker_epoch=first.epoch,
            replicas=tuple(self.stores),
            isr=tuple(Replica(broker, life(broker)) for broker in self.stores),
            min_isr=2,
        )
        writes = (
            Write(keys.topic("t"), topic, ABSENT),
            Write(keys.partition(TOPIC_ID, 0), value, ABSENT),
        )
        await first.writer.commit((Step(writes),))

    async def start_broker(self, broker):
        process = self.brokers[broker] = self.process(broker, self.metadata, self.stores[broker])
        await process.start()
        self.connect()

    def connect(self):
        """Have everybody follow everybody, where it is running now."""
        addresses = {each.id: each.address for each in self.brokers.values()}
        for each in self.brokers.values():
            each.reach({b: a for b, a in addresses.items() if b != each.id})

    async def stop_broker(self, broker):
        await self.brokers.pop(broker).stop()
        self.stores[broker].crash()
        self.connect()

    async def stop(self):
        for broker in list(self.brokers):
            await self.brokers.pop(broker).stop()

    def value(self):
        """The partition's value, as the broker with the newest metadata knows it."""
        newest = max(self.brokers.values(), key=lambda each: each.image.revision)
        return newest.image.partitions[TOPIC_ID][0]

    def leads(self, broker):
        """Whether a broker leads as far as it knows."""
        replica = self.brokers[broker].replicas.find(PARTITION)
        return replica is not None and replica.leader is not None

    def isr(self):
        return {each.broker for each in self.value().value.isr}

    async def elect(self, broker):
        """Make a broker of the ISR the leader, as a controller would."""
        process, found = self.brokers[broker], self.value()
        value = dataclasses.replace(
            found.value,
            leader=broker,
            leader_epoch=found.value.leader_epoch + 1,
            leader_broker_epoch=process.epoch,
            partition_epoch=found.value.partition_epoch + 1,
        )
        write = Write(keys.partition(TOPIC_ID, 0), value, found.mod_revision)
        await process.writer.commit((Step((write,)),))

    async def until(self, condition, timeout_s=10.0):
        """Wait for what only the brokers' own work brings about."""
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - nothing in the machines tells a test
                await asyncio.sleep(0.01)
