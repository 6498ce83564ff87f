"""The producer's buffer, batching, flushing and closing."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from zlib import crc32

import pytest

import riverrun
from riverrun import NewRecord, Reason
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.faults import Fault, Plan

TOPIC = "t"
# A broker that never answers: every stream breaks at its first append.
STUCK = dict.fromkeys(range(10_000), Fault.DROP_BEFORE)


def broker_with(partitions: int = 1, plan: Plan | None = None) -> FakeBroker:
    broker = FakeBroker(plan)
    broker.add_topic(TOPIC, partitions)
    return broker


def fill_up(producer, futures: list) -> None:
    """Send without waiting until the producer refuses."""
    while True:
        futures.append(producer.send_nowait(TOPIC, bytes(100)))


def batch_sizes(broker: FakeBroker, partition: int = 0) -> list[int]:
    return [batch.record_count for batch in broker.partition(TOPIC, partition).batches]


async def test_equal_keys_go_to_the_partition_that_their_hash_says():
    broker = broker_with(5)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer() as producer,
    ):
        keys = [b"%d" % n for n in range(50)]
        places = await asyncio.gather(*(producer.send(TOPIC, b"", key=k) for k in keys))
        await producer.send_many(TOPIC, [(key, b"") for key in keys])
    assert [place.partition for place in places] == [crc32(key) % 5 for key in keys]
    for log in broker.topics[TOPIC].partitions:
        found = Counter(record.key for record in log.records())
        assert found == {key: 2 for key in keys if crc32(key) % 5 == log.partition}


async def test_a_named_partition_wins_over_the_key():
    broker = broker_with(3)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer() as producer,
    ):
        assert (await producer.send(TOPIC, b"", key=b"k", partition=2)).partition == 2
        await producer.send_many(TOPIC, [(b"k", b""), (b"l", b"")], partition=2)
    assert len(broker.partition(TOPIC, 2).values()) == 3


@pytest.mark.parametrize("partition", [3, 1000])
async def test_a_partition_that_is_not_there_is_told_with_how_many_there_are(partition):
    broker = broker_with(3)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer() as producer,
    ):
        for call in (
            producer.send(TOPIC, b"", partition=partition),
            producer.send_many(TOPIC, [b""], partition=partition),
        ):
            with pytest.raises(riverrun.TopicNotFoundError, match="it has 3, from 0"):
                await call


async def test_partitions_that_were_added_are_found_when_they_are_named():
    broker = broker_with(1)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer() as producer,
    ):
        await producer.send(TOPIC, b"")
        await client.admin().add_partitions(TOPIC, 4)
        assert (await producer.send(TOPIC, b"", partition=3)).partition == 3


async def test_records_given_at_once_share_batches():
    broker = broker_with()
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer() as producer,
    ):
        await producer.send(TOPIC, b"first")
        await asyncio.gather(*(producer.send(TOPIC, b"%d" % n) for n in range(500)))
    assert len(batch_sizes(broker)) < 6


async def test_a_batch_lingers_as_long_as_asked_for():
    broker = broker_with()
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(linger_s=0.1) as producer,
    ):
        loop = asyncio.get_running_loop()
        await producer.send(TOPIC, b"")
        began = loop.time()
        first = producer.send_nowait(TOPIC, b"")
        await asyncio.sleep(0.03)
        second = producer.send_nowait(TOPIC, b"")
        await asyncio.gather(first, second)
        assert loop.time() - began >= 0.09
    assert batch_sizes(broker) == [1, 2]


async def test_batches_do_not_grow_over_their_size():
    broker = broker_with()
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=1000, linger_s=0.01) as producer,
    ):
        await asyncio.gather(*(producer.send(TOPIC, bytes(100)) for _ in range(100)))
        await producer.send(TOPIC, bytes(5000))
    sizes = [len(batch.records) for batch in broker.partition(TOPIC).batches]
    assert max(sizes[:-1]) <= 1000
    assert sizes[-1] > 5000


async def test_a_full_buffer_refuses_and_waiting_for_room_helps():
    broker = broker_with()
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=1000, buffer_bytes=2000) as producer,
    ):
        futures = []
        with pytest.raises(riverrun.BufferFullError, match="drain") as caught:
            fill_up(producer, futures)
        assert caught.value.reason is Reason.BUFFER_FULL
        assert len(futures) == 15
        await producer.drain()
        futures.append(producer.send_nowait(TOPIC, b"last"))
        places = await asyncio.gather(*futures)
    assert [place.offset for place in places] == [*range(16)]


async def test_waiting_for_room_waits_for_what_a_record_larger_than_a_batch_needs():
    broker = broker_with()
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=100, buffer_bytes=2000) as producer,
    ):
        drains = 0
        for _ in range(3):
            while True:
                try:
                    producer.send_nowait(TOPIC, bytes(1200))
                    break
                except riverrun.BufferFullError:
                    drains += 1
                    assert drains < 10, "it returns and there is no room"
                    await producer.drain()
        await producer.flush()
    assert drains == 2
    assert len(broker.partition(TOPIC).values()) == 3


async def test_others_have_their_turn_while_a_producer_asks_for_room_that_it_has():
    broker = broker_with()
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer() as producer,
    ):
        acknowledged = producer.send_nowait(TOPIC, b"")
        drains = 0
        while not acknowledged.done() and drains < 1_000_000:
            drains += 1
            await producer.drain()
        assert acknowledged.done()


async def test_a_record_larger_than_the_buffer_still_goes_through_alone():
    broker = broker_with()
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=100, buffer_bytes=100) as producer,
    ):
        await asyncio.gather(*(producer.send(TOPIC, bytes(500)) for _ in range(5)))
    assert len(broker.partition(TOPIC).values()) == 5


async def test_senders_that_wait_for_room_go_in_the_order_in_which_they_came():
    broker = broker_with()
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=200, buffer_bytes=400) as producer,
    ):
        await asyncio.gather(*(producer.send(TOPIC, b"%03d" % n) for n in range(200)))
    assert broker.partition(TOPIC).values() == [b"%03d" % n for n in range(200)]


async def test_a_small_record_does_not_overtake_a_large_one_that_waits_for_room():
    broker = broker_with()
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=100, buffer_bytes=1000) as producer,
    ):
        sizes = [900, 900, 1, 900, 1]
        await asyncio.gather(*(producer.send(TOPIC, bytes(size)) for size in sizes))
    assert [len(value) for value in broker.partition(TOPIC).values()] == sizes


async def test_senders_that_wait_and_those_that_do_not_all_come_to_their_turn():
    broker = broker_with()
    refusing = 2
    waiting = 4
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=100, buffer_bytes=1000) as producer,
    ):

        async def waits() -> None:
            nonlocal waiting
            sent = 0
            while sent < 10 or refusing:
                await producer.send(TOPIC, bytes(900))
                sent += 1
            waiting -= 1

        async def drains(bounded) -> None:
            nonlocal refusing
            for _ in range(10):
                while True:
                    try:
                        producer.send_nowait(TOPIC, bytes(200))
                        break
                    except riverrun.BufferFullError:
                        await bounded(producer.drain())
            refusing -= 1

        async def never_waits() -> None:
            while waiting:
                with suppress(riverrun.BufferFullError):
                    producer.send_nowait(TOPIC, b"small")
                await asyncio.sleep(0)

        everybody = [waits() for _ in range(waiting)]
        everybody += [drains(lambda drain: drain), drains(lambda drain: asyncio.wait_for(drain, 9))]
        async with asyncio.timeout(20):
            await asyncio.gather(*everybody, never_waits())
    assert Counter(map(len, broker.partition(TOPIC).values()))[200] == 20


async def test_a_record_that_does_not_wait_is_refused_while_others_wait_for_room():
    broker = broker_with()
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=100, buffer_bytes=1000, linger_s=60) as producer,
    ):
        first = producer.send_nowait(TOPIC, bytes(400))
        large = asyncio.create_task(producer.send(TOPIC, bytes(800)))
        await asyncio.sleep(0)
        with pytest.raises(riverrun.BufferFullError, match="others wait for room before"):
            producer.send_nowait(TOPIC, b"small")
        await producer.flush()
        await first
        await producer.drain()
        producer.send_nowait(TOPIC, b"small")
        await producer.flush()
        await large
    assert [len(value) for value in broker.partition(TOPIC).values()] == [400, 800, 5]


async def test_a_sender_that_gives_up_waiting_for_room_holds_nobody_up():
    broker = broker_with()
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=100, buffer_bytes=100) as producer,
    ):
        sends = [asyncio.ensure_future(producer.send(TOPIC, b"%d" % n)) for n in range(20)]
        await asyncio.sleep(0)
        sends[5].cancel()
        done = await asyncio.gather(*sends, return_exceptions=True)
    assert isinstance(done[5], asyncio.CancelledError)
    assert broker.partition(TOPIC).values() == [b"%d" % n for n in range(20) if n != 5]


async def test_flushing_waits_for_what_was_given_before():
    broker = broker_with(3)
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer(linger_s=30)
        futures = [producer.send_nowait(TOPIC, b"", partition=n % 3) for n in range(30)]
        await producer.flush()
        assert all(future.done() for future in futures)
        later = producer.send_nowait(TOPIC, b"")
        assert not later.done()
        await producer.close()
        assert later.result().offset is not None


async def test_flushing_an_unused_producer_returns_at_once():
    async with impatient("127.0.0.1:1") as client:
        await client.producer().flush()


async def test_closing_gives_up_what_is_not_acknowledged_in_time():
    broker = broker_with(plan=Plan(STUCK))
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer()
        future = producer.send_nowait(TOPIC, b"")
        await producer.close(timeout_s=0.1)
        with pytest.raises(riverrun.ClosedError) as caught:
            await future
        assert not caught.value.outcome_known


async def send_and_fail(producer, futures: list) -> None:
    async with producer:
        futures.append(producer.send_nowait(TOPIC, b"v"))
        raise ZeroDivisionError


async def test_an_exception_in_the_block_still_sends_what_was_given():
    broker = broker_with()
    async with broker.serving() as address, impatient(address) as client:
        futures = []
        with pytest.raises(ZeroDivisionError):
            await send_and_fail(client.producer(linger_s=30), futures)
        assert (await futures[0]).offset == 0


async def test_send_many_takes_everything_that_send_takes():
    broker = broker_with()
    records = [
        b"value", None, (b"k", b"v"), (None, b"v"), (b"k", None),
        NewRecord(b"v", b"k", [("h", b"1")], 5),
        riverrun.Record("other", 3, 9, 7, b"k", None, (("h", b"2"),)),
    ]  # fmt: skip
    async with broker.serving() as address, impatient(address) as client:
        async with client.producer() as producer:
            summary = await producer.send_many(TOPIC, records)
            assert summary.records == 7
            assert summary.offsets == {0: (0, 7)}
            assert (await producer.send_many(TOPIC, [])).records == 0
        async with client.consumer(TOPIC, stop_at_end=True) as consumer:
            found = [record async for record in consumer]
    assert [(r.key, r.value) for r in found] == [
        (None, b"value"), (None, None), (b"k", b"v"), (None, b"v"), (b"k", None),
        (b"k", b"v"), (b"k", None),
    ]  # fmt: skip
    assert found[5].timestamp_ms == 5
    assert found[6].headers == (("h", b"2"),)


async def test_others_run_while_send_many_gathers_for_many_partitions():
    """No batch is full before the end, so nothing is submitted in between."""
    broker = broker_with(16)
    turns = []

    async def count():
        while True:
            turns.append(None)
            await asyncio.sleep(0)

    def pairs():
        for number in range(40_000):
            if number == 39_999:
                turns_while_gathering.append(len(turns))
            yield b"%d" % number, b"value"

    turns_while_gathering: list[int] = []
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=3 << 20) as producer,
    ):
        await producer.send_many(TOPIC, [b"warm"])
        counting = asyncio.create_task(count())
        await asyncio.sleep(0)
        turns.clear()
        await producer.send_many(TOPIC, pairs())
        counting.cancel()
    # Runs of 8192 at the most, and a turn behind each.
    assert turns_while_gathering[0] >= 4


async def test_send_many_of_a_slow_async_iterable_does_not_wait_for_a_full_batch():
    broker = broker_with()
    more = asyncio.Event()

    async def slow():
        for number in range(10):
            yield b"%d" % number
        await more.wait()
        yield b"last"

    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer() as producer,
    ):
        sending = asyncio.create_task(producer.send_many(TOPIC, slow()))
        await broker.until(lambda: len(broker.partition(TOPIC).values()) == 10)
        more.set()
        assert (await sending).records == 11


async def test_send_many_of_a_fast_async_iterable_fills_its_batches():
    async def fast():
        for number in range(5000):
            yield b"%06d" % number

    broker = broker_with()
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=2000) as producer,
    ):
        await producer.send_many(TOPIC, fast())
    assert broker.partition(TOPIC).values() == [b"%06d" % n for n in range(5000)]
    assert len(batch_sizes(broker)) < 70


async def test_an_error_of_the_iterable_is_the_callers():
    def broken():
        yield b"a"
        raise ZeroDivisionError

    async def async_broken():
        yield b"a"
        raise ZeroDivisionError

    broker = broker_with()
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer() as producer,
    ):
        for records in (broken(), async_broken()):
            with pytest.raises(ZeroDivisionError):
                await producer.send_many(TOPIC, records)
        await producer.send(TOPIC, b"b")


async def test_what_send_many_reads_ahead_is_bounded_by_the_buffer():
    taken, begun = 0, asyncio.Event()

    def endless():
        nonlocal taken
        while True:
            taken += 1
            begun.set()
            yield bytes(100)

    broker = broker_with(plan=Plan(STUCK))
    async with broker.serving() as address, riverrun.Client(address) as client:
        producer = client.producer(batch_bytes=1000, buffer_bytes=10_000)
        sending = asyncio.create_task(producer.send_many(TOPIC, endless()))
        async with asyncio.timeout(10):
            await begun.wait()
        await asyncio.sleep(0.2)
        assert taken < 300
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await producer.close(timeout_s=0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"value": "text"}, "the value is of type str"),
        ({"value": b"", "key": 5}, "the key is of type int"),
        ({"value": b"", "headers": [(b"h", b"")]}, "header"),
        ({"value": b"", "headers": [("h", "v")]}, "header"),
        ({"value": b"", "timestamp_ms": 1.5}, "timestamp"),
        ({"value": b"", "timestamp_ms": 1 << 63}, "timestamp"),
        ({"value": b"", "partition": -1}, "partition"),
    ],
)
async def test_parts_of_the_wrong_type_are_refused_before_anything_is_taken(arguments, said):
    async with impatient("127.0.0.1:1") as client:
        producer = client.producer()
        with pytest.raises(riverrun.UsageError, match=said):
            producer.send_nowait(TOPIC, **arguments)
        with pytest.raises(riverrun.UsageError, match="name is empty"):
            await producer.send("", b"")


async def test_no_more_batches_are_under_way_than_the_broker_allows():
    broker = broker_with()
    broker.max_unacknowledged, broker.max_in_flight_bytes = 2, 500
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(batch_bytes=100) as producer,
    ):
        await producer.send_many(TOPIC, [bytes(60)] * 100)
    assert len(broker.partition(TOPIC).values()) == 100
