"""Where a consumer stands, how far behind it is, and going elsewhere before and while it reads."""

from __future__ import annotations

import asyncio
import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest

import riverrun
from riverrun import Last, Offset, Time, TopicPartition
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.fake_log import FakeRefusal
from tests.client.filling import FIRST_MS, fill

TOPIC = "t"
PLACE, OTHER = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


@pytest.fixture
async def broker():
    broker = FakeBroker()
    broker.heartbeat_s = 0.05
    for log, count in zip(broker.add_topic(TOPIC, 2).partitions, (30, 10), strict=True):
        fill(log, count)
    broker.partition(TOPIC, 1).log_start = 5
    return broker


@pytest.fixture
async def client(broker):
    async with broker.serving() as address, impatient(address) as client:
        yield client


# How far behind.


async def test_positions_and_lag_are_known_before_anything_was_delivered(client):
    async with client.consumer(TOPIC, prefetch_bytes=1) as consumer:
        assert await consumer.lag() == {PLACE: 30, OTHER: 5}
        assert await consumer.positions() == {PLACE: 0, OTHER: 5}


async def test_lag_counts_down_and_asks_nobody(client, broker):
    async with client.consumer(TOPIC, partitions=[0]) as consumer:
        for _ in range(7):
            await anext(consumer)
        assert await consumer.lag() == {PLACE: 23}
        assert await consumer.positions() == {PLACE: 7}
        assert consumer.statistics().lag_records == 23
    assert "ListOffsets" not in broker.calls


async def test_a_lag_of_which_a_part_is_unknown_is_no_number(client):
    async with client.consumer(TOPIC) as consumer:
        assert consumer.statistics().lag_records is None
        await consumer.assignment()
        assert consumer.statistics().lag_records == 35
        seeking = asyncio.create_task(consumer.seek(PLACE, 3))
        while consumer._machine.readers[PLACE].settled:  # noqa: ASYNC110 - its first step
            await asyncio.sleep(0)
        assert consumer.statistics().lag_records is None
        await seeking
        assert consumer.statistics().lag_records == 32


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "time_ms"),
    [
        (NOON, 1_767_268_800_000),
        (NOON + timedelta(microseconds=1), 1_767_268_800_001),
        (NOON.astimezone(timezone(timedelta(hours=5))), 1_767_268_800_000),
        (1_767_268_800_000.0, 1_767_268_800_000),
        (0.5, 1),
        (-1, -1),
    ],
)
def test_a_time_is_ms_or_a_datetime_that_knows_its_zone(given, time_ms):
    assert Time(given).time_ms == time_ms
    assert Time(given) == Time(time_ms)
    assert pickle.loads(pickle.dumps(Time(given))) == Time(time_ms)


@pytest.mark.parametrize(
    "given", [NOON.replace(tzinfo=None), "noon", None, True, float("nan"), float("inf"), 2**63]
)
def test_what_is_no_time_is_refused_when_it_is_made(given):
    with pytest.raises(riverrun.UsageError, match="use ms since 1970, or a datetime"):
        Time(given)


async def test_topics_in_a_list_are_refused_with_how_to_name_them(client):
    with pytest.raises(riverrun.UsageError, match="pass topics as separate arguments"):
        client.consumer(["a", "b"])


async def test_heartbeats_tell_of_a_lag_that_grows_while_nothing_is_delivered(client, broker):
    async with client.consumer(TOPIC, partitions=[0]) as consumer:
        consumer.pause([PLACE])
        assert await consumer.lag() == {PLACE: 30}
        fill(broker.partition(TOPIC), 12)
        async with asyncio.timeout(5):
            while await consumer.lag() != {PLACE: 42}:  # noqa: ASYNC110 - a heartbeat wakes nobody
                await asyncio.sleep(0.01)


async def test_of_a_partition_that_could_never_begin_nothing_is_known(client, broker):
    refusal = FakeRefusal("PARTITION_OFFLINE", "bring it back", retry_safe=True, retry_after_s=9)
    broker.partition(TOPIC, 1).offline = refusal
    async with client.consumer(TOPIC) as consumer:
        async with asyncio.timeout(5):
            while OTHER not in await consumer.lag():
                await consumer._loop.change()
        assert await consumer.lag() == {PLACE: 30, OTHER: None}
        assert await consumer.positions() == {PLACE: 0}
        with pytest.raises(riverrun.RetriableError, match="bring it back"):
            await consumer.position(OTHER)


async def test_lag_is_not_known_while_a_seek_is_under_way(client):
    async with client.consumer(TOPIC) as consumer:
        await consumer.assignment()
        seeking = asyncio.create_task(consumer.seek(PLACE, 7))
        await asyncio.sleep(0)
        assert await consumer.lag() == {PLACE: None, OTHER: 5}
        await seeking
        assert await consumer.lag() == {PLACE: 23, OTHER: 5}


async def test_logs_begin_and_end_where_the_broker_says(client):
    async with client.consumer(TOPIC) as consumer:
        assert await consumer.beginning_offsets() == {PLACE: 0, OTHER: 5}
        assert await consumer.end_offsets([OTHER]) == {OTHER: 10}
        with pytest.raises(riverrun.TopicNotFoundError):
            await consumer.beginning_offsets([TopicPartition("u", 0)])


