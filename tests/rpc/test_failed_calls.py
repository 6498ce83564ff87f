"""What a failed call of a reading or text service becomes: our details, one count, one line in the log."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
import structlog.testing
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from riverrun.v1 import consumer_pb2 as c
from riverrun.v1 import errors_pb2
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.text_pb2 import TailRequest, TextServiceProduceRequest
from riverrun.v1.text_pb2_grpc import TextServiceStub
from tests.rpc.fake_partitions import FakeDirectory
from tests.rpc.reading_world import World, serving, until

CONSUMER, TEXT = "riverrun.v1.ConsumerService", "riverrun.v1.TextService"
START = c.SubscribeStart(positions=[c.StartPosition(topic="t")])

# Method, a request that is wrong as a whole, and one that reaches the directory or the appending.
CALLS = [
    (CONSUMER, "Subscribe", c.SubscribeRequest(), c.SubscribeRequest(start=START)),
    (CONSUMER, "Read", c.ReadRequest(), c.ReadRequest(topic="t")),
    (
        CONSUMER,
        "Fetch",
        c.FetchRequest(),
        c.FetchRequest(positions=[c.StartPosition(topic="t")]),
    ),
    (
        CONSUMER,
        "CommitOffset",
        c.CommitOffsetRequest(group_id="g"),
        c.CommitOffsetRequest(group_id="g", offsets=[c.OffsetCommit(topic="t")]),
    ),
    (
        CONSUMER,
        "FetchOffsets",
        c.FetchOffsetsRequest(),
        c.FetchOffsetsRequest(group_id="g", partitions=[c.TopicPartition(topic="t")]),
    ),
    (
        CONSUMER,
        "ListOffsets",
        c.ListOffsetsRequest(),
        c.ListOffsetsRequest(queries=[c.OffsetQuery(topic="t")]),
    ),
    (TEXT, "Tail", TailRequest(), TailRequest(topic="t")),
    (
        TEXT,
        "Produce",
        TextServiceProduceRequest(topic="t"),
        TextServiceProduceRequest(topic="t", value="v"),
    ),
]
IDS = [method for _, method, *_ in CALLS]


class Broken(FakeDirectory):
    """A directory with a bug."""

    def partitions(self, topic, topic_id=b""):
        if topic == "t":
            raise ZeroDivisionError("secret")
        return super().partitions(topic, topic_id)


async def buggy_append(_):
    raise ZeroDivisionError("secret")


async def failed(channel, service, method, request):
    """Make a call that fails; return its error and our details of it."""
    stub = (ConsumerServiceStub if service == CONSUMER else TextServiceStub)(channel)
    asked = iter([request]) if method == "Subscribe" else request
    call = getattr(stub, method)(asked, timeout=10)
    answer = call.read() if method in ("Subscribe", "Read", "Tail") else call
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    status = rpc_status.status_pb2.Status.FromString(
        dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    )
    ours, info = errors_pb2.Error(), ErrorInfo()
    assert status.details[0].Unpack(ours)
    assert status.details[1].Unpack(info)
    assert ours.message == status.message == caught.value.details()
    assert info.reason == errors_pb2.ErrorReason.Name(ours.reason).removeprefix("ERROR_REASON_")
    return caught.value, ours


async def counted(world):
    """Return how often calls ended, by method and code; the last one is counted behind its answer."""

    def ended():
        return {
            (sample.labels["method"], sample.labels["code"]): sample.value
            for family in world.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "riverrun_rpc_calls_total"
        }

    await until(ended)
    return ended()


@pytest.mark.parametrize(("service", "method", "wrong", "_"), CALLS, ids=IDS)
async def test_a_refusal_fails_the_call_with_our_details_and_counts_once(service, method, wrong, _):
    world = World(Broken())
    with structlog.testing.capture_logs() as logs:
        async with serving(world, buggy_append) as channel:
            error, ours = await failed(channel, service, method, wrong)
            assert await counted(world) == {(f"{service}/{method}", error.code().name): 1.0}
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert ours.outcome == errors_pb2.OUTCOME_NOTHING_HAPPENED
    assert logs == []


@pytest.mark.parametrize(("service", "method", "_", "request_"), CALLS, ids=IDS)
async def test_a_bug_is_told_once_to_the_log_with_the_full_name_and_counts_once(
    service, method, _, request_
):
    world = World(Broken())
    with structlog.testing.capture_logs() as logs:
        async with serving(world, buggy_append) as channel:
            error, ours = await failed(channel, service, method, request_)
            assert await counted(world) == {(f"{service}/{method}", "INTERNAL"): 1.0}
    assert error.code() is grpc.StatusCode.INTERNAL
    assert ours.outcome == errors_pb2.OUTCOME_UNKNOWN
    assert "secret" not in str(error)
    (line,) = logs
    assert line["method"] == f"{service}/{method}"
    assert line["incident"] in ours.message
