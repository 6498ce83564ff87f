"""A broker's catalog on a disk that remembers its own past, with partitions that are rows.

Every write and every sync of the disk is noted, so that a test can start anew from each moment of a
run, as after a kill (everything written is there) or a power cut (only what was synced).
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from riverrun_server.core.cluster.changes import NewTopic, TopicPolicy
from riverrun_server.core.cluster.values import BrokerRegistration, Id, Incarnations
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.ports.partitions import Watermarks
from riverrun_server.runtime.alone import Alone
from riverrun_server.runtime.catalog import Catalog, CatalogServices
from tests.metadata.fakes import FakeDisk, ManualClock, SeededDice

LIVES = Incarnations(Id(b"f" * 16), Id(b"r" * 16))
_LOG = b"log/"
# Processes that follow each other throw other dice, or topic ids would come again.
_SEEDS = itertools.count(1)


async def refused(call):
    with pytest.raises(Refusal) as refusal:
        await call
    return refusal.value


def refused_at_once(call, *arguments):
    with pytest.raises(Refusal) as refusal:
        call(*arguments)
    return refusal.value


async def create(catalog, name, partitions=1, **configs):
    new = NewTopic(name, partitions, configs={k.replace("_", "."): v for k, v in configs.items()})
    return (await catalog.changes.create(new)).topic


async def until(condition):
    """Let others work until a condition holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - turns of the loop are the clock of these tests
            await asyncio.sleep(0)


def registration(lives=LIVES):
    return BrokerRegistration(
        broker_id=1, incarnations=lives, endpoints={"clients": "here:7171"}, rack="r1", host="m1"
    )


class RememberingDisk(FakeDisk):
    """Notes (rows, synced rows) after every write and every sync."""

    def __init__(self, rows=None):
        super().__init__(rows)
        self.moments = []
        self.remembers = False

    def write(self, puts, deletes=()):
        super().write(puts, deletes)
        self.note()

    async def durable(self):
        await super().durable()
        self.note()

    def note(self):
        if self.remembers:
            self.moments.append((dict(self.rows), dict(self.synced_rows)))


class FakeLogs:
    """Implements ports.log.LogStore as far as a catalog needs it."""

    def __init__(self, disk):
        self.disk = disk
        self.drops = 0
        self.refusals = []

    @staticmethod
    def key(partition):
        return _LOG + partition.topic_id + partition.partition.to_bytes(4, "big")

    def partitions(self):
        return [
            PartitionId(key[len(_LOG) : -4], int.from_bytes(key[-4:], "big"))
            for key, _ in self.disk.scan(_LOG)
        ]

    def drop(self, partition):
        if self.refusals:
            raise self.refusals.pop(0)
        self.drops += 1
        self.disk.write([], [self.key(partition)])


class FakePartition:
    """Implements LocalPartition: its records are one row of bytes."""

    def __init__(self, world, topic, partition, config, leader_epoch):
        self._world = world
        self._logs = world.logs
        self.topic = topic
        self.id = partition
        self.config = config
        self.configs = [config]
        self.leader_epoch = leader_epoch
        self.trimmed = 0
        self.lags = {}
        self.ended = None

    @property
    def max_batch_bytes(self):
        return self.config.max_batch_bytes

    async def open(self):
        if self._world.open_errors:
            raise self._world.open_errors.pop(0)
        if self.data is None:
            self.append(b"")
        await asyncio.sleep(0)

    @property
    def data(self):
        return self._logs.disk.get(self._logs.key(self.id))

    def append(self, data):
        self._logs.disk.write([(self._logs.key(self.id), (self.data or b"") + data)])

    def configure(self, config):
        self.config = config
        self.configs.append(config)

    async def close(self):
        assert self.ended is None
        self.ended = "closed"

    async def drop(self):
        self._logs.drop(self.id)
        self.ended = "dropped"

    async def watermarks(self):
        if self.ended:
            raise Refusal(Reason.TOPIC_NOT_FOUND, "gone")
        end = len(self.data)
        size = end - self.trimmed
        return Watermarks(self.trimmed, end, end, self.leader_epoch, size, self.lags)

    async def trim(self, before_offset):
        marks = await self.watermarks()
        if before_offset > marks.high_watermark:
            raise Refusal(
                Reason.OFFSET_OUT_OF_RANGE,
                f"offset {before_offset} is above the high watermark {marks.high_watermark}",
                available=(marks.log_start_offset, marks.log_end_offset),
            )
        self.trimmed = max(
            self.trimmed, marks.high_watermark if before_offset < 0 else before_offset
        )
        return self.trimmed


class CatalogWorld:
    """Everything around one catalog; `started` may be entered again for another process."""

    def __init__(self, rows=None, policy=None):
        self.disk = RememberingDisk(rows)
        self.clock = ManualClock()
        self.dice = SeededDice(next(_SEEDS))
        self.policy = policy or TopicPolicy()
        self.logs = FakeLogs(self.disk)
        self.opened = {}
        self.open_errors = []
        self.pauses = 0
        self.may_retry = asyncio.Event()
        self.may_retry.set()
        self.store = None
        self.catalog = None
        self.documents = JsonDocuments()

    async def pause(self, _seconds):
        self.pauses += 1
        await self.may_retry.wait()
        await asyncio.sleep(0)

    def open_partition(self, topic, partition, config, leader_epoch):
        made = FakePartition(self, topic, partition, config, leader_epoch)
        self.opened[topic, partition.partition] = made
        return made

    async def new_catalog(self, stack, wrap=lambda store: store):
        self.logs = FakeLogs(self.disk)
        self.opened = {}
        self.store = await stack.enter_async_context(
            EmbeddedStore(self.disk, self.disk.durable, self.clock, self.dice, pause=self.pause)
        )
        return Catalog(
            CatalogServices(
                store=wrap(self.store),
                documents=self.documents,
                logs=self.logs,
                hosting=Alone(self.open_partition, 1, "data"),
                durable=self.disk.durable,
                clock=self.clock,
                dice=self.dice,
                policy=self.policy,
                broker_id=1,
                data_dir="data",
                pause=self.pause,
            )
        )

    @asynccontextmanager
    async def started(self, lives=LIVES, wrap=lambda store: store):
        """Start a process; it ends cleanly."""
        async with AsyncExitStack() as stack:
            self.catalog = await self.new_catalog(stack, wrap)
            await self.catalog.start(registration(lives))
            running = asyncio.create_task(self.catalog.run())
            try:
                yield self.catalog
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running
                await self.catalog.close()

    async def quiet(self):
        """Wait until nothing is left to delete and every change has taken effect."""
        image, catalog = self.catalog._image, self.catalog
        await until(lambda: not image.tombstones and catalog.revision == image.revision)

    async def stored_keys(self):
        return {entry.key for entry in (await self.store.scan("")).entries}
