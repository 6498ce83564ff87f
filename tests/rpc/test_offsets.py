"""CommitOffset, FetchOffsets and ListOffsets over gRPC."""

import grpc
import grpc.aio
import pytest

from riverrun.v1 import consumer_pb2, errors_pb2
from riverrun.v1.consumer_pb2 import (
    CommitOffsetRequest,
    FetchOffsetsRequest,
    ListOffsetsRequest,
    OffsetCommit,
    OffsetQuery,
    TopicPartition,
)
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.reading.limits import ReadingLimits
from tests.rpc.fake_partitions import NOW_MS, FakeDirectory
from tests.rpc.reading_world import World, serving


@pytest.fixture
async def world():
    directory = FakeDirectory()
    for access in directory.create("t", 3):
        access.append(*[b"x"] * 10)
    directory.create("s", 1)[0].append(b"x")
    return World(directory, limits=ReadingLimits(partitions_per_call=10))


@pytest.fixture
async def stub(world):
    async with serving(world) as channel:
        yield ConsumerServiceStub(channel)


async def commit(stub, *offsets, group="g"):
    return await stub.CommitOffset(CommitOffsetRequest(group_id=group, offsets=offsets))


async def fetch(stub, *partitions, group="g"):
    response = await stub.FetchOffsets(FetchOffsetsRequest(group_id=group, partitions=partitions))
    return response.offsets


def at(topic, partition, offset, **fields):
    return OffsetCommit(topic=topic, partition=partition, offset=offset, **fields)


async def test_a_committed_offset_comes_back_with_everything_beside_it(stub, world):
    await commit(stub, at("t", 1, 5, leader_epoch=2, metadata="note"))
    (offset,) = await fetch(stub, TopicPartition(topic="t", partition=1))
    assert offset.topic_id == world.directory.topics["t"][1].id.topic_id
    committed = offset.committed
    assert (committed.offset, committed.leader_epoch, committed.metadata) == (5, 2, "note")
    assert committed.commit_time_ms == NOW_MS


async def test_no_committed_offset_is_not_zero(stub):
    await commit(stub, at("t", 0, 0))
    zero, none, unknown, nowhere = await fetch(
        stub,
        TopicPartition(topic="t", partition=0),
        TopicPartition(topic="t", partition=1),
        TopicPartition(topic="t", partition=7),
        TopicPartition(topic="nope"),
    )
    assert zero.WhichOneof("state") == "committed"
    assert not zero.committed.HasField("leader_epoch")
    assert none.WhichOneof("state") == "none"
    assert unknown.error.reason == errors_pb2.ERROR_REASON_PARTITION_NOT_FOUND
    assert nowhere.error.reason == errors_pb2.ERROR_REASON_TOPIC_NOT_FOUND


async def test_naming_none_asks_for_all_by_topic_and_partition(stub, world):
    assert await fetch(stub) == []
    await commit(stub, at("t", 2, 1), at("s", 0, 1), at("t", 0, 1))
    found = [(each.topic, each.partition) for each in await fetch(stub)]
    assert found == [("s", 0), ("t", 0), ("t", 2)]
    world.directory.delete("s")
    assert len(await fetch(stub)) == 2


async def test_results_come_in_the_order_of_the_request(stub):
    response = await commit(
        stub, at("t", 2, 1), at("nope", 0, 1), at("t", 0, 11), at("t", 1, -1), at("t", 1, 3)
    )
    assert [each.error.reason for each in response.results] == [
        0,
        errors_pb2.ERROR_REASON_TOPIC_NOT_FOUND,
        errors_pb2.ERROR_REASON_OFFSET_OUT_OF_RANGE,
        errors_pb2.ERROR_REASON_INVALID_REQUEST,
        0,
    ]
    assert not response.results[0].HasField("error")
    assert response.results[2].error.available.latest == 10
    assert len(await fetch(stub)) == 2


