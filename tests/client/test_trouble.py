"""Partitions that cannot be used just now: asked for again, told of once, and no quiet end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager

import pytest

import riverrun
from riverrun import Offset, Reason, TopicPartition
from tests.client.fake_broker import FakeBroker, abort, impatient
from tests.client.fake_log import FakeRefusal
from tests.client.fake_produce import serve_produce_stream
from tests.client.faults import Fault, Plan
from tests.client.filling import fill

TOPIC = "t"
PLACE, OTHER = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
COMMAND = "riverrun-server recover --topic t --accept-loss"


def offline(text: str = COMMAND) -> FakeRefusal:
    return FakeRefusal("PARTITION_OFFLINE", text, retry_safe=True, retry_after_s=0.01)


def stalled() -> FakeRefusal:
    return FakeRefusal("STORAGE_STALLED", retry_safe=True, retry_after_s=0.01)


def broker_with(*counts: int) -> FakeBroker:
    broker = FakeBroker()
    for log, count in zip(broker.add_topic(TOPIC, len(counts)).partitions, counts, strict=True):
        fill(log, count)
    return broker


@asynccontextmanager
async def client_of(broker: FakeBroker, **settings):
    async with broker.serving() as address, impatient(address, **settings) as client:
        yield client


def warnings(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


async def read_on(consumer) -> None:
    """Read until an error ends it."""
    async with asyncio.timeout(5):
        while True:
            await anext(consumer)


async def many_attempts(broker: FakeBroker, count: int) -> None:
    """Wait until the client has asked so often for what it does not get."""
    asked = broker.refusals
    await broker.until(lambda: broker.refusals >= asked + count)


# Reading.


async def test_a_person_is_told_once_that_a_partition_is_offline_and_again_the_next_time(caplog):
    broker = broker_with(5, 5)
    log = broker.partition(TOPIC, 1)
    async with client_of(broker) as client:
        consumer = client.consumer(TOPIC)
        for episode in (1, 2):
            log.offline = offline()
            fill(log, 5)
            await broker.notify()
            if episode == 1:
                assert [r.partition for r in await consumer.getmany(5)] == [0] * 5
            waiting = asyncio.ensure_future(consumer.getmany(100))
            await many_attempts(broker, 3)
            told = [text for text in warnings(caplog) if COMMAND in text]
            assert len(told) == episode
            assert told[-1] == f"cannot be read, trying again: t[1]: {COMMAND}"
            log.offline = None
            seen = await asyncio.wait_for(waiting, 5)
            while len(seen) < 10 // episode:
                seen += await asyncio.wait_for(consumer.getmany(100), 5)
            assert {r.partition for r in seen} == {1}


async def test_what_passes_by_itself_soon_is_not_told(caplog):
    broker = broker_with(5)
    broker.plan = Plan(deliveries=dict.fromkeys(range(3), stalled()))
    async with client_of(broker) as client:
        assert len(await asyncio.wait_for(client.consumer(TOPIC).getmany(5), 5)) == 5
    assert len(broker.plan.happened) == 3
    assert warnings(caplog) == []


async def test_reading_to_the_end_of_a_partition_that_stays_offline_is_an_error():
    broker = broker_with(5, 5)
    broker.partition(TOPIC, 1).offline = offline()
    async with client_of(broker, request_timeout_s=0.3) as client:
        consumer = client.consumer(TOPIC, stop_at_end=True)
        assert [(await anext(consumer)).partition for _ in range(5)] == [0] * 5
        for _ in range(2):
            with pytest.raises(riverrun.RetriableError, match=COMMAND) as caught:
                await asyncio.wait_for(anext(consumer), 5)
            assert caught.value.reason is Reason.PARTITION_OFFLINE
            assert "after 0.3 s" in caught.value.message


async def test_a_partition_that_goes_offline_on_the_way_to_the_end_is_an_error():
    broker = broker_with(30)
    async with client_of(broker, request_timeout_s=0.3) as client:
        consumer = client.consumer(TOPIC, stop_at_end=True, prefetch_bytes=1)
        await anext(consumer)
        broker.partition(TOPIC).offline = offline()
        with pytest.raises(riverrun.RetriableError, match=COMMAND):
            await read_on(consumer)


async def test_a_partition_that_comes_back_in_time_is_read_to_its_end():
    broker = broker_with(5, 5)
    broker.partition(TOPIC, 1).offline = offline()
    async with client_of(broker, request_timeout_s=20) as client:
        consumer = client.consumer(TOPIC, stop_at_end=True)
        assert len(await consumer.getmany(5)) == 5
        waiting = asyncio.ensure_future(consumer.getmany(5))
        await many_attempts(broker, 2)
        broker.partition(TOPIC, 1).offline = None
        assert [r.offset for r in await asyncio.wait_for(waiting, 5)] == [*range(5)]
        assert await asyncio.wait_for(consumer.getmany(5), 5) == []


async def test_without_an_end_a_partition_that_stays_offline_is_waited_for():
    broker = broker_with(5)
    broker.partition(TOPIC).offline = offline()
    async with client_of(broker, request_timeout_s=0.05) as client:
        consumer = client.consumer(TOPIC)
        waiting = asyncio.ensure_future(consumer.getmany(5))
        await many_attempts(broker, 20)
        assert not waiting.done()
        broker.partition(TOPIC).offline = None
        assert len(await asyncio.wait_for(waiting, 5)) == 5


async def test_an_end_is_no_end_before_it_is_known_that_nothing_is_offline():
    broker = broker_with(0, 5)
    broker.partition(TOPIC, 1).offline = offline()
    broker.errors_may_come.clear()
    async with client_of(broker, request_timeout_s=0.2) as client:
        consumer = client.consumer(TOPIC, stop_at_end=True)
        assert await consumer.assignment() == (PLACE,)
        reading = asyncio.ensure_future(anext(consumer))
        await asyncio.sleep(0)
        broker.errors_may_come.set()
        with pytest.raises(riverrun.RetriableError, match=COMMAND):
            await asyncio.wait_for(reading, 5)


async def test_a_broker_that_goes_away_before_it_is_through_has_not_said_that_this_is_the_end():
    broker = broker_with(0, 5)
    broker.partition(TOPIC, 1).offline = offline()
    broker.streams_to_leave = 1
    async with client_of(broker, request_timeout_s=0.2) as client:
        consumer = client.consumer(TOPIC, stop_at_end=True)
        with pytest.raises(riverrun.RetriableError, match=COMMAND):
            await asyncio.wait_for(anext(consumer), 5)
    assert broker.subscribe_streams == 2


async def test_a_missing_topic_beside_one_that_is_there_is_told_where_the_end_was_asked_for():
    broker = broker_with(0)
    broker.errors_may_come.clear()
    async with client_of(broker) as client:
        consumer = client.consumer(TOPIC, "missing", stop_at_end=True)
        assert await consumer.assignment() == (PLACE,)
        reading = asyncio.ensure_future(anext(consumer))
        await asyncio.sleep(0)
        broker.errors_may_come.set()
        with pytest.raises(riverrun.TopicNotFoundError, match="missing"):
            await asyncio.wait_for(reading, 5)
        with pytest.raises(riverrun.TopicNotFoundError, match="missing"):
            await asyncio.wait_for(anext(consumer), 5)


@pytest.mark.parametrize("places", [{}, {PLACE: Offset(99)}])
async def test_a_place_beyond_the_end_is_an_error_that_tells_what_can_be_read(places):
    topics = () if places else (TOPIC,)
    async with client_of(broker_with(20)) as client:
        consumer = client.consumer(
            *topics, from_=Offset(99), partitions=places or None, stop_at_end=True
        )
        for _ in range(2):
            with pytest.raises(riverrun.OffsetOutOfRangeError) as caught:
                await asyncio.wait_for(anext(consumer), 5)
            assert caught.value.available == (0, 20)
        with pytest.raises(riverrun.OffsetOutOfRangeError):
            await asyncio.wait_for(consumer.position(PLACE), 5)
        await consumer.seek(PLACE, 18)
        assert [r.offset async for r in consumer] == [18, 19]


async def test_the_position_is_told_once_the_broker_has_found_it():
    broker = broker_with(20)
    broker.silent = True
    async with client_of(broker) as client:
        consumer = client.consumer(TOPIC, from_=Offset(99))
        await consumer.assignment()
        asking = asyncio.ensure_future(consumer.position(PLACE))
        await asyncio.sleep(0)
        assert not asking.done()
        broker.silent = False
        await broker.notify()
        with pytest.raises(riverrun.OffsetOutOfRangeError):
            await asyncio.wait_for(asking, 5)


async def test_the_position_of_a_paused_partition_is_told_although_the_broker_does_not_look_there():
    async with client_of(broker_with(20)) as client:
        consumer = client.consumer(TOPIC)
        await consumer.assignment()
        consumer.pause([PLACE])
        await asyncio.wait_for(consumer.seek(PLACE, 99), 5)
        assert await asyncio.wait_for(consumer.position(PLACE), 5) == 99


@pytest.mark.parametrize(("reset", "read"), [("earliest", [*range(20)]), ("latest", [])])
async def test_a_place_beyond_the_end_is_reset_where_that_was_asked_for(reset, read, caplog):
    broker = broker_with(20)
    async with client_of(broker) as client:
        consumer = client.consumer(TOPIC, from_=Offset(99), offset_reset=reset, stop_at_end=True)
        async with asyncio.timeout(5):
            assert [r.offset async for r in consumer] == read
            assert await consumer.position(PLACE) == 20
    assert broker.subscribe_streams == 1
    assert any("position 99 is out of range" in text for text in warnings(caplog))


async def test_a_bug_in_the_broker_that_fails_streams_is_told_once(caplog):
    broker = broker_with(5)
    broker.refuse_streams = [FakeRefusal("INTERNAL", "incident 7", known=False) for _ in range(5)]
    async with client_of(broker) as client:
        assert len(await asyncio.wait_for(client.consumer(TOPIC).getmany(5), 5)) == 5
    assert broker.subscribe_streams == 6
    assert [("incident 7" in text, "INTERNAL" in text) for text in warnings(caplog)] == [
        (True, True)
    ]


async def test_a_lookup_for_a_group_that_cannot_be_made_just_now_is_told_and_made_again(caplog):
    broker = broker_with(5)
    broker.fail_to_begin = [stalled()]
    broker.refuse["FetchOffsets"] = [offline("the offsets topic")]
    async with client_of(broker, request_timeout_s=0.001) as client:
        consumer = client.consumer(TOPIC, group="g")
        assert len(await asyncio.wait_for(consumer.getmany(5), 5)) == 5
    assert broker.refuse["FetchOffsets"] == []
    assert ["the offsets topic" in text for text in warnings(caplog)] == [True]


async def test_a_lookup_for_a_group_that_fails_for_good_is_raised():
    broker = broker_with(5)
    broker.fail_to_begin = [stalled()]
    broker.refuse["FetchOffsets"] = [FakeRefusal("INTERNAL", "incident 8", known=False)]
    async with client_of(broker) as client:
        with pytest.raises(riverrun.FatalError, match="incident 8"):
            await asyncio.wait_for(anext(client.consumer(TOPIC, group="g")), 5)


# Writing.


async def test_a_producer_tells_once_that_a_partition_is_offline_and_writes_when_it_is_back(caplog):
    broker = broker_with(0)
    async with client_of(broker) as client, client.producer() as producer:
        for episode in (1, 2):
            broker.partition(TOPIC).offline = offline()
            sent = [producer.send_nowait(TOPIC, b"%d" % n) for n in range(3)]
            appends = broker.plan.append_number
            await broker.until(lambda least=appends + 3: broker.plan.append_number >= least)
            assert (
                warnings(caplog) == [f"cannot be written, trying again: t[0]: {COMMAND}"] * episode
            )
            broker.partition(TOPIC).offline = None
            await asyncio.wait_for(asyncio.gather(*sent), 5)
    assert broker.partition(TOPIC).values() == [b"0", b"1", b"2"] * 2


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_record_that_is_not_acknowledged_in_time_says_what_the_broker_said(idempotent):
    broker = broker_with(0)
    # Asked for again so late that no answer is awaited when the time is up.
    refusal = FakeRefusal("PARTITION_OFFLINE", COMMAND, retry_safe=True, retry_after_s=60)
    broker.partition(TOPIC).offline = refusal
    async with (
        client_of(broker) as client,
        client.producer(delivery_timeout_s=0.3, idempotent=idempotent) as producer,
    ):
        with pytest.raises(riverrun.TimedOutError, match=COMMAND) as caught:
            await asyncio.wait_for(producer.send(TOPIC, b"v"), 5)
        assert caught.value.outcome_known


async def test_a_producer_does_not_tell_of_what_passes_by_itself_soon(caplog):
    broker = broker_with(0)
    broker.plan = Plan(appends=dict.fromkeys(range(3), stalled()))
    async with client_of(broker) as client, client.producer() as producer:
        await asyncio.wait_for(producer.send(TOPIC, b"v"), 5)
    assert len(broker.plan.happened) == 3
    assert warnings(caplog) == []


async def test_a_bug_in_the_broker_that_fails_produce_streams_is_told_once(caplog, monkeypatch):
    failures = [FakeRefusal("INTERNAL", "incident 9", known=False) for _ in range(3)]

    async def serve(broker, context):
        if failures:
            await abort(context, failures.pop())
        await serve_produce_stream(broker, context)

    monkeypatch.setattr("tests.client.fake_broker.serve_produce_stream", serve)
    broker = broker_with(0)
    async with client_of(broker) as client, client.producer() as producer:
        await asyncio.wait_for(producer.send(TOPIC, b"v"), 5)
    assert broker.produce_streams == 4
    assert ["incident 9" in text for text in warnings(caplog)] == [True]


async def test_a_late_record_is_not_explained_by_a_stream_that_broke_before_the_last_answer():
    broker = broker_with(0)
    broker.plan = Plan(appends={0: Fault.DROP_BEFORE})
    refusal = FakeRefusal("PARTITION_OFFLINE", COMMAND, retry_safe=True, retry_after_s=60)
    broker.partition(TOPIC).offline = refusal
    async with client_of(broker) as client, client.producer(delivery_timeout_s=0.5) as producer:
        with pytest.raises(riverrun.TimedOutError, match=COMMAND) as caught:
            await asyncio.wait_for(producer.send(TOPIC, b"v"), 5)
    assert broker.produce_streams == 2
    assert "the fake breaks" not in caught.value.message


async def test_streams_that_break_again_and_again_are_one_warning(caplog):
    broker = broker_with(100)
    broker.plan = Plan(deliveries=dict.fromkeys(range(2, 14, 2), Fault.DROP_BEFORE))
    async with client_of(broker) as client:
        consumer = client.consumer(TOPIC, stop_at_end=True)
        async with asyncio.timeout(5):
            assert len([record async for record in consumer]) == 100
    assert len(broker.plan.happened) > 2
    assert ["subscription interrupted" in text for text in warnings(caplog)] == [True]
