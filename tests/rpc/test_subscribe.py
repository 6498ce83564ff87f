"""Subscribe over gRPC: its start, its control, and how streams end."""

import asyncio

import grpc
import grpc.aio
import pytest
from grpc_status import rpc_status

from riverrun.v1 import consumer_pb2, errors_pb2
from riverrun.v1.consumer_pb2 import (
    Commit,
    Credit,
    OffsetCommit,
    Pause,
    Resume,
    Seek,
    StartPosition,
    SubscribeRequest,
    SubscribeResponse,
    SubscribeStart,
    TopicPartition,
)
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.records_pb2 import CODEC_GZIP, CODEC_ZSTD, RecordSet
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.rpc.reading_plans import subscribe_plan
from riverrun_server.wire import codecs
from tests.rpc.fake_partitions import FakeDirectory
from tests.rpc.reading_world import World, serving, until


@pytest.fixture
async def world():
    directory = FakeDirectory()
    directory.create("t", 2)
    directory.create("one", 1)
    return World(directory, limits=ReadingLimits(partitions_per_call=10))


@pytest.fixture
async def stub(world):
    async with serving(world) as channel:
        yield ConsumerServiceStub(channel)


@pytest.fixture
def one(world):
    return world.directory.topics["one"][0]


def start(**fields):
    return SubscribeRequest(start=SubscribeStart(**fields))


async def read(call, kind):
    """Return the next message of a kind."""
    async with asyncio.timeout(10):
        while (message := await call.read()) is not grpc.aio.EOF:
            if message.WhichOneof("kind") == kind:
                return getattr(message, kind)
    raise AssertionError(f"the stream ended without {kind}: {await call.code()}")


async def rest(call):
    """Return every message up to the end."""
    messages = []
    async with asyncio.timeout(10):
        while (message := await call.read()) is not grpc.aio.EOF:
            messages.append(message)
    return messages


def values(messages):
    return [
        record.value
        for message in messages
        if message.HasField("delivery")
        for record in message.delivery.records
    ]


def error_of(caught):
    status = rpc_status.from_call(caught)
    error = errors_pb2.Error()
    assert status.details[0].Unpack(error)
    return error


async def refused(stub, *requests):
    """Return the status of a stream that fails."""
    call = stub.Subscribe(iter(requests))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rest(call)
    return caught.value


async def test_a_shell_that_only_says_start_gets_its_records(stub, one):
    one.append(*[b"%d" % n for n in range(20)])
    messages = await rest(stub.Subscribe(iter([start(topics=["one"], max_records=10)])))
    assert values(messages) == [b"%d" % n for n in range(10)]
    started = messages[0].started
    assert (started.positions[0].offset, started.positions[0].high_watermark) == (0, 20)
    assert started.heartbeat_interval.ToMilliseconds() == 3000


async def test_delivery_goes_on_behind_a_half_close(stub, one):
    call = stub.Subscribe()
    await call.write(start(topics=["one"]))
    await call.done_writing()
    await read(call, "caught_up")
    one.append(b"later")
    delivery = await read(call, "delivery")
    assert delivery.records[0].value == b"later"
    call.cancel()


async def test_the_end_of_the_call_lets_go_of_everything(stub, one, world):
    calls = [stub.Subscribe() for _ in range(3)]
    for call in calls:
        await call.write(start(topics=["one"]))
        await read(call, "caught_up")
    await calls[0].done_writing()
    assert len(one.cursors) == 3
    for call in calls:
        call.cancel()
    await until(lambda: not one.cursors)


