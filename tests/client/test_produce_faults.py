"""Through gRPC and every fault: written once, in order, acknowledged where it stands."""

from __future__ import annotations

import asyncio
from itertools import chain

import grpc.aio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import riverrun
from riverrun import Reason
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.fake_log import FakeRefusal
from tests.client.faults import Fault, Plan

TOPIC = "t"


def run(scenario) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


@given(
    seed=st.integers(0, 2**32),
    partitions=st.sampled_from([1, 3]),
    compression=st.sampled_from(["none", "gzip", "zstd"]),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_send_many_through_faults_writes_each_record_once_and_in_order(
    seed, partitions, compression
):
    run(send_many_through_faults(seed, partitions, compression))


async def send_many_through_faults(seed: int, partitions: int, compression: str) -> None:
    broker = FakeBroker(Plan.seeded(seed, 40, kinds=Fault))
    broker.add_topic(TOPIC, partitions)
    sent = [b"%06d" % number for number in range(2000)]
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer(batch_bytes=1000, compression=compression)
        summary = await producer.send_many(TOPIC, [(value[-2:], value) for value in sent])
        await producer.close()
    logs = [log.values() for log in broker.topics[TOPIC].partitions]
    assert sorted(chain.from_iterable(logs)) == sent
    for log in logs:
        assert log == sorted(log)
    assert summary.records == len(sent)
    assert summary.offsets == {n: (0, len(log)) for n, log in enumerate(logs) if log}
    assert broker.plan.happened, "no fault took effect"


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_single_records_through_faults_are_told_where_they_stand(seed):
    run(single_records_through_faults(seed))


async def single_records_through_faults(seed: int) -> None:
    broker = FakeBroker(Plan.seeded(seed, 30, kinds=Fault))
    broker.add_topic(TOPIC, 2)
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer(batch_bytes=200)
        futures = []
        for number in range(300):
            futures.append(producer.send_nowait(TOPIC, b"%06d" % number, key=b"%d" % (number % 7)))
            if number % 10 == 0:
                await asyncio.sleep(0)
        places = await asyncio.gather(*futures)
        await producer.close()
    logs = [log.values() for log in broker.topics[TOPIC].partitions]
    assert sum(map(len, logs)) == 300
    for number, place in enumerate(places):
        assert logs[place.partition][place.offset] == b"%06d" % number
    for log in logs:
        assert log == sorted(log)


async def test_without_idempotence_a_lost_answer_fails_the_batch_and_says_that_nobody_knows():
    broker = FakeBroker(Plan({0: Fault.LOSE_ACK}))
    broker.add_topic(TOPIC)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(idempotent=False) as producer,
    ):
        with pytest.raises(riverrun.RetriableError) as caught:
            await producer.send(TOPIC, b"v")
        assert caught.value.reason is Reason.CONNECTION_LOST
        assert not caught.value.outcome_known
        await producer.send(TOPIC, b"w")
    assert broker.partition(TOPIC).values() == [b"v", b"w"]
    assert "InitProducer" not in broker.calls


async def test_without_idempotence_a_definite_refusal_is_tried_again():
    broker = FakeBroker(Plan({0: Fault.REFUSE_ONCE}))
    broker.add_topic(TOPIC)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(idempotent=False, batch_bytes=100) as producer,
    ):
        await producer.send_many(TOPIC, [b"%03d" % n for n in range(100)])
    assert broker.partition(TOPIC).values() == [b"%03d" % n for n in range(100)]


async def test_a_record_that_the_broker_refuses_fails_alone_and_at_once():
    refusal = FakeRefusal("INVALID_TIMESTAMP", "in the year 56000")
    broker = FakeBroker(Plan({1: refusal}))
    broker.add_topic(TOPIC)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer() as producer,
    ):
        await producer.send(TOPIC, b"0")
        with pytest.raises(riverrun.UsageError, match="year 56000") as caught:
            await producer.send(TOPIC, b"1")
        assert caught.value.reason is Reason.INVALID_TIMESTAMP
        assert caught.value.outcome_known
        place = await producer.send(TOPIC, b"2")
    assert place.offset == 1
    assert broker.partition(TOPIC).values() == [b"0", b"2"]


async def test_send_many_tells_how_much_was_written_when_a_batch_is_refused():
    broker = FakeBroker(Plan({3: FakeRefusal("INVALID_RECORD", "no good")}))
    broker.add_topic(TOPIC)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=100) as producer,
    ):
        with pytest.raises(riverrun.UsageError, match="no good") as caught:
            await producer.send_many(TOPIC, [b"%03d" % n for n in range(1000)])
    written = broker.partition(TOPIC).values()
    assert caught.value.acknowledged_records == len(written)
    assert 0 < caught.value.acknowledged_records < 1000
    first = caught.value.acknowledged_first
    assert written[:first] == [b"%03d" % n for n in range(first)]
    assert b"%03d" % first not in written


