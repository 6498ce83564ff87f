"""Callbacks of `send_nowait`: each record is told of once, in order, whatever callbacks do."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import asynccontextmanager

import pytest

import riverrun
from riverrun import BufferFullError, Reason, TopicNotFoundError
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.fake_log import FakeRefusal
from tests.client.faults import Fault, Plan

TOPIC = "t"
REFUSED = FakeRefusal("INVALID_RECORD", "not this one")


class Told:
    """What callbacks were told, by the value of the record."""

    def __init__(self):
        self.all = []

    def of(self, value):
        return lambda error, metadata: self.all.append((value, error, metadata))


@asynccontextmanager
async def producing(plan=None, partitions=1, **settings):
    broker = FakeBroker(plan)
    broker.add_topic(TOPIC, partitions)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(**settings) as producer,
    ):
        yield broker, producer


async def test_each_record_is_told_of_once_in_the_order_of_its_partition():
    told = Told()
    async with producing(Plan({1: Fault.LOSE_ACK, 4: Fault.REFUSE_ONCE}), 3) as (_, producer):
        futures = [
            producer.send_nowait(
                TOPIC, b"%d" % n, key=b"%d" % (n % 7), on_delivery=told.of(b"%d" % n)
            )
            for n in range(500)
        ]
        await producer.flush()
        assert len(told.all) == 500, "a flush comes behind the callbacks"
    assert {value for value, _, _ in told.all} == {b"%d" % n for n in range(500)}
    by_value = {value: metadata for value, error, metadata in told.all if error is None}
    assert [by_value[b"%d" % n] for n in range(500)] == [future.result() for future in futures]
    for partition in range(3):
        offsets = [m.offset for _, _, m in told.all if m.partition == partition]
        assert offsets == [*range(len(offsets))]


async def test_a_failure_is_told_with_the_error_and_without_metadata():
    told = Told()
    plan = Plan(dict.fromkeys(range(9), REFUSED))
    async with producing(plan) as (_, producer):
        future = producer.send_nowait(TOPIC, b"a", on_delivery=told.of(b"a"))
        with pytest.raises(riverrun.UsageError):
            await future
        ((value, error, metadata),) = told.all
    assert (value, metadata) == (b"a", None)
    assert error.reason is Reason.INVALID_RECORD


async def test_a_failure_that_was_told_is_not_logged_by_asyncio(caplog):
    told = Told()
    plan = Plan(dict.fromkeys(range(9), REFUSED))
    async with producing(plan) as (_, producer):
        producer.send_nowait(TOPIC, b"a", on_delivery=told.of(b"a"))
        producer.send_nowait("nowhere", b"b", on_delivery=told.of(b"b"))
        await producer.flush()
    gc.collect()
    assert len(told.all) == 2
    assert "never retrieved" not in caplog.text


async def test_records_whose_topic_is_not_there_are_told_of():
    told = Told()
    async with producing() as (_, producer):
        producer.send_nowait("nowhere", b"", on_delivery=told.of("no topic"))
        producer.send_nowait(TOPIC, b"", partition=5, on_delivery=told.of("no partition"))
        await producer.flush()
    assert sorted(what for what, _, _ in told.all) == ["no partition", "no topic"]
    assert all(isinstance(error, TopicNotFoundError) for _, error, _ in told.all)


async def test_a_flush_with_nothing_left_to_wait_for_comes_behind_the_callbacks_too():
    told = Told()
    async with producing(partitioner=lambda *_: 99) as (_, producer):
        await producer.send(TOPIC, b"", partition=0)
        producer.send_nowait(TOPIC, b"", on_delivery=told.of("refused at once"))
        assert told.all == [], "it is not called by send_nowait itself"
        await producer.flush()
        assert len(told.all) == 1


async def test_what_a_callback_raises_is_logged_and_stops_nothing(caplog):
    told = Told()

    def angry(error, metadata):
        raise LookupError("not in my table")

    async def forgetful(error, metadata):
        told.all.append("never")

    async with producing() as (_, producer):
        for n in range(3):
            producer.send_nowait(TOPIC, b"", on_delivery=angry)
            producer.send_nowait(TOPIC, b"", on_delivery=forgetful)
            producer.send_nowait(TOPIC, b"", on_delivery=told.of(n))
        await producer.flush()
        await producer.send(TOPIC, b"it goes on")
    assert [n for n, _, _ in told.all] == [0, 1, 2]
    logged = [r for r in caplog.records if r.name == "riverrun" and r.levelno == logging.ERROR]
    assert sum("not in my table" in str(record.exc_info[1]) for record in logged) == 3
    assert sum("coroutine function" in str(record.exc_info[1]) for record in logged) == 3


async def test_a_callback_may_send():
    done = asyncio.Event()
    left = 200

    def again(error, metadata):
        nonlocal left
        left -= 1
        if left:
            producer.send_nowait(TOPIC, b"%d" % left, on_delivery=again)
        else:
            done.set()

    async with producing() as (broker, producer):
        producer.send_nowait(TOPIC, b"200", on_delivery=again)
        async with asyncio.timeout(10):
            await done.wait()
    assert broker.partition(TOPIC).values() == [b"%d" % n for n in range(200, 0, -1)]


async def test_a_callback_hears_of_a_record_whose_future_was_cancelled():
    told = Told()
    async with producing() as (broker, producer):
        producer.send_nowait(TOPIC, b"a", on_delivery=told.of(b"a")).cancel()
        await producer.flush()
    ((_, error, metadata),) = told.all
    assert error is None
    assert metadata.offset == 0
    assert broker.partition(TOPIC).values() == [b"a"]


async def test_a_close_that_gives_up_tells_of_all_that_is_left():
    told = Told()
    stuck = Plan(dict.fromkeys(range(10_000), Fault.DROP_BEFORE))
    async with producing(stuck) as (_, producer):
        for n in range(50):
            producer.send_nowait(TOPIC, b"", on_delivery=told.of(n))
        await producer.close(timeout_s=0.05)
        assert [n for n, _, _ in told.all] == [*range(50)]
    assert {error.reason for _, error, _ in told.all} == {Reason.CLOSED}


async def test_the_producers_own_is_for_those_that_name_none():
    told = Told()
    async with producing(on_delivery=told.of("all")) as (_, producer):
        producer.send_nowait(TOPIC, b"")
        producer.send_nowait(TOPIC, b"", on_delivery=told.of("one"))
        await producer.send(TOPIC, b"")
    assert sorted(who for who, _, _ in told.all) == ["all", "one"]


async def test_a_record_that_was_not_taken_is_not_told_of():
    told = Told()
    stuck = Plan(dict.fromkeys(range(10_000), Fault.DROP_BEFORE))
    async with producing(stuck, batch_bytes=1_000, buffer_bytes=1_000) as (_, producer):
        producer.send_nowait(TOPIC, bytes(900), on_delivery=told.of("taken"))
        with pytest.raises(BufferFullError):
            producer.send_nowait(TOPIC, bytes(900), on_delivery=told.of("full"))
        with pytest.raises(riverrun.UsageError):
            producer.send_nowait(TOPIC, "text", on_delivery=told.of("text"))
        await producer.close(timeout_s=0.01)
    assert [what for what, _, _ in told.all] == ["taken"]
