"""What a shell with grpcurl reaches through any one broker of a cluster: everything."""

from __future__ import annotations

import asyncio
import base64

import grpc
import grpc.aio
import pytest

from riverrun.v1.errors_pb2 import ErrorReason
from riverrun.v1.metadata_pb2 import GetMetadataRequest
from riverrun.v1.metadata_pb2_grpc import MetadataServiceStub
from riverrun.v1.producer_pb2 import InitProducerRequest, ProduceAppend, ProduceStreamRequest
from riverrun.v1.producer_pb2_grpc import ProducerServiceStub
from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from tests.e2e.test_grpcurl import Shell
from tests.polyglot import toolchain

pytestmark = [pytest.mark.polyglot, toolchain.BUILDS]

PARTITIONS = 6
# What a leader change may answer: send it again from there.
RETRIABLE = {
    "ERROR_REASON_LEADER_NOT_AVAILABLE",
    "ERROR_REASON_REQUEST_TIMED_OUT",
    "ERROR_REASON_NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    "ERROR_REASON_PRECEDING_FAILED",
    "ERROR_REASON_OUT_OF_ORDER_SEQUENCE",
}


@pytest.fixture(scope="module")
def shells(shared_cluster):
    """grpcurl at each of the brokers."""
    path = toolchain.grpcurl()
    return {number: Shell(path, each.address) for number, each in shared_cluster.brokers.items()}


@pytest.fixture
def topic(shells, request):
    """A topic of the test's own."""
    name = request.node.name[:60]
    (made,) = shells[1].call("AdminService/CreateTopic", {"topic": name, "partitions": PARTITIONS})
    assert made.created
    return name


async def leaders(address, topic):
    async with grpc.aio.insecure_channel(address) as channel:
        known = await MetadataServiceStub(channel).GetMetadata(GetMetadataRequest(topics=[topic]))
    return [each.leader for each in known.cluster.topics[0].partitions]


def value(text):
    return base64.b64encode(text.encode()).decode()


def produced(shell, topic, partition, text):
    request = {"topic": topic, "partition": partition, "records": [{"value": value(text)}]}
    (reply,) = shell.call("ProducerService/Produce", request)
    return reply.results[0]


def read(shell, topic, partition, count):
    """Read a partition from its beginning."""
    request = {
        "topic": topic,
        "partition": partition,
        "from": "FROM_EARLIEST",
        "max_records": count,
    }
    replies = shell.call("ConsumerService/Read", request)
    return [record.value.decode() for reply in replies for record in reply.delivery.records]


def test_every_partition_is_written_and_read_through_every_broker(shells, topic):
    for partition in range(PARTITIONS):
        for number, shell in shells.items():
            result = produced(shell, topic, partition, f"{partition} by {number}")
            assert not result.HasField("error"), result
            assert result.base_offset == number - 1
        wanted = [f"{partition} by {number}" for number in shells]
        for shell in shells.values():
            assert read(shell, topic, partition, len(wanted)) == wanted


def test_a_subscription_at_one_broker_has_the_records_of_all_leaders(shells, topic):
    for partition in range(PARTITIONS):
        produced(shells[1], topic, partition, f"last of {partition}")
    for shell in shells.values():
        start = {"topics": [topic], "from_last": 1, "max_records": PARTITIONS}
        replies = shell.call("ConsumerService/Subscribe", {"start": start})
        got = {r.value.decode() for reply in replies for r in reply.delivery.records}
        assert got == {f"last of {partition}" for partition in range(PARTITIONS)}


def test_offsets_that_are_committed_at_one_broker_are_told_by_every_other(shells, topic):
    for partition in range(PARTITIONS):
        produced(shells[1], topic, partition, "read")
    for number, shell in shells.items():
        commit = {
            "group_id": f"group {number}",
            "offsets": [
                {"topic": topic, "partition": partition, "offset": 1}
                for partition in range(PARTITIONS)
            ],
        }
        (reply,) = shell.call("ConsumerService/CommitOffset", commit)
        assert not [result for result in reply.results if result.HasField("error")], reply
        for other in shells.values():
            (told,) = other.call(
                "ConsumerService/FetchOffsets",
                {"group_id": f"group {number}", "partitions": [{"topic": topic, "partition": 5}]},
            )
            assert [each.committed.offset for each in told.offsets] == [1]


async def test_who_does_not_want_to_be_passed_on_is_told_who_leads(shells, topic, shared_cluster):
    led = await leaders(shared_cluster.brokers[1].address, topic)
    partition = next(number for number, leader in enumerate(led) if leader != 1)
    request = {
        "topic": topic,
        "partition": partition,
        "records": [{"value": value("not here")}],
        "do_not_proxy": True,
    }
    status = shells[1].fail("ProducerService/Produce", request)
    (error,) = (each for each in status["details"] if each["@type"].endswith("riverrun.v1.Error"))
    assert error["reason"] == "ERROR_REASON_NOT_LEADER"
    assert error["leader"]["brokerId"] == led[partition]
    assert error["leader"]["endpoint"] == shared_cluster.brokers[led[partition]].address
    through = produced(shells[1], topic, partition, "here")
    assert through.leader.broker_id == led[partition]


@pytest.mark.timeout(120)
async def test_a_stream_that_is_pipelined_through_a_gateway_keeps_its_order_over_a_leader_change(
    cluster,
):
    """Idempotent batches, sent without waiting, while the leader ends under them."""
    shells = {
        number: Shell(toolchain.grpcurl(), broker.address)
        for number, broker in cluster.brokers.items()
    }
    (made,) = shells[1].call("AdminService/CreateTopic", {"topic": "moved", "partitions": 1})
    assert made.created
    (leader,) = await leaders(cluster.brokers[1].address, "moved")
    gateway = next(number for number in shells if number != leader)
    async with grpc.aio.insecure_channel(cluster.brokers[gateway].address) as channel:
        sent = await pipeline(ProducerServiceStub(channel), cluster.brokers[leader])
    assert read(shells[gateway], "moved", 0, sent) == [str(each) for each in range(sent)]


async def pipeline(stub, leader):
    """Send 400 batches in a row, those that fail again from the first that did; end the leader midway."""
    producer = await stub.InitProducer(InitProducerRequest())
    call = stub.ProduceStream()
    ends, acknowledged, count = None, 0, 400

    def append(number):
        records = RecordSet(records=[Record(value=str(number).encode())])
        batch = RecordBatch(
            records=records.SerializeToString(),
            producer_id=producer.producer_id,
            producer_epoch=producer.producer_epoch,
            base_sequence=number,
        )
        return ProduceStreamRequest(
            append=ProduceAppend(tag=number + 1, topic="moved", partition=0, batch=batch)
        )

    async def read_answers(until):
        """Read answers to all that were sent; return the first that failed, or None."""
        failed, left = None, until
        while left:
            reply = await call.read()
            left -= sum(len(each.base_offsets) for each in reply.acks.acked)
            for answered in reply.acks.results:
                left -= 1
                (result,) = answered.results
                if result.HasField("error"):
                    reason = ErrorReason.Name(result.error.reason)
                    assert reason in RETRIABLE, result.error
                    failed = answered.tag - 1 if failed is None else failed
        return failed

    while acknowledged < count:
        for number in range(acknowledged, count):
            await call.write(append(number))
            if number == count // 2 and ends is None:
                ends = asyncio.create_task(asyncio.to_thread(leader.term))
        failed = await read_answers(count - acknowledged)
        acknowledged = count if failed is None else failed
    assert ends is not None
    assert await ends == 0
    call.cancel()
    return count