async def test_statistics_tell_what_was_done(client, broker):
    async with client.consumer(TOPIC, group="g", partitions=[0]) as consumer:
        assert consumer.statistics().records == consumer.statistics().deliveries == 0
        for _ in range(7):
            await anext(consumer)
        await consumer.commit()
        statistics = consumer.statistics()
        assert (statistics.records, statistics.batches, statistics.commits) == (7, 2, 1)
        assert statistics.bytes == sum(len(b.records) for b in broker.partition(TOPIC).batches[:2])
        await consumer.seek(PLACE, 28)
        assert [record.offset for record in await consumer.getmany(5, timeout_s=5)] == [28, 29]
        assert consumer.statistics().records == 9
        assert consumer.statistics().read_ahead_bytes == 0
        assert consumer.statistics().deliveries > 1
        assert consumer.statistics().reconnects == 0


async def test_statistics_count_streams_that_were_opened_anew():
    broker = FakeBroker()
    fill(broker.add_topic(TOPIC).partitions[0], 5)
    broker.streams_to_leave = 2
    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC)
        await anext(consumer)
        assert consumer.statistics().reconnects == 2


# Going elsewhere.


@pytest.mark.parametrize(
    ("to", "first"),
    [
        (12, 12),
        (Offset(13), 13),
        (Time(FIRST_MS + 14), 14),
        (Last(3), 27),
        ("earliest", 0),
        ("committed", 9),
    ],
)
@pytest.mark.parametrize("before", [0, 6])
async def test_a_seek_goes_anywhere_before_the_first_record_and_later(client, to, first, before):
    async with client.consumer(TOPIC, group="g", partitions=[0]) as consumer:
        await consumer.commit({PLACE: 9})
        for _ in range(before):
            await anext(consumer)
        await consumer.seek(PLACE, to)
        assert await consumer.position(PLACE) == first
        assert (await anext(consumer)).offset == first


async def test_a_seek_to_the_end_returns_only_what_comes_from_then_on(client, broker):
    async with client.consumer(TOPIC, partitions=[0]) as consumer:
        await consumer.seek_to_end(PLACE)
        assert await consumer.getmany(timeout_s=0.05) == []
        fill(broker.partition(TOPIC), 1)
        await broker.notify()
        assert (await anext(consumer)).offset == 30


async def test_a_seek_without_names_moves_all_partitions(client):
    async with client.consumer(TOPIC) as consumer:
        await consumer.seek_to_end()
        assert await consumer.positions() == {PLACE: 30, OTHER: 10}
        await consumer.seek_to_beginning()
        assert await consumer.positions() == {PLACE: 0, OTHER: 5}
        await consumer.seek_to_end(OTHER)
        assert await consumer.positions() == {PLACE: 0, OTHER: 10}


async def test_several_partitions_are_moved_at_once(client):
    async with client.consumer(TOPIC) as consumer:
        await anext(consumer)
        await consumer.seek_many({PLACE: Last(2), OTHER: 7})
        assert await consumer.positions() == {PLACE: 28, OTHER: 7}
        seen = set()
        while len(seen) < 5:
            seen |= {(record.partition, record.offset) for record in await consumer.getmany()}
        assert seen == {(0, 28), (0, 29), (1, 7), (1, 8), (1, 9)}


async def test_a_seek_of_several_that_makes_no_sense_moves_nothing(client):
    async with client.consumer(TOPIC) as consumer:
        await consumer.assignment()
        for places in ({PLACE: 3, OTHER: -1}, {PLACE: 3, TopicPartition("u", 0): 1}):
            with pytest.raises(riverrun.UsageError):
                await consumer.seek_many(places)
        assert await consumer.positions() == {PLACE: 0, OTHER: 5}


async def test_a_refused_seek_of_several_is_told_once_the_others_have_moved(client, broker):
    async with client.consumer(TOPIC) as consumer:
        await consumer.assignment()
        broker.partition(TOPIC, 1).offline = FakeRefusal("CORRUPT_DATA", "the disk is broken")
        with pytest.raises(riverrun.CorruptDataError, match="the disk is broken"):
            await consumer.seek_many({OTHER: 7, PLACE: 3})
        assert (await consumer.positions())[PLACE] == 3


async def test_what_a_failed_partition_has_left_is_not_sent_again_and_again(client, broker):
    fill(broker.partition(TOPIC), 3000)
    broker.partition(TOPIC).batches[1].records = b"\xff"
    async with client.consumer(TOPIC, partitions=[0], prefetch_bytes=500) as consumer:
        for _ in range(5):
            await anext(consumer)
        with pytest.raises(riverrun.CorruptDataError):
            await anext(consumer)
        await asyncio.sleep(0.2)
        sent = broker.plan.delivery_number
        assert sent < 50, "all of it was sent to be dropped"
        await consumer.seek(PLACE, 10)
        assert [(await anext(consumer)).offset for _ in range(2000)] == [*range(10, 2010)]
