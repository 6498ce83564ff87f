"""Serializers, partitioners and callbacks of a blocking producer, and deserializers of a consumer."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
from contextlib import suppress

import pytest

import riverrun.blocking
from riverrun import TopicPartition
from riverrun.blocking.loop_thread import LoopThread
from riverrun.blocking.send_queue import SendQueue
from tests.e2e.broker_process import BrokerProcess


@pytest.fixture
def topic(client, own_topic):
    client.admin().create_topic(own_topic, partitions=3)
    return own_topic


class Told:
    """What a callback was told, and on which threads."""

    def __init__(self):
        self.outcomes = []
        self.threads = set()

    def __call__(self, error, metadata):
        self.threads.add(threading.current_thread().name)
        self.outcomes.append(error or metadata)


def test_on_delivery_is_told_on_the_clients_thread_in_order_before_a_flush_returns(client, topic):
    own, of_producer = Told(), Told()
    with client.producer(on_delivery=of_producer) as producer:
        for number in range(500):
            told = own if number % 2 else None
            producer.send_nowait(topic, b"%d" % number, partition=0, on_delivery=told)
        producer.flush()
        assert [told.offset for told in own.outcomes] == list(range(1, 500, 2))
        assert [told.offset for told in of_producer.outcomes] == list(range(0, 500, 2))
        producer.send(topic, b"told by its own call")
    assert len(of_producer.outcomes) == 250
    assert own.threads | of_producer.threads == {"riverrun client"}


def test_a_callback_may_send_and_ask_and_may_not_block(client, topic):
    refused = []

    def told(error, metadata):
        try:
            producer.drain()
        except riverrun.UsageError as error:
            refused.append(error)
        if metadata.offset < 5:
            producer.send_nowait(topic, b"more", partition=0, on_delivery=told)
        assert producer.statistics().records_sent > metadata.offset

    with client.producer() as producer:
        producer.send_nowait(topic, b"first", partition=0, on_delivery=told)
        for _ in range(6):
            producer.flush()
        assert producer.statistics().records_acknowledged == 6
    assert len(refused) == 6
    assert "on_delivery" in str(refused[0])


def test_who_is_told_of_a_failure_needs_no_log_and_what_a_callback_raises_is_logged(
    client, topic, caplog
):
    told = Told()
    with client.producer() as producer:
        producer.send_nowait("nobody-made-this", b"", on_delivery=told)
        producer.flush()
        assert [outcome.reason for outcome in told.outcomes] == ["TOPIC_NOT_FOUND"]
        assert not caplog.records
        producer.send_nowait(topic, b"", on_delivery=lambda error, metadata: 1 / 0)
        producer.flush()
        assert producer.send(topic, b"").offset >= 0
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_record_that_never_reached_the_producer_is_told_too_and_once(tmp_path, own_topic):
    broker = BrokerProcess(tmp_path)
    told = Told()
    try:
        broker.start()
        with riverrun.blocking.Client(broker.address) as client:
            client.admin().create_topic(own_topic, partitions=1)
            producer = client.producer(buffer_bytes=100_000, batch_bytes=20_000)
            producer.send(own_topic, b"")
            os.kill(broker.pid, signal.SIGSTOP)
            value = bytes(2000)
            count = 0
            with suppress(riverrun.BufferFullError):
                while count < 1000:
                    producer.send_nowait(own_topic, value, on_delivery=told)
                    count += 1
            waiting = threading.Thread(target=_send_and_fail, args=(producer, own_topic, value))
            waiting.start()
            producer.close(timeout_s=0.2)
            waiting.join(20)
            assert not waiting.is_alive()
    finally:
        os.kill(broker.pid, signal.SIGCONT)
        broker.stop()
    assert 40 < count < 1000
    assert len(told.outcomes) == count
    assert {type(outcome) for outcome in told.outcomes} == {riverrun.ClosedError}


class NoRoom:
    """A buffer that has no room, ever."""

    delivery_timeout_s = 60.0

    async def room(self, size_bytes):
        await asyncio.Event().wait()

    def no_room(self, size_bytes):
        return AssertionError("nobody waits for so long")


def _send_and_fail(producer, topic, value):
    with pytest.raises(riverrun.RiverrunError):
        producer.send(topic, value)


@pytest.mark.parametrize(
    ("refusal", "told_of"),
    [
        (
            riverrun.BufferFullError("full", reason=riverrun.Reason.BUFFER_FULL),
            riverrun.ClosedError,
        ),
        (
            riverrun.FatalError("fenced", reason=riverrun.Reason.PRODUCER_FENCED),
            riverrun.FatalError,
        ),
    ],
    ids=["no room until it closes", "refused"],
)
def test_who_is_told_hears_of_a_record_that_was_left_in_the_queue(refusal, told_of):
    told, thread = Told(), LoopThread()
    queue = SendQueue(thread, NoRoom(), buffer_bytes=1000)

    def take():
        raise refusal

    async def close():
        queue._move()
        queue.close()

    futures = [queue.put(take, 10, on_delivery=told) for _ in range(3)]
    thread.call(close)
    errors = [future.exception(20) for future in futures]
    thread.close()
    assert thread.join(20)
    assert [type(error) for error in errors] == [told_of] * 3
    assert told.outcomes == errors


def test_a_value_may_be_changed_once_a_call_has_taken_it(client, topic):
    order = {"n": 0}

    def orders():
        for number in range(300):
            order["n"] = number
            yield order

    with client.producer(key_serializer="str", value_serializer="json") as producer:
        for number in range(300):
            order["n"] = number
            producer.send_nowait(topic, order, key="anna", partition=0)
        producer.send_many(topic, orders(), partition=1)
        assert producer.send(topic, None, key="anna", partition=2).offset == 0
    with client.consumer(
        topic, stop_at_end=True, key_deserializer="str", value_deserializer="json"
    ) as consumer:
        records = list(consumer)
    for partition in (0, 1):
        values = [record.value for record in records if record.partition == partition]
        assert values == [{"n": number} for number in range(300)]
    assert [record.key for record in records if record.partition == 2] == ["anna"]
    assert [record.value for record in records if record.partition == 2] == [None]


def test_what_cannot_be_serialized_is_refused_alone(client, topic):
    with client.producer(value_serializer="json") as producer:
        for call in (producer.send, producer.send_nowait):
            with pytest.raises(riverrun.UsageError, match="JSON serializable"):
                call(topic, {1, 2})
        with pytest.raises(riverrun.UsageError, match=r"record 2 of send_many: .*set") as caught:
            producer.send_many(topic, ["a", "b", {3}, "c"], partition=0)
        assert caught.value.acknowledged_records == 2
    with client.consumer(topic, stop_at_end=True) as consumer:
        assert [record.value for record in consumer] == [b'"a"', b'"b"']


def test_serializers_run_in_the_thread_that_sends_and_a_partitioner_on_the_clients(client, topic):
    threads = {}

    def text(value):
        threads["serializer"] = threading.current_thread()
        return value.encode()

    def last(topic, key, value, partitions):
        threads["partitioner"] = threading.current_thread().name
        return partitions - 1

    with client.producer(value_serializer=text, partitioner=last) as producer:
        assert producer.send(topic, "x").partition == 2
        producer.send_many(topic, ["y"])
    assert threads["serializer"] is threading.current_thread()
    assert threads["partitioner"] == "riverrun client"


def test_a_record_that_is_not_what_it_should_be_stops_its_partition_until_a_seek(client, topic):
    values = [json.dumps(number).encode() for number in range(600)]
    values[400] = b"{"
    with client.producer() as producer:
        producer.send_many(topic, values, partition=0)
    threads = set()

    def load(data):
        threads.add(threading.current_thread().name)
        return json.loads(data)

    with client.consumer(topic, stop_at_end=True, value_deserializer=load) as consumer:
        taken = []
        with pytest.raises(riverrun.DeserializationError) as caught:
            taken.extend(record.value for record in consumer)
        assert consumer.position(TopicPartition(topic, 0)) == caught.value.offset == 400
        consumer.seek(caught.value.partition, 401)
        taken += [record.value for record in consumer]
    assert threads == {"riverrun client"}
    assert taken == [number for number in range(600) if number != 400]


def test_places_and_statistics_are_those_of_the_async_client(client, topic):
    with client.producer() as producer:
        producer.send_many(topic, [b"%d" % n for n in range(10)], partition=1)
    assert producer.statistics().records_acknowledged == 10
    place = TopicPartition(topic, 1)
    consumer = client.consumer(topic, stop_at_end=True)
    assert len(consumer.getmany(4)) == 4
    assert consumer.lag()[place] == 6
    assert consumer.positions()[place] == 4
    assert consumer.beginning_offsets()[place] == 0
    consumer.seek_to_end()
    assert consumer.getmany(timeout_s=0.1) == []
    consumer.seek_to_beginning(place)
    assert [int(record.value) for record in consumer] == list(range(10))
    consumer.seek_many({place: riverrun.Last(2)})
    assert [int(record.value) for record in consumer] == [8, 9]
    consumer.close()
    assert consumer.statistics().records == 16


def test_statistics_can_be_asked_after_the_client_was_closed(real_broker, topic):
    with riverrun.blocking.Client(real_broker.address) as client:
        producer, consumer = client.producer(), client.consumer(topic)
        producer.send(topic, b"")
        assert len(consumer.getmany()) == 1
    assert producer.statistics().records_acknowledged == 1
    assert consumer.statistics().records == 1
