"""A producer whose callers, batches or broker do something unusual: nothing hangs, nobody else fails."""

from __future__ import annotations

import asyncio

import pytest

import riverrun
from riverrun._core.outgoing import OutgoingBatch
from riverrun._core.records import TopicPartition
from riverrun._net.receipts import Flush, RecordFutures
from riverrun._net.splitting import halve
from riverrun.v1.records_pb2 import Record, RecordSet
from tests.client.fake_broker import FakeBroker, impatient

TOPIC = "t"
PLACE = TopicPartition(TOPIC, 0)


def batch_of(count: int) -> OutgoingBatch:
    receipt = RecordFutures(PLACE)
    loop = asyncio.get_running_loop()
    for _ in range(count):
        receipt.add(loop.create_future(), 5)
    records = RecordSet(records=[Record(value=b"x", timestamp_ms=5)] * count).SerializeToString()
    return OutgoingBatch(PLACE, records, count, 5, 5, 1e9, len(records), receipt)


async def test_thousands_of_flushes_wait_for_the_same_batch():
    batch = batch_of(1)
    flushes = [Flush([batch]) for _ in range(2000)]
    waits = asyncio.gather(*(flush.wait() for flush in flushes))
    await asyncio.sleep(0)
    assert not waits.done()
    batch.receipt.acknowledged(0, 1, 7)
    await asyncio.wait_for(waits, 5)


async def test_flushes_wait_for_both_halves_of_a_batch():
    batch = batch_of(4)
    early = Flush([batch])
    first, second = halve(batch)
    late = Flush([first, second])
    first.receipt.acknowledged(first.first_index, 2, 0)
    later = Flush([second])
    assert (early.waiting, late.waiting, later.waiting) == (2, 2, 2)
    second.receipt.acknowledged(second.first_index, 2, 2)
    for flush in (early, late, later):
        await asyncio.wait_for(flush.wait(), 1)


async def test_a_flush_that_was_given_up_is_let_go():
    batch = batch_of(1)
    for _ in range(100):
        Flush([batch])
    assert len(batch.receipt._flushes) <= 1


async def test_concurrent_flushes_of_a_producer_end_and_it_goes_on():
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer()
        futures = [producer.send_nowait(TOPIC, b"x") for _ in range(3)]
        flushes = [producer.flush() for _ in range(2000)]
        await asyncio.wait_for(asyncio.gather(*flushes, *futures), 10)
        assert (await producer.send(TOPIC, b"later")).offset == 3


async def test_a_header_name_that_is_not_utf8_is_refused_before_anything_is_taken():
    record = riverrun.NewRecord(b"v", headers=(("\udcff", b"x"),))
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer()
        with pytest.raises(riverrun.UsageError, match="no UTF-8"):
            producer.send_nowait(TOPIC, b"v", headers=record.headers)
        with pytest.raises(riverrun.UsageError, match="no UTF-8"):
            await producer.send_many(TOPIC, [record])
        assert (await producer.send(TOPIC, b"v", headers=[("ü", b"x")])).offset == 0
