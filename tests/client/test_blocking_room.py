"""A blocking producer's buffer that is full: who waits for room, how long, and who is refused."""

from __future__ import annotations

import threading

import pytest

import riverrun.blocking
from riverrun.blocking.send_queue import SendQueue


@pytest.fixture(scope="module")
def client(real_broker):
    with riverrun.blocking.Client(real_broker.address) as client:
        yield client


@pytest.fixture
def topic(client, own_topic):
    client.admin().create_topic(own_topic, partitions=1)
    return own_topic


@pytest.fixture
def waits(monkeypatch):
    """How many bytes were waited for, each time that a producer had no room."""
    waited, wait = [], SendQueue._wait

    async def noted(self, entry):
        waited.append(entry.size_bytes)
        await wait(self, entry)

    monkeypatch.setattr(SendQueue, "_wait", noted)
    return waited


def at_once(count, call):
    """Make a call in so many threads, and wait for all."""
    threads = [threading.Thread(target=call, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def test_records_larger_than_a_batch_wait_for_the_room_that_they_need(client, topic, waits):
    with client.producer(buffer_bytes=1 << 20, batch_bytes=1 << 10) as producer:
        producer.send(topic, b"")
        at_once(6, lambda: producer.send(topic, bytes(600_000)))
    assert len(waits) <= 6, "once for each at the most"


def test_a_callback_is_not_refused_while_there_is_room_although_much_was_given_before(
    topic, client
):
    outcome = []

    with client.producer(linger_s=60) as producer:

        def told(error, metadata):
            # Meanwhile another thread gives more records than the queue moves at a time.
            given = threading.Thread(target=give)
            given.start()
            given.join(20)
            try:
                outcome.append(producer.send_nowait(topic, b"from the callback"))
            except riverrun.RiverrunError as error:
                outcome.append(error)

        def give():
            for _ in range(3000):
                producer.send_nowait(topic, b"x")

        producer.send_nowait(topic, b"first", on_delivery=told)
        producer.flush()
        producer.flush()
        assert outcome[0].result(20).offset == 3001
