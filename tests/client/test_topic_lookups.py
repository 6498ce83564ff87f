"""Records whose topic is not known yet: each hears of its outcome, whatever became of the lookup."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

import riverrun
import riverrun.blocking
from riverrun import FatalError, Reason, TopicNotFoundError
from riverrun._net import produce_topics
from tests.client.fake_broker import FakeBroker, impatient

TOPIC = "t"


@asynccontextmanager
async def producing(**settings):
    broker = FakeBroker()
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(**settings) as producer,
    ):
        yield broker, producer


async def test_a_record_sent_again_when_its_topic_was_not_found_hears_so_again():
    async with producing() as (_, producer), asyncio.timeout(10):
        for _ in range(3):
            with pytest.raises(TopicNotFoundError):
                await producer.send(TOPIC, b"x")
        assert producer.statistics().buffered_bytes == 0


async def test_a_topic_that_was_made_meanwhile_is_written_to_by_the_same_producer():
    async with producing() as (broker, producer), asyncio.timeout(10):
        with pytest.raises(TopicNotFoundError):
            await producer.send(TOPIC, b"x")
        broker.add_topic(TOPIC)
        assert (await producer.send(TOPIC, b"x")).offset == 0


async def test_a_flush_waits_for_what_a_callback_has_sent_again():
    errors = []

    def again(error, metadata):
        errors.append(error)
        if len(errors) < 4:
            producer.send_nowait(TOPIC, b"x", on_delivery=again)

    async with producing() as (_, producer), asyncio.timeout(10):
        producer.send_nowait(TOPIC, b"x", on_delivery=again)
        for flushes in range(1, 5):
            await producer.flush()
            assert len(errors) == flushes
        assert producer.statistics().buffered_bytes == 0
    assert {error.reason for error in errors} == {Reason.TOPIC_NOT_FOUND}


async def test_the_delivery_timeout_counts_from_when_a_record_was_taken(monkeypatch):
    learnt, fetch = asyncio.Event(), produce_topics.fetch_topic

    async def slow(connections, topic):
        await learnt.wait()
        return await fetch(connections, topic)

    monkeypatch.setattr(produce_topics, "fetch_topic", slow)
    async with producing(linger_s=0.0, delivery_timeout_s=30.0) as (broker, producer):
        broker.add_topic(TOPIC)
        loop = asyncio.get_running_loop()
        before_s = loop.time()
        future = producer.send_nowait(TOPIC, b"x")
        after_s = loop.time()
        await asyncio.sleep(0.3)
        engine = producer._engine
        learnt.set()
        while (deadline_s := engine.machine.next_deadline_s()) is None:
            assert not future.done()
            await asyncio.sleep(0)
        assert before_s <= deadline_s - 30.0 <= after_s
        await future
        assert producer.statistics().acknowledgement_time.max_s >= 0.3


async def test_a_record_whose_topic_was_learnt_late_gives_up_before_those_taken_later(monkeypatch):
    learnt, fetch = asyncio.Event(), produce_topics.fetch_topic

    async def slow(connections, topic):
        if topic == "slow":
            await learnt.wait()
        return await fetch(connections, topic)

    monkeypatch.setattr(produce_topics, "fetch_topic", slow)
    told = []
    async with producing(linger_s=60.0, delivery_timeout_s=1.0) as (broker, producer):
        for topic in (TOPIC, "slow"):
            broker.add_topic(topic)
        producer.send_nowait("slow", b"", on_delivery=lambda *_: told.append("slow"))
        await asyncio.sleep(0.2)
        late = producer.send_nowait(TOPIC, b"", on_delivery=lambda *_: told.append(TOPIC))
        await producer._engine._topics.loaded([TOPIC])
        learnt.set()
        with pytest.raises(riverrun.TimedOutError):
            await late
        assert told == ["slow", TOPIC]


async def test_a_lookup_that_meets_a_bug_fails_its_records_and_the_next_one_works(monkeypatch):
    async def broken(connections, topic):
        raise LookupError("no such drawer")

    async with producing() as (broker, producer), asyncio.timeout(10):
        broker.add_topic(TOPIC)
        with monkeypatch.context() as patched:
            patched.setattr(produce_topics, "fetch_topic", broken)
            with pytest.raises(FatalError, match="no such drawer"):
                await producer.send(TOPIC, b"x")
        assert (await producer.send(TOPIC, b"x")).offset == 0


def test_threads_that_send_again_all_hear_that_there_is_no_topic(real_broker, own_topic):
    reasons = []

    def insist(producer):
        for _ in range(5):
            try:
                producer.send(own_topic, b"x")
            except riverrun.RiverrunError as error:
                reasons.append(error.reason)

    with riverrun.blocking.Client(real_broker.address) as client:
        producer = client.producer()
        threads = [threading.Thread(target=insist, args=(producer,), daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert reasons == [Reason.TOPIC_NOT_FOUND] * 40
        client.admin().create_topic(own_topic, partitions=1)
        assert producer.send(own_topic, b"x").offset == 0