async def test_a_reader_controls_its_stream(stub, world):
    t0, t1 = world.directory.topics["t"]
    t0.append(*[b"a%d" % n for n in range(5)])
    call = stub.Subscribe()
    await call.write(start(topics=["t"], initial_credit=Credit(records=2), group_id="g"))
    assert len((await read(call, "delivery")).records) == 2
    await call.write(SubscribeRequest(pause=Pause(partitions=[TopicPartition(topic="t")])))
    position = StartPosition(topic="t", partition=0, offset=4)
    await call.write(SubscribeRequest(seek=Seek(seek_id=3, position=position)))
    assert (await read(call, "seek_done")).position.offset == 4
    await call.write(SubscribeRequest(credit=Credit(records=10)))
    t1.append(b"b0")
    delivery = await read(call, "delivery")
    assert (delivery.partition, delivery.records[0].value) == (1, b"b0")
    await call.write(SubscribeRequest(resume=Resume()))
    delivery = await read(call, "delivery")
    assert [(record.offset, record.value) for record in delivery.records] == [(4, b"a4")]
    commit = Commit(commit_id=1, offsets=[OffsetCommit(topic="t", partition=0, offset=5)])
    await call.write(SubscribeRequest(commit=commit))
    result = await read(call, "commit_result")
    assert (result.commit_id, len(result.results)) == (1, 1)
    assert not result.results[0].HasField("error")
    call.cancel()


async def test_a_group_goes_on_where_it_committed_and_else_where_the_start_says(stub, world):
    t0, t1 = world.directory.topics["t"]
    for each in (t0, t1):
        each.append(*[b"x"] * 10)
    seven = OffsetCommit(topic="t", partition=0, offset=7, leader_epoch=1)
    for place, expected in (
        ({}, 0),
        ({"from": consumer_pb2.FROM_LATEST}, 10),
        ({"from": consumer_pb2.FROM_COMMITTED}, 0),
        ({"from_offset": 4}, 4),
        ({"from_last": 3}, 7),
        ({"from_last": 300}, 0),
        ({"from_time_ms": 0}, 0),
        ({"from_time_ms": 1 << 50}, 10),
    ):
        group = f"g {place}"
        await stub.CommitOffset(consumer_pb2.CommitOffsetRequest(group_id=group, offsets=[seven]))
        call = stub.Subscribe(iter([start(topics=["t"], group_id=group, **place)]))
        found = {}
        while len(found) < len(world.directory.topics["t"]):
            assigned = await read(call, "partitions_assigned")
            found.update(
                (each.position.partition, each.position.offset) for each in assigned.partitions
            )
        assert found == {0: 7, 1: expected}, place
        call.cancel()


async def test_an_explicit_position_overrides_the_place_of_its_topic(stub, world):
    for each in world.directory.topics["t"]:
        each.append(*[b"x"] * 10)
    position = StartPosition(topic="t", partition=1, last=2)
    call = stub.Subscribe(iter([start(topics=["t"], positions=[position])]))
    started = await read(call, "started")
    assert {each.partition: each.offset for each in started.positions} == {0: 0, 1: 8}
    call.cancel()


async def test_a_topic_that_is_not_there_is_told_and_the_others_are_read(stub, one):
    one.append(b"here")
    call = stub.Subscribe(iter([start(topics=["gone", "one"])]))
    missing = await read(call, "partition_error")
    assert (missing.topic, missing.partition) == ("gone", -1)
    assert missing.error.reason == errors_pb2.ERROR_REASON_TOPIC_NOT_FOUND
    assert (await read(call, "delivery")).records[0].value == b"here"
    call.cancel()


async def test_where_nothing_is_there_the_call_fails(stub):
    status = await refused(stub, start(topics=["gone"]))
    assert status.code() is grpc.StatusCode.NOT_FOUND


async def test_a_topic_that_gets_partitions_later_does_not_change_a_stream(stub, world):
    call = stub.Subscribe(iter([start(topics=["one"])]))
    assert len((await read(call, "started")).positions) == 1
    one = world.directory.topics["one"]
    one.append(type(one[0])("one", one[0].id._replace(partition=1)))
    one[1].append(b"elsewhere")
    one[0].append(b"here")
    delivery = await read(call, "delivery")
    assert (delivery.partition, delivery.records[0].value) == (0, b"here")
    call.cancel()


async def test_batches_come_in_codecs_that_the_reader_knows(stub, one):
    one.append(b"a", codec=codecs.ZSTD)
    one.append(b"b", codec=codecs.GZIP)
    request = start(
        topics=["one"],
        form=consumer_pb2.FORM_BATCHES,
        accept_codecs=[CODEC_GZIP, 99],
        stop_at_end=True,
    )
    messages = await rest(stub.Subscribe(iter([request])))
    got = [batch for each in messages for batch in each.delivery.batches]
    assert [each.codec for each in got] == [1, CODEC_GZIP]
    data = [codecs.expand(each.codec, each.records, 1 << 20) for each in got]
    assert [RecordSet.FromString(each).records[0].value for each in data] == [b"a", b"b"]
    assert CODEC_ZSTD not in [each.codec for each in got]


