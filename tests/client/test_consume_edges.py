"""What a consumer has returned, what it may commit, and where it goes on when something fails."""

from __future__ import annotations

import asyncio
from zlib import crc32

import pytest

import riverrun
from riverrun import Reason, TopicPartition
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.fake_log import FakeRefusal
from tests.client.faults import Plan
from tests.client.filling import fill

TOPIC = "t"
PLACE, OTHER = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


def broker_with(*counts: int, plan: Plan | None = None) -> FakeBroker:
    broker = FakeBroker(plan)
    for log, count in zip(broker.add_topic(TOPIC, len(counts)).partitions, counts, strict=True):
        fill(log, count)
    return broker


async def until(consumer, condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await consumer._loop.change()


async def test_records_taken_before_another_partition_fails_are_returned_first():
    plan = Plan(deliveries={1: FakeRefusal("CORRUPT_DATA", "the disk is broken")})
    async with broker_with(5, 5, plan=plan).serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC)
        await consumer.assignment()
        await until(consumer, lambda: any(r.error for r in consumer._machine.readers.values()))
        records = await consumer.getmany(100)
        assert [record.offset for record in records] == [*range(5)]
        with pytest.raises(riverrun.CorruptDataError):
            await consumer.getmany(100)


@pytest.mark.parametrize("spoiled", ["the batch's checksum", "what it holds"])
async def test_records_taken_before_a_damaged_batch_are_returned_first(spoiled):
    broker = broker_with(15)
    batch = broker.partition(TOPIC).batches[1]
    batch.records = b"\xff" * 9
    if spoiled == "what it holds":
        batch.records_crc = crc32(batch.records)
        broker.partition(TOPIC).sign(batch)
    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC)
        await consumer.assignment()
        await until(consumer, lambda: consumer._machine.queued_bytes)
        records = await consumer.getmany(100)
        assert [record.offset for record in records] == [*range(5)]
        assert await consumer.position(PLACE) == 5
        with pytest.raises(riverrun.CorruptDataError):
            await consumer.getmany(100)
        assert await consumer.position(PLACE) == 5


async def test_a_commit_does_not_land_on_a_topic_that_was_made_anew():
    broker = broker_with(10)
    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC, group="g")
        await consumer.getmany(10)
        fill(broker.add_topic(TOPIC).partitions[0], 20)
        for offsets in (None, {PLACE: 10}):
            with pytest.raises(riverrun.TopicNotFoundError) as caught:
                await consumer.commit(offsets)
            assert caught.value.reason is Reason.TOPIC_ID_MISMATCH
        assert broker.commits == {}
        with pytest.raises(riverrun.TopicNotFoundError):
            await consumer.committed([PLACE])
