"""The client without async, against a real broker: what it does, from many threads."""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import riverrun
import riverrun.blocking
from riverrun import TopicPartition


@pytest.fixture
def topic(client, own_topic):
    client.admin().create_topic(own_topic, partitions=3)
    return own_topic


def values(client, topic):
    with client.consumer(topic, stop_at_end=True) as consumer:
        return [record.value for record in consumer]


def test_what_is_sent_is_read_in_every_way(client, topic):
    place = TopicPartition(topic, 0)
    with client.producer() as producer:
        first = producer.send(topic, b"0", key=b"k", partition=0, headers=[("h", b"1")])
        assert first == riverrun.RecordMetadata(topic, 0, 0, first.timestamp_ms)
        future = producer.send_nowait(topic, b"1", partition=0)
        producer.drain()
        producer.flush()
        assert future.result(0).offset == 1
        summary = producer.send_many(topic, (b"%d" % n for n in range(2, 9)), partition=0)
        assert (summary.records, summary.offsets[0]) == (7, (2, 9))
    with client.consumer(topic, stop_at_end=True) as consumer:
        records = [next(consumer), *consumer.getmany(3), *consumer]
        assert [record.value for record in records] == [b"%d" % n for n in range(9)]
        assert records[0][3:] == (first.timestamp_ms, b"k", b"0", (("h", b"1"),))
        assert consumer.getmany(1) == []
        consumer.seek(place, 4)
        assert [batch.values()[0] for batch in consumer.batches()] == [b"4"]
        assert len(consumer.assignment()) == 3
        assert consumer.end_offsets()[place] == 9
        assert consumer.offsets_for_times({place: 0})[place].offset == 0


def test_a_value_that_cannot_be_sent_is_refused_by_the_call_itself(client, topic):
    with client.producer() as producer:
        for call in (producer.send, producer.send_nowait):
            with pytest.raises(riverrun.UsageError, match="must be bytes or None"):
                call(topic, "text")
            with pytest.raises(riverrun.UsageError, match="partition is -1"):
                call(topic, b"", partition=-1)
            with pytest.raises(riverrun.UsageError, match="name is empty"):
                call("", b"")
        with pytest.raises(riverrun.UsageError, match="int") as caught:
            producer.send_many(topic, [b"1", 2])
        assert caught.value.acknowledged_records == 1
    with pytest.raises(riverrun.TopicNotFoundError), client.producer() as producer:
        producer.send("nobody-made-this", b"")


def test_what_was_returned_and_no_more_counts_for_position_and_commit(client, topic):
    place = TopicPartition(topic, 1)
    with client.producer() as producer:
        producer.send_many(topic, [b"%d" % n for n in range(10)], partition=1)
    with client.consumer(topic, group=topic) as consumer:
        for count in range(1, 4):
            next(consumer)
            assert consumer.position(place) == count
        consumer.commit()
        next(consumer)
        assert consumer.committed()[place].offset == 3
        consumer.pause()
        assert consumer.paused() == set(consumer.assignment())
        consumer.resume()
        assert [record.value for record in consumer.getmany(2)] == [b"4", b"5"]
    with client.consumer(topic, group=topic) as consumer:
        assert next(consumer).value == b"3"


def test_threads_share_a_producer_and_each_keeps_its_order(client, topic):
    with client.producer(buffer_bytes=300_000, batch_bytes=20_000) as producer:

        def produce(thread):
            for number in range(0, 300, 3):
                value = b"%d %d"
                producer.send(topic, value % (thread, number), partition=0)
                while True:
                    try:
                        future = producer.send_nowait(
                            topic, value % (thread, number + 1), partition=0
                        )
                    except riverrun.BufferFullError:
                        producer.drain()
                    else:
                        break
                producer.send_many(topic, [value % (thread, number + 2)], partition=0)
                assert future.done()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(produce, range(8)))
    found = {}
    for value in values(client, topic):
        thread, number = value.split()
        found.setdefault(thread, []).append(int(number))
    assert len(found) == 8
    assert all(numbers == [*range(300)] for numbers in found.values())