async def test_an_answer_that_fits_no_message_asks_for_fewer_partitions(world):
    world = World(world.directory, limits=ReadingLimits(frame_bytes_max=500))
    async with serving(world) as channel:
        stub = ConsumerServiceStub(channel)
        await commit(stub, at("t", 0, 1, metadata="x" * 400), at("t", 1, 1, metadata="x" * 400))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await fetch(stub)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "name the partitions" in caught.value.details()
        assert len(await fetch(stub, TopicPartition(topic="t"))) == 1


async def find(stub, *queries):
    response = await stub.ListOffsets(ListOffsetsRequest(queries=queries))
    return response.answers


async def test_offsets_are_found_by_name_and_by_time(stub, world):
    one = world.directory.topics["t"][1]
    one.append(b"late", timestamp_ms=NOW_MS + 5000)
    one.commits_at_once = False
    one.append(b"not committed")
    await one.trim(3)
    earliest, latest, by_time, too_late, unset = await find(
        stub,
        OffsetQuery(topic="t", partition=1, **{"from": consumer_pb2.FROM_EARLIEST}),
        OffsetQuery(topic="t", partition=1, **{"from": consumer_pb2.FROM_LATEST}),
        OffsetQuery(topic="t", partition=1, time_ms=NOW_MS + 1),
        OffsetQuery(topic="t", partition=1, time_ms=NOW_MS + 5001),
        OffsetQuery(topic_id=one.id.topic_id, partition=1),
    )
    assert (earliest.offset, latest.offset, unset.offset) == (3, 11, 3)
    assert (by_time.offset, by_time.timestamp_ms) == (10, NOW_MS + 5000)
    assert not too_late.HasField("offset")
    assert not too_late.HasField("error")
    assert (earliest.leader_epoch, earliest.high_watermark) == (1, 11)
    assert unset.topic == "t"


async def test_a_query_without_a_partition_asks_for_all(stub):
    answers = await find(stub, OffsetQuery(topic="t"), OffsetQuery(topic="s"))
    assert [(each.topic, each.partition) for each in answers] == [
        ("t", 0),
        ("t", 1),
        ("t", 2),
        ("s", 0),
    ]


async def test_a_partition_that_cannot_answer_has_an_error_of_its_own(stub, world):
    world.directory.topics["t"][1].broken = Refusal(Reason.OFFSET_NOT_AVAILABLE, "not yet")
    answers = await find(stub, OffsetQuery(topic="t"), OffsetQuery(topic="nope"))
    assert [each.error.reason for each in answers] == [
        0,
        errors_pb2.ERROR_REASON_OFFSET_NOT_AVAILABLE,
        0,
        errors_pb2.ERROR_REASON_TOPIC_NOT_FOUND,
    ]
    assert not answers[1].HasField("offset")


@pytest.mark.parametrize(
    ("method", "request_", "says"),
    [
        ("CommitOffset", CommitOffsetRequest(offsets=[at("t", 0, 0)]), "group_id"),
        ("CommitOffset", CommitOffsetRequest(group_id="g"), "commits nothing"),
        ("CommitOffset", CommitOffsetRequest(group_id="g", offsets=[at("t", 0, 0)] * 11), "11"),
        ("FetchOffsets", FetchOffsetsRequest(), "group_id"),
        ("FetchOffsets", FetchOffsetsRequest(group_id="\x7f"), "printed"),
        (
            "FetchOffsets",
            FetchOffsetsRequest(group_id="g", partitions=[TopicPartition()] * 11),
            "11",
        ),
        ("ListOffsets", ListOffsetsRequest(), "asks for nothing"),
        ("ListOffsets", ListOffsetsRequest(queries=[OffsetQuery(topic="t")] * 11), "11"),
        ("ListOffsets", ListOffsetsRequest(queries=[OffsetQuery(topic="t")] * 4), "12"),
        ("ListOffsets", ListOffsetsRequest(queries=[OffsetQuery(**{"from": 3})]), "FetchOffsets"),
        ("ListOffsets", ListOffsetsRequest(queries=[OffsetQuery(**{"from": 9})]), "from is 9"),
    ],
)
async def test_a_request_that_makes_no_sense_is_a_clear_error(stub, method, request_, says):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(request_)
    assert says in caught.value.details()
