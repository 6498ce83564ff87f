"""A producer whose callers, batches or broker do something unusual: nothing hangs, nobody else fails."""

from __future__ import annotations

import asyncio
import threading

import grpc.aio
import pytest

import riverrun
from riverrun._core import codecs
from riverrun._core.outgoing import OutgoingBatch
from riverrun._core.records import TopicPartition
from riverrun._net.failures import from_stream
from riverrun._net.receipts import Flush, RecordFutures
from riverrun._net.splitting import halve
from riverrun.v1 import producer_pb2 as pb
from riverrun.v1.records_pb2 import Record, RecordSet
from tests.client.fake_broker import FakeBroker, impatient

TOPIC = "t"
PLACE = TopicPartition(TOPIC, 0)


def batch_of(count: int) -> OutgoingBatch:
    receipt = RecordFutures(PLACE)
    loop = asyncio.get_running_loop()
    for _ in range(count):
        receipt.add(loop.create_future(), 5)
    records = RecordSet(records=[Record(value=b"x", timestamp_ms=5)] * count).SerializeToString()
    return OutgoingBatch(PLACE, records, count, 5, 5, 1e9, len(records), receipt)


async def test_thousands_of_flushes_wait_for_the_same_batch():
    batch = batch_of(1)
    flushes = [Flush([batch]) for _ in range(2000)]
    waits = asyncio.gather(*(flush.wait() for flush in flushes))
    await asyncio.sleep(0)
    assert not waits.done()
    batch.receipt.acknowledged(0, 1, 7)
    await asyncio.wait_for(waits, 5)


async def test_flushes_wait_for_both_halves_of_a_batch():
    batch = batch_of(4)
    early = Flush([batch])
    first, second = halve(batch)
    late = Flush([first, second])
    first.receipt.acknowledged(first.first_index, 2, 0)
    later = Flush([second])
    assert (early.waiting, late.waiting, later.waiting) == (2, 2, 2)
    second.receipt.acknowledged(second.first_index, 2, 2)
    for flush in (early, late, later):
        await asyncio.wait_for(flush.wait(), 1)


async def test_a_flush_that_was_given_up_is_let_go():
    batch = batch_of(1)
    for _ in range(100):
        Flush([batch])
    assert len(batch.receipt._flushes) <= 1


async def test_concurrent_flushes_of_a_producer_end_and_it_goes_on():
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer()
        futures = [producer.send_nowait(TOPIC, b"x") for _ in range(3)]
        flushes = [producer.flush() for _ in range(2000)]
        await asyncio.wait_for(asyncio.gather(*flushes, *futures), 10)
        assert (await producer.send(TOPIC, b"later")).offset == 3


async def test_a_header_name_that_is_not_utf8_is_refused_before_anything_is_taken():
    record = riverrun.NewRecord(b"v", headers=(("\udcff", b"x"),))
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer()
        with pytest.raises(riverrun.UsageError, match="no UTF-8"):
            producer.send_nowait(TOPIC, b"v", headers=record.headers)
        with pytest.raises(riverrun.UsageError, match="no UTF-8"):
            await producer.send_many(TOPIC, [record])
        assert (await producer.send(TOPIC, b"v", headers=[("ü", b"x")])).offset == 0


