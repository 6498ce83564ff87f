"""ProduceStream over a real connection: order of answers, refusals, bounds, ends."""

import asyncio
import contextlib
import threading
import zlib

import grpc
import pytest

from riverrun.v1 import errors_pb2, producer_pb2, producer_pb2_grpc
from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.core.admission import ByteBudget
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.limits import Limits
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.observe.metrics import Metrics
from riverrun_server.ports.partitions import Appended
from riverrun_server.rpc import appends
from riverrun_server.rpc.admission import Admission, Caps
from riverrun_server.rpc.appends import AppendRules
from riverrun_server.rpc.door import Door
from riverrun_server.rpc.producer import ProducerService
from riverrun_server.runtime.clock import SystemDice
from riverrun_server.runtime.in_flight import InFlightBytes
from riverrun_server.runtime.threads import PoolThreads
from riverrun_server.wire import codecs

NOW_MS = 1_700_000_000_000


class Partition:
    """Takes appends and answers them when a test says so."""

    max_batch_bytes = 1 << 20

    def __init__(self, topic, number):
        self.topic, self.id = topic, PartitionId(b"t" * 16, number)
        self.waiting = []
        self.end = 0
        self.refuse = None
        self.arrived = asyncio.Event()

    def submit(self, append):
        count = append.batch.header.record_count
        if self.refuse is not None:
            append.done(Appended(None, count, error=self.refuse))
        else:
            self.waiting.append((append, Appended(self.end, count)))
            self.end += count
        self.arrived.set()

    def answer(self):
        append, answer = self.waiting.pop(0)
        append.done(answer)

    async def has(self, count):
        while len(self.waiting) < count:
            self.arrived.clear()
            await self.arrived.wait()


class Directory:
    def __init__(self, count):
        self.all = [Partition("t", number) for number in range(count)]

    def partition(self, topic, topic_id, partition):
        if (topic or topic_id.decode()[:1]) != "t":
            raise Refusal(Reason.TOPIC_NOT_FOUND, f"no topic {topic!r}")
        return self.all[partition]

    def partitions(self, topic, topic_id=b""):
        return [self.partition(topic, topic_id, n) for n in range(len(self.all))]

    def is_internal(self, topic):
        return topic.startswith("__")


class Broker:
    def __init__(self, directory, channel, in_flight, draining):
        stub = producer_pb2_grpc.ProducerServiceStub(channel)
        self.channel = channel
        self.partitions, self.stub = directory.all, stub
        self.in_flight, self.draining = in_flight, draining


