"""TextService: strings in, strings out."""

import asyncio

import grpc
import grpc.aio
import pytest

from riverrun.v1 import consumer_pb2
from riverrun.v1.producer_pb2 import ACKS_LEADER, ProduceResponse, ProduceResult
from riverrun.v1.records_pb2 import Header
from riverrun.v1.text_pb2 import TailRequest, TextHeader, TextRecord, TextServiceProduceRequest
from riverrun.v1.text_pb2_grpc import TextServiceStub
from riverrun_server.core.errors import Reason, Refusal
from tests.rpc.fake_partitions import NOW_MS, FakeDirectory
from tests.rpc.reading_world import World, serving, until


class Appends:
    """What ProducerService.append would be asked."""

    def __init__(self):
        self.requests = []
        self.refusal = None

    async def append(self, request):
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        return ProduceResponse(results=[ProduceResult(topic=request.topic, base_offset=7)])


@pytest.fixture
def appends():
    return Appends()


@pytest.fixture
async def world():
    directory = FakeDirectory()
    directory.create("t", 2)
    return World(directory)


@pytest.fixture
async def stub(world, appends):
    async with serving(world, appends.append) as channel:
        yield TextServiceStub(channel)


async def tail(stub, **fields):
    async with asyncio.timeout(10):
        return [each async for each in stub.Tail(TailRequest(**fields))]


async def test_one_record_is_produced_from_strings(stub, appends):
    request = TextServiceProduceRequest(topic="t", key="k", value="größe", acks=ACKS_LEADER)
    response = await stub.Produce(request)
    assert response.results[0].base_offset == 7
    (asked,) = appends.requests
    (record,) = asked.records
    assert (record.key, record.value) == (b"k", "größe".encode())
    assert (asked.topic, asked.acks, asked.HasField("partition")) == ("t", ACKS_LEADER, False)


async def test_several_records_keep_what_is_absent_absent(stub, appends):
    records = [
        TextRecord(value="a", timestamp_ms=5, headers=[TextHeader(key="h", value="v")]),
        TextRecord(key="gone"),
        TextRecord(key="", value=""),
    ]
    await stub.Produce(TextServiceProduceRequest(topic="t", partition=0, records=records))
    (asked,) = appends.requests
    first, tombstone, empty = asked.records
    assert asked.HasField("partition")
    assert asked.partition == 0
    assert (first.timestamp_ms, first.headers[0].value) == (5, b"v")
    assert not first.HasField("key")
    assert not tombstone.HasField("value")
    assert not tombstone.HasField("timestamp_ms")
    assert (empty.HasField("key"), empty.HasField("value")) == (True, True)


async def test_a_key_alone_is_a_tombstone(stub, appends):
    await stub.Produce(TextServiceProduceRequest(topic="t", key="k"))
    assert not appends.requests[0].records[0].HasField("value")


async def test_nothing_to_produce_and_both_forms_at_once_are_refused(stub, appends):
    for request, says in (
        (TextServiceProduceRequest(topic="t"), "nothing to produce"),
        (TextServiceProduceRequest(topic="t", value="a", records=[TextRecord()]), "not both"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Produce(request)
        assert says in caught.value.details()
    assert appends.requests == []


async def test_a_refusal_of_the_append_is_the_refusal_of_the_call(stub, appends):
    appends.refusal = Refusal(Reason.TOPIC_NOT_FOUND, "no such topic")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Produce(TextServiceProduceRequest(topic="nope", value="a"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_topic_is_tailed_record_by_record(stub, world):
    t0, t1 = world.directory.topics["t"]
    t0.append(b"a", "ö".encode(), key=b"k", headers=[Header(key="h", value=b"v")])
    t1.append(b"c", timestamp_ms=5)
    responses = await tail(stub, topic="t", stop_at_end=True)
    found = {(each.partition, each.offset): each for each in responses}
    assert sorted(found) == [(0, 0), (0, 1), (1, 0)]
    assert (found[0, 1].value, found[0, 1].key) == ("ö", "k")
    assert found[0, 0].headers[0].value == "v"
    assert (found[1, 0].timestamp_ms, found[0, 0].timestamp_ms) == (5, NOW_MS)
    assert not found[1, 0].HasField("key")
    assert not any(each.lossy for each in responses)


async def test_bytes_that_are_no_text_are_replaced_and_said_to_be(stub, world):
    t0, _ = world.directory.topics["t"]
    t0.append(b"\xffx", b"ok")
    t0.append(b"ok", headers=[Header(key="h", value=b"\xff")])
    responses = await tail(stub, topic="t", partition=0, stop_at_end=True)
    assert [(each.value, each.lossy) for each in responses] == [
        ("\ufffdx", True),
        ("ok", False),
        ("ok", True),
    ]


async def test_a_tombstone_has_no_value(stub, world):
    t0, _ = world.directory.topics["t"]
    t0.append(None, b"", key=b"k")
    responses = await tail(stub, topic="t", partition=0, stop_at_end=True)
    assert [each.HasField("value") for each in responses] == [False, True]


async def test_a_tail_begins_and_ends_where_it_is_told(stub, world):
    t0, _ = world.directory.topics["t"]
    t0.append(*[b"%d" % n for n in range(10)])
    responses = await tail(stub, topic="t", partition=0, from_last=4, max_records=2)
    assert [each.value for each in responses] == ["6", "7"]
    responses = await tail(stub, topic="t", partition=0, from_offset=9, stop_at_end=True)
    assert [each.value for each in responses] == ["9"]


async def test_a_tail_follows_what_comes(stub, world):
    call = stub.Tail(TailRequest(topic="t", **{"from": consumer_pb2.FROM_LATEST}))
    t0, t1 = world.directory.topics["t"]
    async with asyncio.timeout(10):
        await until(lambda: t1.cursors)
        t0.append(b"a")
        assert (await call.read()).value == "a"
        t1.append(b"b")
        assert (await call.read()).value == "b"
    call.cancel()


async def test_a_tail_that_cannot_go_on_fails(stub, world):
    world.directory.topics["t"][0].append(b"a")
    for fields, code in (
        ({"from_offset": 50}, grpc.StatusCode.OUT_OF_RANGE),
        ({"from_offset": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"from": consumer_pb2.FROM_COMMITTED}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"max_records": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"topic": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"topic": "nope"}, grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await tail(stub, **{"topic": "t", **fields})
        assert caught.value.code() is code
