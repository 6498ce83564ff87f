"""What a producer tells of itself adds up."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import asynccontextmanager

import pytest

import riverrun
from riverrun import Durations
from riverrun._core.histogram import Histogram
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.fake_log import FakeRefusal
from tests.client.faults import Fault, Plan

TOPIC = "t"


@asynccontextmanager
async def producing(plan=None, topic=None, **settings):
    broker = FakeBroker(plan)
    broker.add_topic(TOPIC, **topic or {})
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(**settings) as producer,
    ):
        yield broker, producer


async def test_nothing_has_been_done_at_first():
    async with producing() as (_, producer):
        told = producer.statistics()
    assert told.elapsed_s >= 0
    zeros = dataclasses.replace(told, elapsed_s=0.0)
    assert set(dataclasses.astuple(zeros)) == {0, (0, 0.0, 0.0, 0.0, 0.0)}
    assert (told.batch_records_mean, told.batch_bytes_mean) == (0.0, 0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        told.retries = 1


async def test_sent_and_acknowledged_add_up_by_every_way():
    async with producing() as (broker, producer):
        await producer.send(TOPIC, b"one")
        await producer.send_nowait(TOPIC, b"two")
        await producer.send_many(TOPIC, [b"x" * 100] * 1_000)
        told = producer.statistics()
    batches = broker.partition(TOPIC).batches
    assert told.records_sent == told.records_acknowledged == 1_002
    assert told.batches_sent == told.batches_acknowledged == len(batches)
    assert told.bytes_sent == told.bytes_acknowledged == sum(len(b.records) for b in batches)
    assert told.compressed_bytes_acknowledged == told.bytes_acknowledged
    assert (told.records_failed, told.retries) == (0, 0)
    assert (told.batches_in_flight, told.buffered_bytes) == (0, 0)
    assert told.batch_records_mean == 1_002 / len(batches)
    assert told.batch_bytes_mean == told.bytes_sent / len(batches)
    for time in (told.queue_time, told.acknowledgement_time):
        assert time.count == 1_002
        assert 0 <= time.p50_s <= time.p99_s <= time.max_s < 10
        assert 0 <= time.mean_s <= time.max_s
    assert told.queue_time.max_s <= told.acknowledgement_time.max_s
    assert producer.statistics().records_acknowledged == 1_002, "after the end too"


async def test_compression_shows():
    async with producing(compression="gzip") as (_, producer):
        await producer.send_many(TOPIC, [b"x" * 100] * 1_000)
        told = producer.statistics()
    assert told.bytes_acknowledged > 100_000
    assert 0 < told.compressed_bytes_acknowledged < 20_000


async def test_what_waits_for_its_answer_is_in_flight_and_buffered():
    async with producing() as (_, producer):
        await producer.send(TOPIC, b"")
        future = producer.send_nowait(TOPIC, bytes(1_000))
        assert producer.statistics().buffered_bytes >= 1_000
        seen = 0
        while not future.done():
            seen = max(seen, producer.statistics().batches_in_flight)
            await asyncio.sleep(0)
        assert seen == 1
        assert producer.statistics().buffered_bytes == 0


async def test_a_batch_that_is_sent_again_counts_once_and_each_time_as_a_retry():
    plan = Plan({0: Fault.LOSE_ACK, 1: Fault.REFUSE_ONCE})
    async with producing(plan) as (_, producer):
        await producer.send(TOPIC, b"x")
        told = producer.statistics()
    assert (told.records_sent, told.batches_sent, told.records_acknowledged) == (1, 1, 1)
    assert told.retries == 2


async def test_halves_of_a_batch_that_was_too_large_count_once_too():
    async with producing(topic={"max_batch_bytes": 20_000}) as (broker, producer):
        await producer.send_many(TOPIC, [bytes(100)] * 600)
        told = producer.statistics()
    assert len(broker.partition(TOPIC).values()) == 600
    assert told.records_sent == told.records_acknowledged == 600
    assert told.batches_acknowledged == len(broker.partition(TOPIC).batches)
    assert told.retries > 0


async def test_records_that_fail_are_counted_before_and_behind_the_broker():
    plan = Plan({0: FakeRefusal("INVALID_RECORD", "no")})
    async with producing(plan) as (_, producer):
        futures = [
            producer.send_nowait(TOPIC, b""),
            producer.send_nowait("nowhere", b""),
            producer.send_nowait(TOPIC, b"", partition=9),
        ]
        results = await asyncio.gather(*futures, return_exceptions=True)
        told = producer.statistics()
    assert all(isinstance(result, riverrun.UsageError) for result in results)
    assert told.records_failed == 3
    assert (told.records_sent, told.records_acknowledged) == (1, 0)
    assert told.acknowledgement_time == Durations()


async def test_waiting_for_room_is_told():
    async with producing(batch_bytes=1_000, buffer_bytes=1_000) as (_, producer):
        assert producer.statistics().buffer_wait_s == 0
        await asyncio.gather(*(producer.send(TOPIC, bytes(900)) for _ in range(5)))
        told = producer.statistics()
        assert 0 < told.buffer_wait_s <= 5 * told.elapsed_s


def test_durations_are_those_that_were_recorded():
    histogram = Histogram()
    for ms in range(1, 101):
        histogram.record(ms * 1_000_000, 2)
    told = histogram.durations()
    assert told.count == 200
    assert told.mean_s == pytest.approx(0.0505)
    assert told.p50_s == pytest.approx(0.050, rel=1 / 128)
    assert told.p99_s == pytest.approx(0.099, rel=1 / 128)
    assert told.max_s == 0.1
    assert Histogram().durations() == Durations()