async def test_a_batch_given_up_while_it_is_compressed_does_not_end_the_producer(monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    real = codecs.compress

    def compress(codec: int, data: bytes) -> bytes:
        if b"SLOW" in data:
            begun.set()
            go_on.wait(10)
        return real(codec, data)

    monkeypatch.setattr(codecs, "compress", compress)
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    broker.add_topic("other")
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer(compression="gzip", delivery_timeout_s=30)
        await producer.send(TOPIC, b"warm")
        slow = producer.send_nowait(TOPIC, b"SLOW")
        await asyncio.to_thread(begun.wait, 10)
        machine = producer._engine.machine
        machine.expire(asyncio.get_running_loop().time() + 60, "enough")
        producer._engine._deliver()
        with pytest.raises(riverrun.TimedOutError) as caught:
            await slow
        assert not caught.value.outcome_known
        go_on.set()
        assert (await producer.send("other", b"x")).offset == 0
        assert (await producer.send(TOPIC, b"later")).offset == 2


async def test_an_answer_that_breaks_the_rules_ends_a_producer_whose_writer_waits(monkeypatch):
    async def serve(_broker, context):
        """Take one append and no more, so that the client's writes wait; then answer nonsense."""
        await context.read()
        limits = pb.ProduceStarted(max_unacknowledged_batches=64, max_in_flight_bytes=64 << 20)
        await context.write(pb.ProduceStreamResponse(started=limits))
        await context.read()
        wrong = pb.ProduceStreamResponse()
        wrong.acks.acked.add(first_tag=99_999, base_offsets=[1])
        await context.write(wrong)
        await asyncio.Event().wait()

    monkeypatch.setattr("tests.client.fake_broker.serve_produce_stream", serve)
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer(batch_bytes=1 << 20)
        futures = [producer.send_nowait(TOPIC, b"x" * 500_000) for _ in range(20)]
        results = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 10)
        assert {type(error) for error in results} == {riverrun.FatalError}
        with pytest.raises(riverrun.FatalError, match="99999"):
            await producer.send(TOPIC, b"x")


async def test_a_producer_whose_task_is_cancelled_says_so_instead_of_waiting():
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer()
        await producer.send(TOPIC, b"x")
        producer._engine._task.cancel()
        await asyncio.wait({producer._engine._task})
        with pytest.raises(riverrun.FatalError, match="cancelled") as first:
            await producer.send(TOPIC, b"x")
        with pytest.raises(riverrun.FatalError) as second:
            await producer.send(TOPIC, b"x")
        assert first.value is not second.value


async def test_closing_twice_at_once_ends_at_the_same_time():
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer(linger_s=0.05)
        future = producer.send_nowait(TOPIC, b"x")
        first = asyncio.create_task(producer.close())
        await asyncio.sleep(0)
        await producer.close()
        assert future.done()
        await first


async def test_a_record_too_large_for_any_broker_fails_alone():
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    large = bytes(5 << 20)
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer()
        small = [producer.send_nowait(TOPIC, b"x") for _ in range(3)]
        with pytest.raises(riverrun.UsageError, match="3145728") as caught:
            await producer.send(TOPIC, large)
        assert caught.value.reason is riverrun.Reason.BATCH_TOO_LARGE
        assert caught.value.outcome_known
        with pytest.raises(riverrun.UsageError, match="3145728") as caught:
            await producer.send_many(TOPIC, [b"first", large, b"behind"])
        assert caught.value.acknowledged_records == 1
        assert [(await future).offset for future in small] == [0, 1, 2]
        assert (await producer.send(TOPIC, b"x")).offset == 4


@pytest.mark.parametrize("bad", ["text", (b"k", "text"), bytes(5 << 20)])
async def test_what_comes_before_an_item_that_cannot_be_sent_is_written(bad):
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    before = [(b"k", b"%d" % number) for number in range(300)]
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer()
        with pytest.raises(riverrun.UsageError) as caught:
            await producer.send_many(TOPIC, [*before, bad, *before])
    assert caught.value.acknowledged_records == 300
    assert broker.partition(TOPIC).values() == [value for _, value in before]


def rpc_error(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "says a proxy")


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "INTERNAL", "UNKNOWN"])
def test_a_status_without_an_error_of_ours_does_not_end_what_the_stream_was_for(code):
    error = from_stream(rpc_error(grpc.StatusCode[code]), "produce stream", "h:1")
    assert isinstance(error, riverrun.RetriableError)


@pytest.mark.parametrize("code", ["UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED"])
def test_a_stream_that_nobody_will_ever_serve_is_not_tried_again(code):
    error = from_stream(rpc_error(grpc.StatusCode[code]), "produce stream", "h:1")
    assert not isinstance(error, riverrun.RetriableError)


async def test_send_many_tells_what_was_written_before_an_item_that_cannot_be():
    broker = FakeBroker()
    broker.add_topic(TOPIC)
    async with broker.serving() as address, impatient(address) as client:
        producer = client.producer(batch_bytes=1000)
        with pytest.raises(riverrun.UsageError, match="type str") as caught:
            await producer.send_many(TOPIC, [*[b"x" * 50] * 1000, "text"])
        written = len(broker.partition(TOPIC).values())
        assert caught.value.acknowledged_records == written == 1000