@contextlib.asynccontextmanager
async def running(partitions=2, *, connection_bytes=1 << 20, timeout_ms=30_000):
    directory, draining = Directory(partitions), asyncio.Event()
    in_flight = InFlightBytes(ByteBudget(1 << 20, connection_bytes))
    limits = Limits(default_produce_timeout_ms=timeout_ms)
    rules = AppendRules(directory, limits, lambda: NOW_MS, PoolThreads(2, "validation"))

    async def producer_id():
        return 7

    admission = Admission(Caps(100, 100, 100), Metrics(process=False))
    door = Door(admission, "test")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((door,))
    service = ProducerService(rules, in_flight, producer_id, draining, SystemDice())
    door.add_generic_rpc_handlers((service.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Broker(directory, channel, in_flight, draining)
    await server.stop(None)


def batch(count=1, **fields):
    data = RecordSet(records=[Record(value=b"v")] * count).SerializeToString()
    return RecordBatch(records=data, **fields)


def compressed():
    data = codecs.compress(codecs.GZIP, batch().records)
    return RecordBatch(records=data, codec=codecs.GZIP)


def damaged():
    good = batch()
    return RecordBatch(records=good.records, records_crc=zlib.crc32(good.records) ^ 1)


def append(tag, partition=0, **fields):
    fields.setdefault("topic", "t")
    if "records" not in fields:
        fields.setdefault("batch", batch())
    if partition is not None:
        fields["partition"] = partition
    request = producer_pb2.ProduceAppend(tag=tag, **fields)
    return producer_pb2.ProduceStreamRequest(append=request)


async def opened(broker):
    call = broker.stub.ProduceStream()
    assert (await call.read()).WhichOneof("kind") == "started"
    return call


def acked(message):
    return {
        run.first_tag + index: offset
        for run in message.acks.acked
        for index, offset in enumerate(run.base_offsets)
    }


async def test_appends_are_answered_with_their_offsets():
    async with running() as broker:
        call = await opened(broker)
        for tag in (1, 2):
            await call.write(append(tag, batch=batch(3)))
        first = broker.partitions[0]
        await first.has(2)
        first.answer()
        first.answer()
        assert acked(await call.read()) == {1: 0, 2: 3}


async def test_a_refusal_does_not_overtake_what_was_sent_before_it():
    async with running() as broker:
        call = await opened(broker)
        first = broker.partitions[0]
        await call.write(append(1))
        await first.has(1)
        first.refuse = Refusal(Reason.STORAGE_FULL, "full")
        await call.write(append(2))
        # Another partition's answer comes through meanwhile, and only that.
        await call.write(append(3, 1))
        await broker.partitions[1].has(1)
        broker.partitions[1].answer()
        assert acked(await call.read()) == {3: 0}
        first.answer()
        message = await call.read()
        assert acked(message) == {1: 0}
        assert [result.tag for result in message.acks.results] == [2]


async def test_after_a_failure_later_batches_wait_until_the_client_knows_of_it():
    async with running() as broker:
        call = await opened(broker)
        first = broker.partitions[0]
        first.refuse = Refusal(Reason.STORAGE_STALLED, "stalled")
        await call.write(append(1))
        assert (await call.read()).acks.results[0].tag == 1
        first.refuse = None
        await call.write(append(2))
        refused = (await call.read()).acks.results[0]
        assert refused.tag == 2
        assert refused.results[0].error.reason == errors_pb2.ERROR_REASON_PRECEDING_FAILED
        assert refused.results[0].error.outcome == errors_pb2.OUTCOME_NOTHING_HAPPENED
        await call.write(append(3, attempt=1))
        await first.has(1)
        first.answer()
        assert acked(await call.read()) == {3: 0}


async def test_a_missing_topic_fails_its_append_and_not_the_stream():
    async with running() as broker:
        call = await opened(broker)
        await call.write(append(1, topic="nope"))
        result = (await call.read()).acks.results[0]
        assert result.results[0].error.reason == errors_pb2.ERROR_REASON_TOPIC_NOT_FOUND
        await call.write(append(2))
        await broker.partitions[0].has(1)


async def test_a_wrong_checksum_is_refused_and_nothing_reaches_the_partition():
    async with running() as broker:
        call = await opened(broker)
        await call.write(append(1, batch=damaged()))
        error = (await call.read()).acks.results[0].results[0].error
        assert error.reason == errors_pb2.ERROR_REASON_INVALID_RECORD
        assert not broker.partitions[0].waiting


async def test_records_without_a_partition_go_by_key_and_are_answered_together():
    async with running() as broker:
        call = await opened(broker)
        records = [Record(key=b"key-%d" % n, value=b"v") for n in range(10)]
        expected = {0: 0, 1: 0}
        for record in records:
            expected[zlib.crc32(record.key) % 2] += 1
        assert all(expected.values())
        await call.write(append(5, None, records=records))
        for partition in broker.partitions:
            await partition.has(1)
            partition.answer()
        result = (await call.read()).acks.results[0]
        assert result.tag == 5
        assert {each.partition: each.record_count for each in result.results} == expected


async def test_a_batch_without_a_partition_is_refused():
    async with running() as broker:
        call = await opened(broker)
        await call.write(append(1, None))
        error = (await call.read()).acks.results[0].results[0].error
        assert error.reason == errors_pb2.ERROR_REASON_INVALID_REQUEST


async def test_a_second_start_ends_the_stream_after_everything_was_answered():
    async with running() as broker:
        call = await opened(broker)
        await call.write(append(1))
        await call.write(producer_pb2.ProduceStreamRequest(start=producer_pb2.ProduceStart()))
        await broker.partitions[0].has(1)
        broker.partitions[0].answer()
        assert acked(await call.read()) == {1: 0}
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call.read()
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_bytes_that_are_no_message_end_the_stream_with_a_clear_error():
    async with running() as broker:
        raw = broker.channel.stream_stream("/riverrun.v1.ProducerService/ProduceStream")
        call = raw()
        await call.read()
        await call.write(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call.read()
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_half_close_answers_everything_and_ends_well():
    async with running() as broker:
        call = await opened(broker)
        await call.write(append(1))
        await call.done_writing()
        await broker.partitions[0].has(1)
        broker.partitions[0].answer()
        assert acked(await call.read()) == {1: 0}
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_a_drain_answers_what_was_read_and_says_goodbye():
    async with running() as broker:
        call = await opened(broker)
        await call.write(append(1))
        await broker.partitions[0].has(1)
        broker.draining.set()
        broker.partitions[0].answer()
        assert acked(await call.read()) == {1: 0}
        assert (await call.read()).WhichOneof("kind") == "going_away"
        assert await call.read() is grpc.aio.EOF


class Held:
    """Validation in a thread that stays there until a test lets it go on."""

    def __init__(self, monkeypatch, name):
        self._whole = getattr(appends, name)
        self._loop = asyncio.get_running_loop()
        self._go = threading.Event()
        self.entered = asyncio.Event()
        monkeypatch.setattr(appends, name, self._held)

    def _held(self, *args):
        assert threading.current_thread() is not threading.main_thread()
        self._loop.call_soon_threadsafe(self.entered.set)
        assert self._go.wait(30.0)
        return self._whole(*args)

    def let_go(self):
        self._go.set()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("accept", {"batch": compressed()}),
        ("pack_records", {"records": [Record(value=b"v")] * 600}),
        ("pack_records", {"records": [Record(value=b"v")] * 600, "partition": None}),
    ],
    ids=["batch", "records", "records anywhere"],
)
async def test_a_drain_carries_through_what_is_being_validated_in_a_thread(
    monkeypatch, name, fields
):
    held = Held(monkeypatch, name)
    async with running(partitions=1) as broker, asyncio.timeout(20):
        call = await opened(broker)
        await call.write(append(1, **fields))
        await held.entered.wait()
        broker.draining.set()
        await asyncio.sleep(0)
        held.let_go()
        first = broker.partitions[0]
        await first.has(1)
        first.answer()
        assert acked(await call.read()) == {1: 0}
        assert (await call.read()).WhichOneof("kind") == "going_away"
        assert await call.read() is grpc.aio.EOF


async def test_a_drain_carries_through_what_waits_for_room():
    async with running(connection_bytes=5_000) as broker, asyncio.timeout(20):
        waits, changed = asyncio.Event(), broker.in_flight.changed

        async def noted():
            waits.set()
            await changed()

        broker.in_flight.changed = noted
        call = await opened(broker)
        for tag in range(4):
            await call.write(
                append(tag, batch=batch(200))
            )  # 2 KB each, half of it overhead: two have room
        first = broker.partitions[0]
        await waits.wait()
        broker.draining.set()
        await asyncio.sleep(0)
        first.answer()
        await first.has(2)
        first.answer()
        first.answer()
        answered = {}
        while (message := await call.read()).WhichOneof("kind") == "acks":
            answered |= acked(message)
        assert answered == {0: 0, 1: 200, 2: 400}
        assert message.WhichOneof("kind") == "going_away"


# Of two partitions, a record with this key goes to the first.
KEY_OF_FIRST = next(b"%d" % n for n in range(100) if zlib.crc32(b"%d" % n) % 2 == 0)


@pytest.mark.parametrize("naming", [{}, {"topic": "", "topic_id": b"t" * 16}], ids=["name", "id"])
@pytest.mark.parametrize(
    "following",
    [{}, {"partition": None, "records": [Record(key=KEY_OF_FIRST)]}],
    ids=["batch", "records anywhere"],
)
async def test_what_follows_a_failure_is_answered_behind_it_and_behind_what_waits(
    naming, following
):
    async with running() as broker, asyncio.timeout(20):
        call = await opened(broker)
        first, other = broker.partitions
        await call.write(append(1, **naming))
        await first.has(1)
        await call.write(append(2, batch=damaged(), **naming))
        await call.write(append(3, **following, **naming))
        # Both refusals are known by now, and only the other partition's answer comes through.
        await call.write(append(4, 1, **naming))
        await other.has(1)
        other.answer()
        message = await call.read()
        assert (acked(message), len(message.acks.results)) == ({4: 0}, 0)
        first.answer()
        message = await call.read()
        assert acked(message) == {1: 0}
        assert [(each.tag, each.results[0].error.reason) for each in message.acks.results] == [
            (2, errors_pb2.ERROR_REASON_INVALID_RECORD),
            (3, errors_pb2.ERROR_REASON_PRECEDING_FAILED),
        ]
        assert not first.waiting


async def test_a_stream_reads_no_more_than_it_may_hold():
    async with running(connection_bytes=5_000) as broker:
        call = await opened(broker)
        for tag in range(4):
            await call.write(append(tag, batch=batch(200)))  # 1 KB each
        first = broker.partitions[0]
        await first.has(2)
        await asyncio.wait_for(broker.stub.InitProducer(producer_pb2.InitProducerRequest()), 5)
        assert len(first.waiting) == 2
        assert broker.in_flight.budget.used_bytes <= 5_000
        first.answer()
        await first.has(2)


async def test_a_client_that_goes_away_gives_its_bytes_back():
    async with running() as broker:
        call = await opened(broker)
        await call.write(append(1))
        await broker.partitions[0].has(1)
        assert broker.in_flight.budget.used_bytes > 0
        returned = asyncio.create_task(broker.in_flight.changed())
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait_for(returned, 5)
        assert broker.in_flight.budget.used_bytes == 0


async def test_acks_that_do_not_come_in_time_have_an_unknown_outcome():
    async with running(timeout_ms=200) as broker:
        call = await opened(broker)
        await call.write(append(1))
        error = (await call.read()).acks.results[0].results[0].error
        assert error.reason == errors_pb2.ERROR_REASON_REQUEST_TIMED_OUT
        assert error.outcome == errors_pb2.OUTCOME_UNKNOWN


@pytest.mark.parametrize("topic", ["__consumer_offsets"])
async def test_internal_topics_cannot_be_written_to(topic):
    async with running() as broker:
        for partition in broker.partitions:
            partition.topic = topic
        call = await opened(broker)
        await call.write(append(1))
        error = (await call.read()).acks.results[0].results[0].error
        assert error.reason == errors_pb2.ERROR_REASON_TOPIC_RESERVED
