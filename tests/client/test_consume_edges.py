"""What a consumer has returned, what it may commit, and where it goes on when something fails."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from zlib import crc32

import pytest

import riverrun
from riverrun import Offset, Reason, TopicPartition
from tests.client.fake_broker import FakeBroker, impatient
from tests.client.fake_log import FakeRefusal
from tests.client.faults import Fault, Plan
from tests.client.filling import fill

TOPIC = "t"
PLACE, OTHER = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


def broker_with(*counts: int, plan: Plan | None = None) -> FakeBroker:
    broker = FakeBroker(plan)
    for log, count in zip(broker.add_topic(TOPIC, len(counts)).partitions, counts, strict=True):
        fill(log, count)
    return broker


async def until(consumer, condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await consumer._loop.change()


async def test_records_taken_before_another_partition_fails_are_returned_first():
    plan = Plan(deliveries={1: FakeRefusal("CORRUPT_DATA", "the disk is broken")})
    async with broker_with(5, 5, plan=plan).serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC)
        await consumer.assignment()
        await until(consumer, lambda: any(r.error for r in consumer._machine.readers.values()))
        records = await consumer.getmany(100)
        assert [record.offset for record in records] == [*range(5)]
        with pytest.raises(riverrun.CorruptDataError):
            await consumer.getmany(100)


@pytest.mark.parametrize("spoiled", ["the batch's checksum", "what it holds"])
async def test_records_taken_before_a_damaged_batch_are_returned_first(spoiled):
    broker = broker_with(15)
    batch = broker.partition(TOPIC).batches[1]
    batch.records = b"\xff" * 9
    if spoiled == "what it holds":
        batch.records_crc = crc32(batch.records)
        broker.partition(TOPIC).sign(batch)
    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC)
        await consumer.assignment()
        await until(consumer, lambda: consumer._machine.ahead.queued_bytes)
        records = await consumer.getmany(100)
        assert [record.offset for record in records] == [*range(5)]
        assert await consumer.position(PLACE) == 5
        with pytest.raises(riverrun.CorruptDataError):
            await consumer.getmany(100)
        assert await consumer.position(PLACE) == 5


async def test_a_commit_does_not_land_on_a_topic_that_was_made_anew():
    broker = broker_with(10)
    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC, group="g")
        await consumer.getmany(10)
        fill(broker.add_topic(TOPIC).partitions[0], 20)
        for offsets in (None, {PLACE: 10}):
            with pytest.raises(riverrun.TopicNotFoundError) as caught:
                await consumer.commit(offsets)
            assert caught.value.reason is Reason.TOPIC_ID_MISMATCH
        assert broker.commits == {}
        with pytest.raises(riverrun.TopicNotFoundError):
            await consumer.committed([PLACE])


async def test_what_is_closed_is_let_go_with_all_that_it_had_read_ahead():
    broker = broker_with(200)
    async with broker.serving() as address, impatient(address) as client:
        consumer, producer = client.consumer(TOPIC), client.producer()
        await consumer.getmany(1)
        await producer.send(TOPIC, b"x")
        await consumer.close()
        await producer.close()
        assert consumer._machine.ahead.queued_bytes == 0
        kept = [weakref.ref(consumer), weakref.ref(producer)]
        del consumer, producer
        # The loop lets go of what was awaited last.
        await asyncio.sleep(0)
        gc.collect()
        assert [ref() for ref in kept] == [None, None]


async def test_an_error_that_stays_is_raised_as_another_exception_each_time():
    async with FakeBroker().serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC)
        raised = []
        for _ in range(2):
            with pytest.raises(riverrun.TopicNotFoundError) as caught:
                await consumer.getmany()
            raised.append(caught.value)
        assert raised[0] is not raised[1]


async def test_a_seek_after_the_end_was_delivered_reads_again():
    async with broker_with(10).serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC, stop_at_end=True)
        assert len([record async for record in consumer]) == 10
        await asyncio.wait({consumer._loop._task}, timeout=5)
        for first in (4, 0):
            await asyncio.wait_for(consumer.seek(PLACE, first), 5)
            assert [r.offset async for r in consumer] == [*range(first, 10)]


async def test_what_a_pause_dropped_after_the_end_was_delivered_is_read_again():
    async with broker_with(10).serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC, stop_at_end=True)
        assert (await anext(consumer)).offset == 0
        await asyncio.wait({consumer._loop._task}, timeout=5)
        consumer.pause([PLACE])
        consumer.resume([PLACE])
        async with asyncio.timeout(5):
            assert [record.offset async for record in consumer] == [*range(1, 10)]


async def test_a_seek_of_a_consumer_that_has_ended_says_why():
    broker = broker_with(50)
    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC, prefetch_bytes=1)
        await anext(consumer)
        consumer._machine.readers[PLACE].expected -= 1
        with pytest.raises(riverrun.CorruptDataError):
            async for _ in consumer:
                pass
        with pytest.raises(riverrun.CorruptDataError):
            await asyncio.wait_for(consumer.seek(PLACE, 0), 5)


async def test_closing_ends_a_seek_that_waits():
    broker = broker_with(10)
    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC)
        await consumer.getmany()
        consumer._loop._outlets[-1].stream._say = lambda _: None
        seeking = asyncio.create_task(consumer.seek(PLACE, 0))
        await asyncio.sleep(0)
        await consumer.close()
        with pytest.raises(riverrun.ClosedError):
            await asyncio.wait_for(seeking, 5)


async def test_a_reset_is_logged_and_told_with_both_positions(caplog):
    broker = broker_with(20)
    broker.partition(TOPIC).log_start = 10
    resets = []

    def note(reset):
        resets.append(reset)
        raise ValueError("the hook's own trouble")

    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC, from_=Offset(3), offset_reset="earliest", on_reset=note)
        assert (await anext(consumer)).offset == 10
    assert [reset[:3] for reset in resets] == [(PLACE, 3, 10)]
    assert resets[0].cause.available == (10, 20)
    assert any("position 3 is out of range" in record.getMessage() for record in caplog.records)


async def test_named_partitions_begin_at_what_is_committed_with_its_leader_epoch():
    broker = broker_with(20, 20)
    broker.commits["g", TOPIC, 1] = (15, "")
    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC, group="g", partitions=[0, 1])
        await consumer.assignment()
        assert await consumer.position(OTHER) == 15
    # The broker knows the epoch that was committed; an offset by itself would lose it.
    asked = {p.partition: p.WhichOneof("at") for p in broker.subscribe_starts[0].positions}
    assert asked == {0: "from", 1: "from"}


@pytest.mark.parametrize(("committed", "begins"), [(7, 7), (None, 20)])
async def test_a_groups_partition_that_could_not_begin_goes_on_where_it_was_committed(
    committed, begins
):
    broker = broker_with(20)
    if committed is not None:
        broker.commits["g", TOPIC, 0] = (committed, "")
    broker.fail_to_begin = [FakeRefusal("PARTITION_OFFLINE", retry_safe=True)]
    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC, group="g", from_="latest")
        await consumer.assignment()
        async with asyncio.timeout(5):
            while consumer._machine.readers[PLACE].place is not None:
                await consumer._loop.change()
        assert await consumer.position(PLACE) == begins


async def test_a_topic_that_is_gone_is_told_once_and_not_asked_for_again():
    broker = broker_with(5)
    broker.add_topic("gone")
    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC, "gone")
        assert len(await consumer.getmany(5)) == 5
        reader = consumer._machine.readers[TopicPartition("gone", 0)]
        missing = riverrun.TopicNotFoundError("gone", reason=Reason.TOPIC_NOT_FOUND)
        consumer._machine.failed(reader.partition, reader.topic_id, missing)
        with pytest.raises(riverrun.TopicNotFoundError):
            await consumer.getmany()
        del broker.topics["gone"]
        broker.add_topic("gone")
        fill(broker.partition("gone"), 3)
        broker.plan.deliveries[broker.plan.delivery_number] = Fault.DROP_BEFORE
        fill(broker.partition(TOPIC), 5)
        await broker.notify()
        assert [r.offset for r in await consumer.getmany(100)] == [*range(5, 10)]
        start = broker.subscribe_starts[-1]
        assert [*start.topics] == [TOPIC]
        assert [position.topic for position in start.positions] == [TOPIC]


async def test_a_loop_that_was_held_up_does_not_take_its_stream_for_silent():
    broker = broker_with(5)
    broker.heartbeat_s = 0.05
    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC)
        await consumer.getmany()
        time.sleep(1.1)  # noqa: ASYNC251 (as a handler does that computes for long)
        assert await consumer.getmany(timeout_s=0.3) == []
    assert broker.subscribe_streams == 1


@pytest.mark.parametrize("way", ["one", "some"])
async def test_the_position_behind_the_last_record_of_a_batch_lies_behind_the_gap_there(way):
    broker = broker_with(0)
    fill(broker.partition(TOPIC), 3, batch=3, gap=4)
    fill(broker.partition(TOPIC), 3)
    async with broker.serving() as address, impatient(address) as client:
        consumer = client.consumer(TOPIC)
        for position in (1, 2, 7, 8):
            if way == "one":
                await anext(consumer)
            else:
                assert len(await consumer.getmany(1)) == 1
            assert await consumer.position(PLACE) == position


@pytest.mark.parametrize(
    ("from_", "level"), [("earliest", "INFO"), (riverrun.Offset(1), "WARNING"), (None, None)]
)
@pytest.mark.parametrize("partitions", [None, [0]])
async def test_a_place_that_the_groups_offsets_come_before_is_told(
    caplog, from_, level, partitions
):
    caplog.set_level("INFO", "riverrun")
    broker, place = FakeBroker(), riverrun.TopicPartition("other", 0)
    for topic in ("other", "unread"):
        fill(broker.add_topic(topic).partitions[0], 5)
    async with broker.serving() as address, impatient(address) as client:
        await client.admin().commit_group_offsets("g", {place: 3})
        settings = {"group": "g", "from_": from_, "partitions": partitions}
        async with client.consumer("other", **settings) as consumer:
            assert (await anext(consumer)).offset == 3
        async with client.consumer("unread", **settings) as consumer:
            assert (await anext(consumer)).offset == (1 if level == "WARNING" else 0)
    told = [record for record in caplog.records if "counts only elsewhere" in record.getMessage()]
    assert [record.levelname for record in told] == ([level] if level else [])
    assert all("other[0]" in record.getMessage() for record in told)