async def test_an_internal_topic_can_be_read(stub, world):
    world.directory.create("__consumer_offsets", 1)[0].append(b"x")
    request = start(topics=["__consumer_offsets"], stop_at_end=True)
    assert values(await rest(stub.Subscribe(iter([request])))) == [b"x"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "nothing to read"),
        ({"topics": ["nope"]}, "no topic"),
        ({"topics": ["one", "one"]}, "twice"),
        ({"positions": [StartPosition(topic="one")] * 2}, "twice"),
        ({"positions": [StartPosition(topic="one", partition=5)]}, "partitions"),
        ({"positions": [StartPosition(topic="one", offset=-1)]}, "offset is -1"),
        ({"positions": [StartPosition(topic="one", last=-1)]}, "last is -1"),
        ({"positions": [StartPosition(topic="one", leader_epoch=1)]}, "leader_epoch"),
        ({"positions": [StartPosition(topic="one", offset=1, leader_epoch=-1)]}, "leader_epoch"),
        ({"positions": [StartPosition(topic="one", **{"from": 9})]}, "from is 9"),
        ({"positions": [StartPosition(topic="one", **{"from": 3})]}, "group"),
        ({"positions": [StartPosition(topic="one")] * 11}, "11 partitions"),
        ({"topics": ["t", "one"] + ["one"] * 0, "from": 9}, "from is 9"),
        ({"topics": ["one"], "from": 3}, "group"),
        ({"topics": ["one"], "from_offset": -5}, "from_offset is -5"),
        ({"topics": ["one"], "offset_reset": 9}, "offset_reset is 9"),
        ({"topics": ["one"], "commit_mode": 9}, "commit_mode is 9"),
        ({"topics": ["one"], "commit_mode": 2}, "group"),
        ({"topics": ["one"], "form": 9}, "form is 9"),
        ({"topics": ["one"], "max_records": -1}, "max_records is -1"),
        ({"topics": ["one"], "max_frame_bytes": -1}, "max_frame_bytes is -1"),
        ({"topics": ["one"], "initial_credit": Credit(records=-1)}, "initial_credit.records is -1"),
        ({"topics": ["one"], "initial_credit": Credit(bytes=-1)}, "initial_credit.bytes is -1"),
        ({"topics": ["one"], "group_id": "a\nb"}, "group_id"),
        ({"topics": ["one"], "group_id": "x" * 250}, "250 bytes"),
    ],
)
async def test_a_start_that_makes_no_sense_is_a_clear_error(stub, fields, says):
    caught = await refused(stub, start(**fields))
    assert says in caught.details()
    assert error_of(caught).outcome == errors_pb2.OUTCOME_NOTHING_HAPPENED
    assert caught.code() in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )


async def test_a_topic_with_more_partitions_than_a_call_may_name_is_refused(stub, world):
    world.directory.create("wide", 11)
    caught = await refused(stub, start(topics=["wide"]))
    assert caught.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "max_partitions_per_call" in caught.details()


async def test_a_stream_without_a_start_is_refused(stub):
    assert "before it said" in (await refused(stub)).details()
    caught = await refused(stub, SubscribeRequest(credit=Credit()))
    assert "`credit`" in caught.details()
    assert "empty" in (await refused(stub, SubscribeRequest())).details()


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (start(topics=["one"]), "only be the first"),
        (SubscribeRequest(), "empty"),
        (SubscribeRequest(credit=Credit(records=-1)), "credit.records is -1"),
        (SubscribeRequest(credit=Credit(bytes=-1)), "credit.bytes is -1"),
        (SubscribeRequest(pause=Pause(partitions=[TopicPartition()] * 11)), "11 partitions"),
        (SubscribeRequest(resume=Resume(partitions=[TopicPartition()] * 11)), "11 partitions"),
        (SubscribeRequest(commit=Commit(offsets=[OffsetCommit()] * 11)), "11 partitions"),
    ],
)
async def test_control_against_the_rules_ends_the_stream(stub, one, request_, says):
    caught = await refused(stub, start(topics=["one"]), request_)
    assert says in caught.details()
    assert not one.cursors


