"""A blocking producer's buffer that is full: who waits for room, how long, and who is refused."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

import riverrun.blocking
from riverrun import Reason
from riverrun.blocking.loop_thread import LoopThread
from riverrun.blocking.send_queue import SendQueue


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


def test_calls_that_wait_for_room_all_end_with_the_delivery_timeout():
    failures = []

    def send():
        try:
            producer.send("t", bytes(900))
        except riverrun.RiverrunError as error:
            failures.append(error)

    # It takes connections and never answers.
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        riverrun.blocking.Client(f"127.0.0.1:{silent.getsockname()[1]}") as client,
        client.producer(buffer_bytes=1000, batch_bytes=1000, delivery_timeout_s=1.0) as producer,
    ):
        began_s = time.monotonic()
        at_once(30, send)
        took_s = time.monotonic() - began_s
    assert [error.reason for error in failures] == [Reason.TIMED_OUT] * 30
    assert all(error.outcome_known for error in failures)
    assert sum("found no room" in error.message for error in failures) >= 27
    assert took_s < 15, "they did not wait for each other"


class Full:
    """A buffer that takes the records of some sizes and has no room for others."""

    delivery_timeout_s = 0.05

    async def room(self, size_bytes):
        await asyncio.Event().wait()

    def no_room(self, size_bytes):
        return riverrun.TimedOutError(f"none for {size_bytes}", reason=Reason.TIMED_OUT)


def test_a_call_that_gives_up_lets_those_behind_it_go_on_and_no_other_record_is_lost():
    thread = LoopThread()
    queue = SendQueue(thread, Full(), buffer_bytes=1000)
    taken = []

    def refuse():
        raise riverrun.BufferFullError("full", reason=Reason.BUFFER_FULL)

    def take():
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        taken.append(future)
        return future

    large = queue.put(refuse, 900, awaited=True)
    small = queue.put(take, 10)
    assert large.exception(20).message == "none for 900"
    assert small.result(20) is None
    # Behind a record that nobody awaits, and that stays, a call gives up too.
    stays = queue.put(refuse, 20)
    call = queue.put(take, 10, awaited=True)
    assert call.exception(20).message == "none for 10"
    assert not stays.done()

    async def end():
        queue.close()

    thread.call(end)
    assert isinstance(stays.exception(20), riverrun.ClosedError)
    thread.close()
    assert thread.join(20)
    assert len(taken) == 1
