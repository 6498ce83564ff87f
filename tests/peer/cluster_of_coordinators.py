"""Brokers that keep the offsets of groups in a replicated partition, and speak for clients of any group."""

from __future__ import annotations

import asyncio
import time

from riverrun_server.core.groups.commits import OffsetCommit
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.peer.coordination import CoordinationService
from riverrun_server.peer.coordinators import CoordinatorLinks
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.server import PeerServer
from riverrun_server.runtime.coordination_peers import Peers
from riverrun_server.runtime.led_partitions import LedPartitions
from riverrun_server.runtime.offsets import GroupOffsets, GroupOffsetsSettings
from riverrun_server.runtime.offsets_topic import OFFSETS_TOPIC
from tests.metadata.fakes import SeededDice
from tests.peer.cluster_of_replicas import PARTITION
from tests.rpc.fake_partitions import FakeDirectory, FakePartition
from tests.runtime.manual import InlineThreads

DATA = PartitionId(b"d" * 16, 0)


def directory_of_all():
    """Return what every broker knows of topics: one for offsets, one of which offsets are committed."""
    directory = FakeDirectory()
    directory.topics[OFFSETS_TOPIC] = [FakePartition(OFFSETS_TOPIC, PARTITION)]
    directory.topics["d"] = [FakePartition("d", PartitionId(DATA.topic_id, n)) for n in range(4)]
    return directory


class GatedThreads(InlineThreads):
    """Threads that take nothing apart while `gate` is shut."""

    def __init__(self):
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    def run(self, function, *args):
        async def later():
            await self.gate.wait()
            return function(*args)

        return asyncio.ensure_future(later())


class Hearsay(LedPartitions):
    """What a broker knows that may be cut off: then it goes on believing what it heard last."""

    believed = None

    def of(self, partition):
        return super().of(partition) if self.believed is None else self.believed


class Groups:
    """The part of a broker's process that has to do with groups."""

    def __init__(self, process, wait_s):
        self.process = process
        self.threads = GatedThreads()
        self.partition = process.partition()
        self.leaderships = Hearsay(
            process.image,
            process.id,
            process.epoch,
            lambda partition: self.partition if partition == PARTITION else None,
        )
        self.myself = Myself("cluster", process.id, process.epoch, now_ms)
        self.links = CoordinatorLinks(self.myself)
        self.directory = directory = directory_of_all()
        self.offsets = GroupOffsets(
            directory,
            directory,
            directory,
            now_ms,
            self.threads,
            SeededDice(process.id),
            GroupOffsetsSettings(coordinator_wait_s=wait_s),
            Peers(leaderships=self.leaderships, coordinators=self.links),
        )
        self.service = CoordinationService(self.myself, self.offsets.coordinator)
        self.server = PeerServer("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.server.port}"
        self._update = process.driver.update
        process.driver.update = self._updated

    async def start(self):
        await self.server.start((self.service.handler(),))
        self._running = asyncio.create_task(self.offsets.run())
        await asyncio.sleep(0)

    async def stop(self):
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        self.service.close()
        await self.links.close()
        await self.server.stop()

    def cut_off(self):
        """Hear nothing more of the metadata, and lose the session with its store."""
        self.leaderships.believed = self.leaderships.of(PARTITION)
        self.process.driver._deadline = lambda: 0.0

    def hear_again(self):
        """Hear of everything that has happened meanwhile."""
        self.leaderships.believed = None
        self.process.driver.update(self.process.image)

    def _updated(self, image, topic_ids=None):
        """Take the metadata, unless this broker hears nothing of it."""
        if self.leaderships.believed is None:
            self._update(image, topic_ids)
            self.leaderships.show()

    async def commit(self, offset, group="g", partition=0, metadata=""):
        """Commit one offset and return the refusal."""
        commit = OffsetCommit("d", b"", partition, offset, metadata=metadata)
        [outcome] = await self.offsets.commit(group, [commit])
        return outcome.refusal

    async def committed(self, group="g"):
        """Return the offsets of a group by partition."""
        found = await self.offsets.committed(group)
        return {partition.partition: value.offset for partition, value in found.items()}


class Coordinators:
    """The groups' part of every broker of a cluster of replicas."""

    def __init__(self, cluster, wait_s=20.0):
        self.cluster = cluster
        self.wait_s = wait_s
        self.groups = {}

    async def start(self):
        for broker in self.cluster.brokers:
            await self.start_one(broker)

    async def start_one(self, broker):
        process = self.cluster.brokers[broker]
        await self.cluster.until(lambda: process.replicas.find(PARTITION) is not None)
        self.groups[broker] = groups = Groups(process, self.wait_s)
        await groups.start()
        self.connect()

    def connect(self):
        """Have everybody know where everybody listens."""
        addresses = {broker: each.address for broker, each in self.groups.items()}
        for each in self.groups.values():
            each.links.reach(addresses)

    def brief(self, wait_s):
        """Have every call wait for so long at most."""
        for groups in self.groups.values():
            groups.offsets._settings = GroupOffsetsSettings(coordinator_wait_s=wait_s)

    async def stop_one(self, broker):
        await self.groups.pop(broker).stop()
        await self.cluster.stop_broker(broker)
        self.connect()

    async def stop(self):
        for broker in list(self.groups):
            await self.groups.pop(broker).stop()

    async def elect(self, broker):
        """Make a broker the coordinator, and wait until it knows."""
        await self.cluster.elect(broker)
        await self.cluster.until(lambda: self.cluster.leads(broker))


def now_ms():
    """The guarded clock of every broker."""
    return round(time.monotonic() * 1000)