@pytest.mark.parametrize(
    "position",
    [
        StartPosition(topic="one", offset=-1),
        StartPosition(topic="one", **{"from": 9}),
        StartPosition(topic="one", **{"from": 3}),
    ],
)
async def test_a_seek_that_makes_no_sense_fails_its_partition_only(stub, one, position):
    call = stub.Subscribe()
    await call.write(start(topics=["one"]))
    await call.write(SubscribeRequest(seek=Seek(seek_id=1, position=position)))
    error = (await read(call, "partition_error")).error
    assert error.reason == errors_pb2.ERROR_REASON_INVALID_REQUEST
    one.append(b"x")
    good = StartPosition(topic="one", offset=0)
    await call.write(SubscribeRequest(seek=Seek(seek_id=2, position=good)))
    assert (await read(call, "seek_done")).seek_id == 2
    assert (await read(call, "delivery")).records[0].value == b"x"
    call.cancel()


async def test_a_message_that_is_none_ends_the_stream(world, one):
    async with serving(world) as channel:
        raw = channel.stream_stream(
            "/riverrun.v1.ConsumerService/Subscribe",
            request_serializer=bytes,
            response_deserializer=SubscribeResponse.FromString,
        )
        call = raw()
        await call.write(start(topics=["one"]).SerializeToString())
        await read(call, "caught_up")
        await call.write(b"\xff\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rest(call)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "riverrun.v1.SubscribeRequest" in caught.value.details()
        await until(lambda: not one.cursors)


async def test_a_subscriber_that_never_reads_costs_a_bounded_amount(stub, one):
    for _ in range(60):
        one.append(b"x" * 1_000_000)
    stuck = stub.Subscribe()
    await stuck.write(start(topics=["one"], form=consumer_pb2.FORM_BATCHES))
    messages = await rest(
        stub.Subscribe(
            iter([start(topics=["one"], form=consumer_pb2.FORM_BATCHES, stop_at_end=True)])
        )
    )
    assert sum(len(each.delivery.batches) for each in messages) == 60
    offsets = sorted(cursor.position for cursor in one.cursors)
    # What gRPC and the kernel hold between the two, and one message.
    assert offsets[0] < 40
    stuck.cancel()


async def test_a_client_that_is_gone_in_the_middle_of_a_message_is_no_bug(world, one):
    """What gRPC raises from a write then; which clients it happens to is chance."""
    plan = subscribe_plan(SubscribeStart(topics=["one"]), world.directory, world.services.limits)

    async def write(_):
        raise grpc.aio.InternalError

    async with world:
        stream = asyncio.create_task(world.streams.deliver(plan, write))
        with pytest.raises(asyncio.CancelledError):
            await stream
    assert not one.cursors


async def test_streams_end_in_order_when_the_broker_goes_away(stub, world, one):
    call = stub.Subscribe()
    await call.write(start(topics=["one"]))
    await read(call, "caught_up")
    world.draining.set()
    going_away = await read(call, "going_away")
    assert going_away.reconnect_after.seconds == 1
    assert await rest(call) == []
    assert await call.code() is grpc.StatusCode.OK
    late = await rest(stub.Subscribe(iter([start(topics=["one"])])))
    assert late[-1].WhichOneof("kind") == "going_away"


async def test_a_frame_is_no_larger_than_the_reader_aims_at(stub, one):
    for _ in range(10):
        one.append(*[b"x" * 100] * 50)
    for form in (consumer_pb2.FORM_RECORDS, consumer_pb2.FORM_BATCHES):
        request = start(topics=["one"], stop_at_end=True, max_frame_bytes=15_000, form=form)
        messages = await rest(stub.Subscribe(iter([request])))
        sizes = [each.ByteSize() for each in messages if each.HasField("delivery")]
        assert len(sizes) > 3
        assert max(sizes) <= 15_000
