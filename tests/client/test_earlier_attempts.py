"""A call that is made again tells how its last attempt ended, and what the earlier ones left open."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

import riverrun
from riverrun import NoBrokerError, Reason, TopicPartition
from riverrun._core.attempts import Attempts
from riverrun.v1 import admin_pb2_grpc, consumer_pb2_grpc, metadata_pb2_grpc
from tests.client.fake_broker import FakeAdminService, FakeBroker, FakeMetadataService, impatient
from tests.client.fake_log import FakeRefusal
from tests.client.fake_subscribe import FakeConsumerService

NOWHERE = FakeRefusal("TOPIC_NOT_FOUND", "it is gone")


class Lossy:
    """Carries calls out, and loses the answers to the first ones."""

    def __init__(self, count=1):
        self.left = count
        self.lost = asyncio.Event()

    async def done(self, context):
        if self.left:
            self.left -= 1
            self.lost.set()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")


class LossyAdmin(FakeAdminService):
    def __init__(self, broker, lossy):
        super().__init__(broker)
        self._lossy = lossy

    async def AlterTopic(self, request, context):  # noqa: N802
        await self._broker.note("AlterTopic", context)
        answer = await super().AlterTopic(request, context)
        await self._lossy.done(context)
        return answer

    async def DescribeTopic(self, request, context):  # noqa: N802
        answer = await super().DescribeTopic(request, context)
        await self._lossy.done(context)
        return answer

    async def TrimTopic(self, request, context):  # noqa: N802
        answer = await super().TrimTopic(request, context)
        await self._lossy.done(context)
        return answer

    async def CreateTopic(self, request, context):  # noqa: N802
        answer = await super().CreateTopic(request, context)
        await self._lossy.done(context)
        return answer


class LossyConsumers(FakeConsumerService):
    def __init__(self, broker, lossy):
        super().__init__(broker)
        self._lossy = lossy

    async def CommitOffset(self, request, context):  # noqa: N802
        answer = await super().CommitOffset(request, context)
        await self._lossy.done(context)
        return answer


@asynccontextmanager
async def serving(broker, lossy):
    server = grpc.aio.server()
    metadata_pb2_grpc.add_MetadataServiceServicer_to_server(FakeMetadataService(broker), server)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(LossyAdmin(broker, lossy), server)
    consumer_pb2_grpc.add_ConsumerServiceServicer_to_server(LossyConsumers(broker, lossy), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=None)


@pytest.fixture
def broker():
    made = FakeBroker()
    made.add_topic("t")
    return made


def refuse_again(broker, call):
    """Let the call's first attempt pass, and refuse the next."""
    asked = broker.note

    async def note(name, context):
        if name == call and broker.calls.count(call):
            broker.refuse[call] = [NOWHERE]
        await asked(name, context)

    broker.note = note


CALLS = {
    "AlterTopic": lambda admin: admin.alter_topic("t", set={"retention.ms": "7"}),
    "TrimTopic": lambda admin: admin.trim_topic("t", {0: 0}),
    "CreateTopic": lambda admin: admin.create_topic("t", if_not_exists=True),
    "CommitOffset": lambda admin: admin.commit_group_offsets("g", {TopicPartition("t", 0): 5}),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_refusal_after_a_lost_answer_leaves_the_outcome_open(broker, call):
    refuse_again(broker, call)
    async with serving(broker, Lossy()) as (_, address), impatient(address) as client:
        with pytest.raises(riverrun.TopicNotFoundError) as caught:
            await CALLS[call](client.admin())
    assert broker.calls.count(call) == 2
    assert not caught.value.outcome_known
    assert caught.value.reason is Reason.TOPIC_NOT_FOUND
    assert "it is gone; an earlier attempt of this call was not answered" in str(caught.value)


async def test_a_refusal_of_the_only_attempt_is_definite(broker):
    async with serving(broker, Lossy(0)) as (_, address), impatient(address) as client:
        with pytest.raises(riverrun.TopicNotFoundError) as caught:
            await client.admin().alter_topic("other", set={})
    assert caught.value.outcome_known
    assert "earlier attempt" not in str(caught.value)


async def test_a_success_after_a_lost_answer_is_one(broker):
    async with serving(broker, Lossy()) as (_, address), impatient(address) as client:
        await client.admin().alter_topic("t", set={"retention.ms": "7"})
    assert broker.topics["t"].configs == {"retention.ms": "7"}


async def test_no_broker_after_a_lost_answer_leaves_the_outcome_open(broker):
    lossy = Lossy(1_000_000)
    async with (
        serving(broker, lossy) as (server, address),
        impatient(address, connect_timeout_s=0.2) as client,
    ):
        admin = client.admin()
        altering = asyncio.create_task(admin.alter_topic("t", set={"retention.ms": "7"}))
        await lossy.lost.wait()
        await server.stop(grace=None)
        with pytest.raises(NoBrokerError) as caught:
            await altering
    assert broker.topics["t"].configs == {"retention.ms": "7"}
    assert not caught.value.outcome_known


async def test_a_partition_that_refuses_a_commit_after_a_lost_answer_leaves_it_open(broker):
    lossy = Lossy()

    async with serving(broker, lossy) as (_, address), impatient(address) as client:
        committing = asyncio.create_task(
            client.admin().commit_group_offsets("g", {TopicPartition("t", 0): 5})
        )
        await lossy.lost.wait()
        del broker.topics["t"]
        with pytest.raises(riverrun.TopicNotFoundError) as caught:
            await committing
    assert broker.commits == {("g", "t", 0): (5, "")}
    assert not caught.value.outcome_known


async def test_a_partition_that_refuses_a_trim_after_a_lost_answer_says_so(broker):
    lossy = Lossy()
    async with serving(broker, lossy) as (_, address), impatient(address) as client:
        trimming = asyncio.create_task(client.admin().trim_topic("t", {0: 0}))
        await lossy.lost.wait()
        broker.topics["t"].partitions.clear()
        (result,) = await trimming
    assert "an earlier attempt of this call was not answered" in result.error


async def test_what_only_reads_never_leaves_anything_open(broker):
    async with (
        serving(broker, Lossy(1_000_000)) as (_, address),
        impatient(address, request_timeout_s=0.3) as client,
    ):
        with pytest.raises(riverrun.RetriableError) as caught:
            await client.admin().describe_topic("t")
    assert caught.value.outcome_known


def test_every_attempt_is_remembered():
    attempts = Attempts()
    unknown = riverrun.TimedOutError("late", reason=Reason.TIMED_OUT, outcome_known=False)
    stalled = riverrun.RetriableError("not now", reason=Reason.OVERLOADED)
    nobody = NoBrokerError("nobody", reason=Reason.NO_BROKER)
    assert attempts.failed(stalled) is stalled
    assert attempts.failed(unknown) is unknown
    assert not attempts.failed(stalled).outcome_known
    assert not attempts.failed(nobody).outcome_known
    assert stalled.outcome_known, "errors of others are left alone"
