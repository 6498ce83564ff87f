"""A partition on a store in memory that crashes, with syncs that a test turns by hand."""

from __future__ import annotations

import asyncio
import contextlib

from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.hot_tail import TailBudget
from riverrun_server.ports.partitions import Acks, Append
from riverrun_server.runtime.flusher import Flusher
from riverrun_server.runtime.partition import LocalPartition
from riverrun_server.runtime.partition_services import PartitionServices
from riverrun_server.storage.memory import MemoryStore
from riverrun_server.wire.ingress import IngressLimits, accept
from riverrun_server.wire.stored import received_records, scan_batch, stored_batch
from tests.runtime.manual import InlineThreads, ManualThreads, StillClock, settle

ID = PartitionId(b"t" * 16, 0)
NOW_MS = 1_700_000_000_000


class World:
    """One partition, its store and its flusher; `crash` and `open` begin another process."""

    def __init__(self, *, tail_bytes=1 << 20, config=None, topic="t", reads=None):
        self.reads = reads or InlineThreads()
        self.topic = topic
        self.store = MemoryStore(stored_batch, scan_batch)
        self.config = config or TopicConfig()
        self.tail_bytes = tail_bytes
        self.epoch = 0
        self.full = None
        self.now_ms = NOW_MS

    async def open(self):
        self.syncs = ManualThreads()
        self.flusher = Flusher(self.store, StillClock(), self.syncs)
        self.running = asyncio.create_task(self.flusher.run())
        self.services = PartitionServices(
            self.store,
            self.flusher,
            lambda: self.now_ms,
            TailBudget(self.tail_bytes),
            self.reads,
            lambda: self.full,
        )
        self.epoch += 1
        self.partition = LocalPartition(self.topic, ID, self.config, self.epoch, self.services)
        await self.partition.open()
        await self.sync()

    async def sync(self):
        """Let the disk do everything that it was asked for."""
        await settle()
        while self.syncs.calls:
            self.syncs.step()
            await settle()

    async def crash(self, survivors=0):
        """End the process as a power cut does: unsynced writes go, but for the first few."""
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running
        self.store.crash(survivors)

    async def close(self):
        closing = asyncio.create_task(self.partition.close())
        await settle()
        await self.sync()
        await closing
        self.store.sync()
        self.running.cancel()

    def append(self, *values, acks=Acks.ALL, expected=None, **producer):
        """Submit a batch; the list returned gets its answer."""
        data = RecordSet(records=[Record(value=value) for value in values]).SerializeToString()
        batch = accept(RecordBatch(records=data, **producer), IngressLimits(1 << 20), NOW_MS)
        answers = []
        self.partition.submit(Append(batch, acks, answers.append, expected))
        return answers

    async def read(self, offset=0):
        """Return {offset: value} of everything committed from an offset on."""
        woken = asyncio.Event()
        cursor = self.partition.cursor(offset, woken.set)
        found = {}
        while cursor.position < self.partition.high_watermark:
            chunk = cursor.take(1 << 20)
            if chunk is None:
                await settle()
                continue
            for batch in chunk.batches:
                for record in received_records(
                    batch.data, chunk.first_offset, chunk.next_offset, 1 << 30
                ):
                    assert record.offset not in found
                    found[record.offset] = record.value
        cursor.close()
        return found