async def test_of_several_partitions_send_many_does_not_say_which_records_are_the_first():
    broker = FakeBroker(Plan({3: FakeRefusal("INVALID_RECORD", "no good")}))
    broker.add_topic(TOPIC, 2)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=100) as producer,
    ):
        with pytest.raises(riverrun.UsageError, match="no good") as caught:
            await producer.send_many(TOPIC, [b"%03d" % n for n in range(1000)])
        assert caught.value.acknowledged_first is None
        broker.plan.appends[broker.plan.append_number] = FakeRefusal("INVALID_RECORD", "nor that")
        with pytest.raises(riverrun.UsageError, match="nor that") as caught:
            await producer.send_many(TOPIC, [b"x"] * 5, partition=1)
        assert caught.value.acknowledged_first == 0


async def test_batches_that_a_topic_finds_too_large_are_cut_smaller():
    broker = FakeBroker()
    broker.add_topic(TOPIC, max_batch_bytes=700)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=10_000, compression="gzip") as producer,
    ):
        summary = await producer.send_many(TOPIC, [bytes([n % 256]) * 9 for n in range(3000)])
        await asyncio.gather(*(producer.send(TOPIC, b"%d" % n) for n in range(200)))
    values = broker.partition(TOPIC).values()
    assert values[:3000] == [bytes([n % 256]) * 9 for n in range(3000)]
    assert summary.records == 3000


async def test_a_record_too_large_for_its_topic_is_told_so():
    broker = FakeBroker()
    broker.add_topic(TOPIC, max_batch_bytes=700)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer() as producer,
    ):
        with pytest.raises(riverrun.UsageError, match="700 are allowed") as caught:
            await producer.send(TOPIC, bytes(1000))
        assert caught.value.reason is Reason.BATCH_TOO_LARGE


async def test_a_topic_that_is_made_anew_is_noticed_and_then_written_to():
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer() as producer,
    ):
        await producer.send(TOPIC, b"old")
        broker.add_topic(TOPIC)
        with pytest.raises(riverrun.TopicNotFoundError) as caught:
            await producer.send(TOPIC, b"lost")
        assert caught.value.reason is Reason.TOPIC_ID_MISMATCH
        place = await producer.send(TOPIC, b"new")
    assert place.offset == 0
    assert broker.partition(TOPIC).values() == [b"new"]


async def test_a_partition_that_forgot_its_producers_is_written_to_in_the_next_epoch():
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer() as producer,
    ):
        await producer.send(TOPIC, b"0")
        broker.partition(TOPIC).producers.clear()
        await producer.send(TOPIC, b"1")
    assert broker.partition(TOPIC).values() == [b"0", b"1"]
    assert broker.partition(TOPIC).producers[1].epoch == 1


async def test_a_fenced_producer_is_told_so_and_stays_so():
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer() as producer,
    ):
        await producer.send(TOPIC, b"0")
        broker.partition(TOPIC).producers[1].epoch = 9
        for _ in range(2):
            with pytest.raises(riverrun.ProducerFencedError):
                await producer.send(TOPIC, b"1")


async def test_records_are_not_acknowledged_forever_while_nobody_answers():
    broker = FakeBroker(Plan(dict.fromkeys(range(1000), Fault.DROP_BEFORE)))
    broker.add_topic(TOPIC)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(delivery_timeout_s=0.3) as producer,
    ):
        with pytest.raises(riverrun.TimedOutError, match="the fake breaks") as caught:
            await producer.send(TOPIC, b"v")
        assert not caught.value.outcome_known
        broker.plan.appends.clear()
        await producer.send(TOPIC, b"w")
    # The first one's outcome is unknown: what was on its way when it was given up may have arrived.
    assert broker.partition(TOPIC).values() in ([b"w"], [b"v", b"w"])


async def test_a_stream_that_has_ended_when_it_is_closed_is_followed_by_another(monkeypatch):
    """gRPC's core refuses to half-close a call that the broker has just ended."""
    broker = FakeBroker(Plan({1: Fault.GOING_AWAY}))
    broker.add_topic(TOPIC)
    refused = []
    closing = grpc.aio._call.StreamStreamCall.done_writing

    async def done_writing(call):
        if refused:
            await closing(call)
            return
        refused.append(call)
        raise grpc.aio.InternalError("Failed execute_batch: SendCloseFromClientOperation")

    monkeypatch.setattr(grpc.aio._call.StreamStreamCall, "done_writing", done_writing)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer() as producer,
    ):
        for number in range(4):
            await producer.send(TOPIC, b"%d" % number)
    assert refused
    assert broker.partition(TOPIC).values() == [b"0", b"1", b"2", b"3"]
