"""Read: the flat form, explicit positions, and how it ends."""

import asyncio

import grpc
import grpc.aio
import pytest

from riverrun.v1 import consumer_pb2
from riverrun.v1.consumer_pb2 import OffsetCommit, ReadRequest, StartPosition
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun_server.core.errors import Reason, Refusal
from tests.rpc.fake_partitions import FakeDirectory
from tests.rpc.reading_world import World, serving


@pytest.fixture
async def world():
    directory = FakeDirectory()
    for number, access in enumerate(directory.create("t", 2)):
        access.append(*[b"%d:%d" % (number, n) for n in range(5)])
    return World(directory)


@pytest.fixture
async def stub(world):
    async with serving(world) as channel:
        yield ConsumerServiceStub(channel)


async def read(stub, **fields):
    """Return what is read up to the end, by partition, and the kinds of messages."""
    found, kinds = {}, []
    async with asyncio.timeout(10):
        async for message in stub.Read(ReadRequest(**fields)):
            kinds.append(message.WhichOneof("kind"))
            for record in message.delivery.records:
                found.setdefault(message.delivery.partition, []).append(record.value)
    return found, kinds


async def test_a_topic_is_read_to_its_end(stub):
    found, kinds = await read(stub, topic="t", stop_at_end=True)
    assert found == {n: [b"%d:%d" % (n, at) for at in range(5)] for n in range(2)}
    assert kinds[0] == "started"
    assert kinds.count("caught_up") == 2


async def test_one_partition_is_read_from_a_place(stub):
    found, _ = await read(stub, topic="t", partition=1, from_last=2, stop_at_end=True)
    assert found == {1: [b"1:3", b"1:4"]}
    found, _ = await read(stub, topic="t", partition=0, from_offset=4, stop_at_end=True)
    assert found == {0: [b"0:4"]}


async def test_explicit_positions_begin_each_at_its_own_place(stub, world):
    await stub.CommitOffset(
        consumer_pb2.CommitOffsetRequest(
            group_id="g", offsets=[OffsetCommit(topic="t", partition=1, offset=3)]
        )
    )
    topic_id = world.directory.topics["t"][0].id.topic_id
    found, _ = await read(
        stub,
        group_id="g",
        stop_at_end=True,
        positions=[
            StartPosition(topic="t", partition=1, **{"from": consumer_pb2.FROM_COMMITTED}),
            StartPosition(topic_id=topic_id, partition=0),
        ],
    )
    assert found == {1: [b"1:3", b"1:4"], 0: [b"0:%d" % n for n in range(5)]}


async def test_max_records_ends_it(stub):
    found, _ = await read(stub, topic="t", max_records=7)
    assert sum(len(values) for values in found.values()) == 7


async def test_it_goes_on_with_what_comes(stub, world):
    call = stub.Read(ReadRequest(topic="t", partition=0, from_offset=5))
    async with asyncio.timeout(10):
        while (await call.read()).WhichOneof("kind") != "caught_up":
            pass
        world.directory.topics["t"][0].append(b"new")
        assert (await call.read()).delivery.records[0].value == b"new"
    call.cancel()


async def test_out_of_range_fails_the_call_where_nothing_else_is_read(stub):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(stub, topic="t", partition=0, from_offset=99)
    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_with_a_group_out_of_range_is_reset_to_the_earliest(stub):
    positions = [StartPosition(topic="t", offset=99)]
    found, kinds = await read(stub, positions=positions, group_id="g", stop_at_end=True)
    assert "position_reset" in kinds
    assert len(found[0]) == 5


async def test_partitions_that_fail_do_not_keep_the_others_from_their_end(stub, world):
    world.directory.topics["t"][0].broken = Refusal(Reason.PARTITION_OFFLINE, "damaged")
    call = stub.Read(ReadRequest(topic="t", stop_at_end=True))
    kinds = [(await call.read()).WhichOneof("kind") for _ in range(4)]
    assert sorted(kinds) == ["caught_up", "delivery", "partition_error", "started"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "nothing to read"),
        ({"partition": 1}, "names no topic"),
        ({"from_last": 1}, "names no topic"),
        ({"topic": "nope"}, "no topic"),
        ({"topic": "t", "partition": 2}, "2 partitions"),
        ({"topic": "t", "partition": -1}, "2 partitions"),
        ({"topic": "t", "positions": [StartPosition(topic="t")]}, "not both"),
        ({"topic": "t", "from": 7}, "from is 7"),
        ({"topic": "t", "from": consumer_pb2.FROM_COMMITTED}, "group"),
        ({"topic": "t", "offset_reset": 7}, "offset_reset is 7"),
        ({"topic": "t", "form": 7}, "form is 7"),
        ({"topic": "t", "max_records": -1}, "max_records is -1"),
        ({"topic": "t", "max_frame_bytes": -1}, "max_frame_bytes is -1"),
        ({"topic": "t", "group_id": "\t"}, "group_id"),
    ],
)
async def test_a_request_that_makes_no_sense_is_a_clear_error(stub, fields, says):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(stub, **fields)
    assert says in caught.value.details()
