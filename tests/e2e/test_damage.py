"""A partition whose stored data is damaged: offline, never a hole, and back once the loss is accepted."""

import asyncio
import re
import shlex
import subprocess

import grpc
import pytest

import riverrun
from riverrun.cli.exits import Exit
from riverrun.v1 import consumer_pb2, consumer_pb2_grpc, producer_pb2, producer_pb2_grpc
from riverrun.v1.admin_pb2 import CreateTopicRequest
from riverrun.v1.admin_pb2_grpc import AdminServiceStub
from riverrun.v1.records_pb2 import Record
from tests.e2e.broker_process import SERVER

CLI = SERVER.with_name("riverrun")
COUNT, SIZE = 40, 200_000


@pytest.fixture
def damaged(broker):
    """A stopped broker one of whose batches has a flipped bit on the disk."""
    with grpc.insecure_channel(broker.address) as channel:
        for topic in ("whole", "torn"):
            AdminServiceStub(channel).CreateTopic(CreateTopicRequest(topic=topic))
        for number in range(COUNT):
            produce(channel, "torn", b"<%06d>" % number * (SIZE // 8))
        produce(channel, "whole", b"fine")
        ahead = consumer_pb2.OffsetCommit(topic="torn", offset=COUNT - 1, leader_epoch=0)
        consumer_pb2_grpc.ConsumerServiceStub(channel).CommitOffset(
            consumer_pb2.CommitOffsetRequest(group_id="ahead", offsets=[ahead])
        )
    assert broker.term() == 0
    flip_a_bit(broker.data_dir, b"<%06d>" % (COUNT // 2) * 4)
    return broker


def produce(channel, topic, value):
    request = producer_pb2.ProduceRequest(topic=topic, records=[Record(value=value)])
    return producer_pb2_grpc.ProducerServiceStub(channel).Produce(request, timeout=10)


def flip_a_bit(data_dir, pattern):
    for table in (data_dir / "store").glob("*.sst"):
        data = bytearray(table.read_bytes())
        at = data.find(pattern)
        if at >= 0:
            data[at] ^= 1
            table.write_bytes(data)
            return
    raise AssertionError("no table holds it")


def read_all(channel, topic):
    stub = consumer_pb2_grpc.ConsumerServiceStub(channel)
    offsets, errors = [], []
    for frame in stub.Read(consumer_pb2.ReadRequest(topic=topic, stop_at_end=True), timeout=20):
        if frame.HasField("delivery"):
            offsets += [record.offset for record in frame.delivery.records]
        if frame.HasField("partition_error"):
            errors.append(frame.partition_error.error)
            break
    return offsets, errors


@pytest.mark.timeout(180)
def test_damage_stops_its_partition_alone_until_the_loss_is_accepted(damaged):
    damaged.restart()
    with grpc.insecure_channel(damaged.address) as channel:
        offsets, errors = read_all(channel, "torn")
        assert offsets == list(range(len(offsets)))
        assert len(offsets) <= COUNT // 2  # nothing at or behind the damage
        assert errors
        with pytest.raises(grpc.RpcError) as refused:
            produce(channel, "torn", b"more")
        told = re.search(r"riverrun-server (recover .* --accept-loss)", refused.value.details())
        assert told, refused.value.details()
        assert read_all(channel, "whole") == ([0], [])
    damaged.term()

    # The command as the broker has told it, whole.
    command = [SERVER, *shlex.split(told[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"now ends at offset {COUNT // 2}" in done.stdout, done.stdout + done.stderr

    damaged.restart()
    with grpc.insecure_channel(damaged.address) as channel:
        assert read_all(channel, "torn") == (list(range(COUNT // 2)), [])
        result = produce(channel, "torn", b"more").results[0]
        assert result.base_offset == COUNT // 2
        position = consumer_pb2.StartPosition(topic="torn", offset=COUNT - 1, leader_epoch=0)
        fetched = consumer_pb2_grpc.ConsumerServiceStub(channel).Fetch(
            consumer_pb2.FetchRequest(positions=[position])
        )
        error = fetched.errors[0].error
        assert error.diverging_offset == COUNT // 2
    asyncio.run(a_group_that_had_come_further_is_told(damaged.address))
    consume = [CLI, "consume", "torn", "--group", "ahead", "--exit-at-end"]
    told = subprocess.run(
        [*consume, "--bootstrap", damaged.address], capture_output=True, text=True, check=False
    )
    assert told.returncode == Exit.NOT_FOUND, told
    assert not told.stdout
    assert f"go on from offset {COUNT // 2}" in told.stderr


async def a_group_that_had_come_further_is_told(address):
    async with riverrun.Client(address) as client:
        async with client.consumer("torn", group="ahead", stop_at_end=True) as consumer:
            with pytest.raises(riverrun.OffsetOutOfRangeError) as cut:
                await anext(aiter(consumer))
        assert cut.value.reason is riverrun.Reason.LOG_TRUNCATED
        assert cut.value.diverging_offset == COUNT // 2
        async with client.consumer("torn", group="ahead", stop_at_end=True) as consumer:
            await consumer.seek(riverrun.TopicPartition("torn", 0), riverrun.Offset(COUNT // 2))
            (record,) = [record async for record in consumer]
            assert (record.offset, record.value) == (COUNT // 2, b"more")
