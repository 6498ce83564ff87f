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