def test_threads_share_a_consumer_and_each_record_goes_to_one(client, topic):
    count = 6000
    with client.producer() as producer:
        producer.send_many(topic, [(b"%d" % n, b"%d" % n) for n in range(count)])
    with client.consumer(topic, stop_at_end=True, prefetch_bytes=20_000) as consumer:
        moves = threading.Event()

        def take(way):
            if way == "iterate":
                return [record.value for record in consumer]
            if way == "getmany":
                return [r.value for chunk in iter(lambda: consumer.getmany(50), []) for r in chunk]
            return [value for batch in consumer.batches() for value in batch.values()]

        def disturb():
            while not moves.wait(0.001):
                consumer.pause()
                consumer.resume()

        with ThreadPoolExecutor(7) as pool:
            disturbing = pool.submit(disturb)
            ways = ["iterate", "iterate", "iterate", "getmany", "getmany", "batches"]
            taken = [value for values in pool.map(take, ways) for value in values]
            moves.set()
            disturbing.result()
    assert sorted(taken, key=int) == [b"%d" % n for n in range(count)]


def test_a_source_that_blocks_is_read_in_its_own_thread_and_goes_out_when_it_pauses(client, topic):
    source = queue.SimpleQueue()
    with (
        client.producer(linger_s=0.01) as producer,
        client.consumer(topic) as consumer,
        ThreadPoolExecutor(1) as pool,
    ):
        sending = pool.submit(producer.send_many, topic, iter(source.get, None))
        try:
            for number in range(3):
                source.put(b"%d" % number)
                [record] = consumer.getmany(1, timeout_s=20)
                assert record.value == b"%d" % number
        finally:
            source.put(None)
        assert sending.result().records == 3


def test_records_are_copied_from_topic_to_topic(client, topic):
    copy = f"{topic}-copy"
    client.admin().create_topic(copy, partitions=1)
    with client.producer() as producer, client.consumer(topic, stop_at_end=True) as consumer:
        producer.send_many(topic, [b"%d" % n for n in range(2000)], partition=2)
        assert producer.send_many(copy, (record.value for record in consumer)).records == 2000
    assert values(client, copy) == [b"%d" % n for n in range(2000)]


def test_a_source_that_fails_fails_the_call_and_the_producer_goes_on(client, topic):
    def source():
        yield b"0"
        raise LookupError("the source")

    with client.producer() as producer:
        with pytest.raises(LookupError, match="the source"):
            producer.send_many(topic, source(), partition=0)
        with pytest.raises(riverrun.TopicNotFoundError):
            producer.send_many("nobody-made-this", iter(lambda: b"0", b"1"))
        producer.send(topic, b"1", partition=0)
    assert values(client, topic)[-1] == b"1"


def test_a_buffer_that_is_full_says_so_and_has_room_after_a_drain(client, topic):
    with client.producer(buffer_bytes=5000, batch_bytes=1000, linger_s=60) as producer:
        futures = []

        def fill():
            while len(futures) < 100:
                futures.append(producer.send_nowait(topic, b"v" * 300))

        with pytest.raises(riverrun.BufferFullError):
            fill()
        assert 3 < len(futures) < 17
        producer.flush()
        producer.drain()
        futures.append(producer.send_nowait(topic, b"again"))
        producer.flush()
        assert all(future.done() for future in futures)
        assert not futures[0].cancel()


def test_a_failure_that_nobody_asks_for_is_logged(client, caplog):
    with client.producer() as producer:
        producer.send_nowait("nobody-made-this", b"")
        asked = producer.send_nowait("nobody-made-this", b"")
        producer.flush()
        assert isinstance(asked.exception(), riverrun.TopicNotFoundError)
        del asked
    [logged] = caplog.messages
    assert logged.startswith("a record was not written, and nobody asked: topic nobody-made-this")


