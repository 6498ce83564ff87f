"""Through gRPC and broken streams: every record once, in order, and every error told."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import riverrun
from riverrun import Last, Offset, Reason, Time, TopicPartition
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.fake_log import FakeRefusal
from tests.client.faults import Fault, Plan
from tests.client.filling import fill

TOPIC = "t"
PLACE = TopicPartition(TOPIC, 0)


@asynccontextmanager
async def reading(broker: FakeBroker, **settings):
    topics = settings.pop("topics", (TOPIC,))
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.consumer(*topics, **settings) as consumer,
    ):
        yield consumer


async def read_on(consumer, into: list) -> None:
    """Read until an error ends it."""
    while True:
        into.append(await anext(consumer))


def broker_with(*counts: int, plan: Plan | None = None, topic: str = TOPIC) -> FakeBroker:
    """Make a broker whose topic has so many records in each partition, valued by their offset."""
    broker = FakeBroker(plan)
    for log, count in zip(broker.add_topic(topic, len(counts)).partitions, counts, strict=True):
        fill(log, count)
    return broker


@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_record_is_read_once_and_in_order_through_broken_streams(seed):
    asyncio.run(asyncio.wait_for(read_through_faults(seed), 30))


async def read_through_faults(seed: int) -> None:
    rng = random.Random(seed)
    plan = Plan.seeded(seed, 20, kinds=[Fault.DROP_BEFORE])
    broker = broker_with(400, 300, plan=plan)
    seen: dict[int, list[int]] = {0: [], 1: []}
    async with reading(broker, stop_at_end=True, prefetch_bytes=rng.choice([1, 500, 10**6])) as c:
        how = rng.choice(["records", "batches", "getmany", "mixed"])
        while True:
            way = rng.choice(["records", "batches", "getmany"]) if how == "mixed" else how
            if way == "records":
                record = await anext(c, None)
                some = [record] if record else []
            elif way == "batches":
                view = await anext(c.batches(), None)
                some = [*view] if view else []
            else:
                some = await c.getmany(rng.randrange(1, 50))
            if not some:
                break
            for record in some:
                assert record.value == b"%d" % record.offset
                seen[record.partition].append(record.offset)
            place = TopicPartition(TOPIC, some[-1].partition)
            assert await c.position(place) >= some[-1].offset + 1
    assert seen == {0: [*range(400)], 1: [*range(300)]}
    assert plan.happened, "no fault took effect"


async def test_a_stream_that_falls_silent_is_opened_again():
    broker = broker_with(10)
    broker.heartbeat_s = 0.05
    async with reading(broker) as consumer:
        assert len(await consumer.getmany(100)) == 10
        broker.silent = True
        fill(broker.partition(TOPIC), 5)
        assert await consumer.getmany(timeout_s=0.1) == []
        await broker.until(lambda: broker.subscribe_streams > 1)
        broker.silent = False
        assert [r.offset for r in await consumer.getmany(timeout_s=5)] == [*range(10, 15)]
    assert broker.subscribe_starts[-1].positions[0].offset == 10


async def test_heartbeats_keep_an_idle_stream_open():
    broker = broker_with(1)
    broker.heartbeat_s = 0.02
    async with reading(broker) as consumer:
        await consumer.getmany()
        assert await consumer.getmany(timeout_s=1.3) == []
    assert broker.subscribe_streams == 1


async def test_only_the_prefetch_is_sent_ahead():
    broker = broker_with(3000)
    async with reading(broker, prefetch_bytes=2000) as consumer:
        await anext(consumer)
        await asyncio.sleep(0.05)
        sent = broker.plan.delivery_number
        await asyncio.sleep(0.05)
        assert broker.plan.delivery_number == sent
        assert sent < 100
        assert len(await consumer.getmany(3000)) > 0


@pytest.mark.parametrize(
    ("from_", "first"),
    [
        ("earliest", 0),
        (Offset(7), 7),
        (Last(3), 97),
        (Time(1_700_000_000_000 + 40), 40),
        (None, 0),
    ],
)
async def test_reading_begins_where_it_was_asked_to(from_, first):
    async with reading(broker_with(100), from_=from_) as consumer:
        assert (await anext(consumer)).offset == first


async def test_latest_is_only_what_comes_from_now_on():
    broker = broker_with(100)
    async with reading(broker, from_="latest") as consumer:
        assert await consumer.assignment() == (PLACE,)
        fill(broker.partition(TOPIC), 2)
        await broker.notify()
        assert (await anext(consumer)).offset == 100


async def test_partitions_can_be_named_with_a_place_for_each():
    places = {TopicPartition(TOPIC, 2): Offset(5), TopicPartition(TOPIC, 0): Last(1)}
    async with reading(broker_with(9, 9, 9), topics=(), partitions=places, stop_at_end=True) as c:
        records = [(r.partition, r.offset) async for r in c]
    assert sorted(records) == [(0, 8), (2, 5), (2, 6), (2, 7), (2, 8)]


async def test_an_empty_topic_ends_at_once_where_the_end_was_asked_for():
    async with reading(broker_with(0), stop_at_end=True) as consumer:
        assert [record async for record in consumer] == []


async def test_the_end_is_the_one_seen_at_the_start():
    broker = broker_with(10)
    async with reading(broker, stop_at_end=True) as consumer:
        first = await anext(consumer)
        fill(broker.partition(TOPIC), 10)
        rest = [record.offset async for record in consumer]
    assert [first.offset, *rest] == [*range(10)]


async def test_a_group_goes_on_where_it_committed():
    broker = broker_with(20, 20)
    async with reading(broker, group="g", stop_at_end=True) as consumer:
        await consumer.getmany(7)
        await consumer.commit()
        committed = await consumer.committed()
    assert sum(offset.offset for offset in committed.values() if offset) == 7
    async with reading(broker, group="g", stop_at_end=True) as consumer:
        assert len([record async for record in consumer]) == 33


async def test_a_group_goes_on_in_named_partitions_too():
    broker = broker_with(20, 20)
    broker.commits["g", TOPIC, 1] = (15, "")
    async with reading(broker, group="g", partitions=[0, 1], stop_at_end=True) as consumer:
        assert len([record async for record in consumer]) == 25


async def test_what_was_read_ahead_is_not_committed():
    broker = broker_with(50)
    async with reading(broker, group="g") as consumer:
        for _ in range(3):
            await anext(consumer)
        await consumer.commit()
        await consumer.commit({TopicPartition(TOPIC, 0): 2})
    assert broker.commits["g", TOPIC, 0] == (2, "")
    async with reading(broker, group="g") as consumer:
        assert (await anext(consumer)).offset == 2


async def test_a_seek_drops_what_was_read_ahead():
    async with reading(broker_with(100)) as consumer:
        await anext(consumer)
        await consumer.seek(PLACE, 50)
        assert (await anext(consumer)).offset == 50
        await consumer.seek(PLACE, "earliest")
        assert (await anext(consumer)).offset == 0
        assert await consumer.position(PLACE) == 1
        await consumer.seek(PLACE, Last(1))
        assert (await anext(consumer)).offset == 99


async def test_pausing_in_the_middle_of_a_batch_goes_on_behind_the_last_record():
    async with reading(broker_with(50)) as consumer:
        seen = [await anext(consumer) for _ in range(13)]
        consumer.pause([PLACE])
        assert await consumer.getmany(timeout_s=0.05) == []
        consumer.resume([PLACE])
        while len(seen) < 50:
            seen += await consumer.getmany()
    assert [record.offset for record in seen] == [*range(50)]


async def test_paused_partitions_return_nothing_and_then_everything():
    async with reading(broker_with(50, 50)) as consumer:
        seen = [await anext(consumer) for _ in range(20)]
        other = TopicPartition(TOPIC, 1)
        consumer.pause([PLACE])
        assert consumer.paused() == {PLACE}
        while some := await consumer.getmany(timeout_s=0.2):
            assert {record.partition for record in some} == {1}
            seen += some
        consumer.resume([PLACE])
        while some := await consumer.getmany(timeout_s=0.2):
            seen += some
    for place in (PLACE, other):
        offsets = [r.offset for r in seen if r.partition == place.partition]
        assert offsets == [*range(50)]


async def test_a_position_out_of_range_is_an_error_that_tells_what_can_be_read():
    broker = broker_with(20)
    broker.partition(TOPIC).log_start = 10
    async with reading(broker, from_=Offset(3)) as consumer:
        with pytest.raises(riverrun.OffsetOutOfRangeError) as caught:
            await anext(consumer)
        assert caught.value.available == (10, 20)
        with pytest.raises(riverrun.OffsetOutOfRangeError):
            await anext(consumer)
        await consumer.seek(PLACE, "earliest")
        assert (await anext(consumer)).offset == 10


async def test_a_position_out_of_range_is_reset_where_that_was_asked_for():
    broker = broker_with(20)
    broker.partition(TOPIC).log_start = 10
    async with reading(broker, from_=Offset(3), offset_reset="earliest") as consumer:
        assert (await anext(consumer)).offset == 10


async def test_one_failed_partition_does_not_stop_the_others():
    plan = Plan(deliveries={0: FakeRefusal("CORRUPT_DATA", "the disk is broken")})
    async with reading(broker_with(5, 5, plan=plan)) as consumer:
        offsets, errors = [], []
        for _ in range(6):
            try:
                offsets.append((await anext(consumer)).offset)
            except riverrun.CorruptDataError as error:
                errors.append(error)
    assert sorted(offsets) == [*range(5)]
    assert len(errors) == 1
    assert errors[0].reason is Reason.CORRUPT_DATA


async def test_a_partition_that_is_offline_for_a_moment_is_asked_for_again():
    plan = Plan(deliveries={1: FakeRefusal("PARTITION_OFFLINE", retry_safe=True)})
    async with reading(broker_with(30, plan=plan), stop_at_end=True) as consumer:
        assert [record.offset async for record in consumer] == [*range(30)]


async def test_a_damaged_batch_is_not_returned_nor_stepped_over():
    broker = broker_with(50)
    batch = broker.partition(TOPIC).batches[3]
    batch.records = batch.records[:-1] + b"?"
    async with reading(broker, stop_at_end=True) as consumer:
        seen = []
        with pytest.raises(riverrun.CorruptDataError, match="CRC-32"):
            await read_on(consumer, seen)
        assert [record.offset for record in seen] == [*range(batch.base_offset)]
        with pytest.raises(riverrun.CorruptDataError):
            await anext(consumer)


async def test_a_delivery_that_leaves_a_gap_ends_the_consumer():
    broker = broker_with(50)
    async with reading(broker, prefetch_bytes=1) as consumer:
        await anext(consumer)
        # As if the broker had left out what comes next.
        consumer._machine.readers[PLACE].expected -= 1
        with pytest.raises(riverrun.CorruptDataError, match="is next"):
            await read_on(consumer, [])


async def test_a_topic_that_is_not_there_is_told_at_once():
    async with reading(FakeBroker()) as consumer:
        for _ in range(2):
            with pytest.raises(riverrun.TopicNotFoundError):
                await anext(consumer)


async def test_compacted_logs_with_gaps_are_read_to_their_end():
    broker = broker_with(0)
    log = broker.partition(TOPIC)
    for number in range(5):
        fill(log, 3, batch=3, gap=number)
    async with reading(broker, stop_at_end=True) as consumer:
        offsets = [record.offset async for record in consumer]
        assert await consumer.position(PLACE) == log.end
    assert offsets == [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 14, 18, 19, 20]


async def test_offsets_are_found_by_time_and_at_the_end():
    async with reading(broker_with(20, 7)) as consumer:
        other = TopicPartition(TOPIC, 1)
        assert await consumer.end_offsets() == {PLACE: 20, other: 7}
        found = await consumer.offsets_for_times({PLACE: 1_700_000_000_005, other: 1 << 50})
        assert found == {PLACE: (5, 1_700_000_000_005), other: None}


async def test_getmany_returns_what_is_there_and_waits_only_for_the_first():
    async with reading(broker_with(25)) as consumer:
        assert await consumer.getmany(timeout_s=0) == []
        assert len(await consumer.getmany(10)) == 10
        assert await consumer.position(PLACE) == 10
        left = await consumer.getmany(1000)
        while len(left) < 15:
            left += await consumer.getmany(1000)
        assert [record.offset for record in left] == [*range(10, 25)]
        assert await consumer.getmany(timeout_s=0.01) == []


async def test_headers_keys_tombstones_and_times_arrive_as_they_were_sent():
    broker = broker_with(0)
    async with broker.serving() as address, impatient(address) as client:
        async with client.producer() as producer:
            await producer.send(TOPIC, None, key=b"k", timestamp_ms=5)
            await producer.send(TOPIC, b"", headers=[("a", b"1"), ("a", b"")], timestamp_ms=6)
        async with client.consumer(TOPIC, stop_at_end=True) as consumer:
            records = [record async for record in consumer]
    assert records == [
        riverrun.Record(TOPIC, 0, 0, 5, b"k", None),
        riverrun.Record(TOPIC, 0, 1, 6, None, b"", (("a", b"1"), ("a", b""))),
    ]


async def test_cancelled_calls_lose_nothing():
    broker = broker_with(300)
    seen = []
    async with reading(broker, stop_at_end=True, prefetch_bytes=300) as consumer:
        while len(seen) < 300:
            call = asyncio.ensure_future(consumer.getmany(7))
            for _ in range(len(seen) % 5):
                await asyncio.sleep(0)
            call.cancel()
            try:
                seen += await call
            except asyncio.CancelledError:
                seen += await consumer.getmany(3)
    assert [record.offset for record in seen] == [*range(300)]


async def test_an_error_that_waited_is_raised_although_others_go_on():
    plan = Plan(deliveries={1: FakeRefusal("CORRUPT_DATA", "the disk is broken")})
    async with reading(broker_with(15, 15, plan=plan)) as consumer:
        await consumer.getmany(1)
        await asyncio.sleep(0.05)
        errors = 0
        for _ in range(5):
            try:
                await consumer.getmany(100, timeout_s=0.02)
            except riverrun.CorruptDataError:
                errors += 1
    assert errors == 1


async def test_an_error_behind_records_waits_for_the_next_call():
    plan = Plan(deliveries={1: FakeRefusal("CORRUPT_DATA", "the disk is broken")})
    async with reading(broker_with(30, plan=plan)) as consumer:
        first = await consumer.getmany(1)
        await asyncio.sleep(0.05)
        rest = await consumer.getmany(100)
        assert len(first + rest) == 15
        with pytest.raises(riverrun.CorruptDataError):
            await consumer.getmany(100)