def test_admin_calls_are_all_there(client, topic):
    admin = client.admin()
    assert (
        admin.alter_topic(topic, set={"retention.ms": "60000"}).configs["retention.ms"] == "60000"
    )
    assert admin.add_partitions(topic, 4).partitions == 4
    assert len(admin.describe_topic(topic).partitions) == 4
    assert topic in {each.name for each in admin.list_topics()}
    with pytest.raises(riverrun.TopicExistsError):
        admin.create_topic(topic)
    with client.producer() as producer:
        producer.send_many(topic, [b"1", b"2"], partition=0)
    place = TopicPartition(topic, 0)
    admin.commit_group_offsets(f"g-{topic}", {place: 2})
    assert admin.group_offsets(f"g-{topic}")[place].offset == 2
    assert [found.offset for found in admin.list_offsets(topic, "latest", partition=0)] == [2]
    assert [one.log_start_offset for one in admin.trim_topic(topic, {0: 1})] == [1]
    assert [leaders.name for leaders in admin.cluster([topic]).topics] == [topic]
    admin.delete_topic(topic)
    assert topic not in {each.name for each in admin.list_topics()}


async def test_it_works_where_another_loop_runs_which_waits_meanwhile(client, topic):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    before = ticks
    with client.producer() as producer:
        producer.send(topic, b"v")
    assert values(client, topic) == [b"v"]
    assert ticks == before
    ticking.cancel()


def test_a_call_on_the_clients_own_thread_is_refused_and_nothing_hangs(client, topic):
    said = queue.SimpleQueue()

    def callback(_):
        try:
            client.server_info()
        except riverrun.UsageError as error:
            said.put(str(error))

    with client.producer() as producer:
        producer.send_nowait(topic, b"v").add_done_callback(callback)
        assert "client's own thread" in said.get(timeout=10)


def test_a_closed_client_refuses_everything_and_closing_again_is_fine(real_broker, topic):
    client = riverrun.blocking.Client(real_broker.address)
    producer, consumer, admin = client.producer(), client.consumer(topic), client.admin()
    late = producer.send_nowait(topic, b"v")
    client.close()
    client.close()
    assert late.result(0).offset == 0
    producer.close()
    consumer.close()
    for call in (
        lambda: producer.send(topic, b""),
        lambda: producer.send_nowait(topic, b""),
        lambda: producer.send_many(topic, [b""]),
        lambda: next(consumer),
        admin.cluster,
        client.server_info,
        client.producer,
        lambda: client.consumer(topic),
    ):
        with pytest.raises(riverrun.ClosedError):
            call()


def test_closing_ends_the_calls_of_other_threads(real_broker, topic):
    client = riverrun.blocking.Client(real_broker.address)
    consumer = client.consumer(topic)
    consumer.assignment()
    with ThreadPoolExecutor(2) as pool:
        began = threading.Barrier(3)

        def wait(call):
            began.wait()
            return call()

        waiting = [pool.submit(wait, lambda: next(consumer)), pool.submit(wait, consumer.getmany)]
        began.wait()
        client.close()
        for one in waiting:
            assert isinstance(one.exception(20), riverrun.ClosedError)


def test_a_timeout_counts_also_while_another_thread_waits_for_records(client, topic):
    with client.consumer(topic) as consumer, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, consumer)
        consumer.assignment()
        assert consumer.getmany(1, timeout_s=0.05) == []
        with client.producer() as producer:
            producer.send(topic, b"v")
        assert waiting.result(20).value == b"v"


def test_clients_of_one_process_do_not_disturb_each_other(client, real_broker, topic):
    with (
        riverrun.blocking.Client(real_broker.address) as other,
        client.producer() as ours,
        other.producer() as theirs,
    ):
        for number in range(50):
            ours.send(topic, b"%d" % number, partition=0)
            theirs.send(topic, b"%d" % number, partition=1)
    assert len(values(client, topic)) == 100
    assert client.server_info().broker_id >= 0


def test_what_members_of_groups_may_ask_for_stands_in_the_limits(client):
    limits = client.server_info().limits
    shortest, longest = limits.min_session_timeout_s, limits.max_session_timeout_s
    assert 0 < shortest <= limits.default_session_timeout_s <= longest
    assert limits.default_revocation_timeout_s >= limits.default_session_timeout_s


def test_nobody_there_is_told_as_the_async_client_tells_it():
    client = riverrun.blocking.Client("127.0.0.1:1", connect_timeout_s=0.2)
    with client, pytest.raises(riverrun.NoBrokerError, match="riverrun-server run"):
        client.server_info()
    with pytest.raises(riverrun.UsageError, match="host:port"):
        riverrun.blocking.Client("here:")
