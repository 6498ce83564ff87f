"""Committed offsets in a cluster, over real streams: any broker takes them, and none is ever older."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import grpc.aio
import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import OffsetCommit
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.peer.v1 import coordination_pb2 as wire
from riverrun_server.peer.v1.coordination_pb2_grpc import CoordinationServiceStub
from riverrun_server.peer.v1.gateway_pb2 import Origin
from riverrun_server.peer.v1.replication_pb2 import PeerHello
from riverrun_server.ports.leadership import Leadership
from tests.peer.cluster_of_coordinators import DATA, Coordinators, now_ms
from tests.peer.cluster_of_replicas import PARTITION
from tests.rpc.fake_partitions import FakePartition


@pytest.fixture
async def world(cluster):
    world = Coordinators(cluster)
    await world.start()
    try:
        yield world
    finally:
        await world.stop()


async def test_what_any_broker_takes_every_broker_tells(world):
    for broker, groups in world.groups.items():
        assert await groups.commit(broker * 10, partition=broker) is None
    for groups in world.groups.values():
        assert await groups.committed() == {1: 10, 2: 20, 3: 30}
        assert await groups.committed("another") == {}


async def test_a_commit_is_committed_on_every_replica_before_it_is_answered(world):
    assert await world.groups[3].commit(5) is None
    for broker in world.cluster.brokers.values():
        assert broker.machine.durable_end == 1


async def test_commits_of_one_group_keep_their_order_through_another_broker(world):
    groups = world.groups[2]
    refusals = await asyncio.gather(*[groups.commit(offset) for offset in range(200)])
    assert set(refusals) == {None}
    assert await groups.committed() == {0: 199}
    assert await world.groups[1].committed() == {0: 199}


async def test_what_was_committed_is_told_by_the_next_coordinator(world):
    assert await world.groups[2].commit(5) is None
    for broker in (2, 3, 1):
        await world.elect(broker)
        for groups in world.groups.values():
            assert await groups.committed() == {0: 5}


async def test_no_answer_is_older_than_what_was_acknowledged_while_coordinators_move(world):
    """A client that goes from broker to broker, under elections that it hears nothing of."""
    is_over = asyncio.Event()
    acknowledged = asked = moves = 0

    async def elections():
        nonlocal moves
        while not is_over.is_set():
            await world.elect(1 + (moves + 1) % 3)
            moves += 1
            await asyncio.sleep(0.05)

    moving = asyncio.create_task(elections())
    try:
        while asked < 60 or moves < 5:
            turn = asked
            groups = world.groups[1 + turn % 3]
            asked += 1
            refusal = await groups.commit(asked)
            assert refusal is None, refusal
            acknowledged = asked
            found = await world.groups[1 + (turn * 2) % 3].committed()
            assert found == {0: acknowledged}, turn
    finally:
        is_over.set()
        await moving


async def test_a_commit_waits_for_the_coordinator_that_is_elected_when_the_old_one_dies(world):
    assert await world.groups[3].commit(5) is None
    await world.stop_one(1)
    committing = asyncio.create_task(world.groups[3].commit(6))
    reading = asyncio.create_task(world.groups[3].committed("h"))
    await asyncio.sleep(0.2)
    assert not committing.done()
    await world.elect(2)
    assert await committing is None
    assert await reading == {}
    for groups in world.groups.values():
        assert await groups.committed() == {0: 6}


async def test_a_commit_that_was_under_way_when_its_coordinator_died_is_stored_by_the_next(world):
    for broker in (2, 3):
        world.cluster.brokers[broker].links.follow({})
    committing = asyncio.create_task(world.groups[3].commit(6))
    await world.cluster.until(lambda: world.cluster.brokers[1].machine.log_end == 1)
    assert not committing.done()
    await world.stop_one(1)
    await world.elect(2)
    world.cluster.connect()
    assert await committing is None
    assert await world.groups[2].committed() == {0: 6}


async def test_who_has_lost_its_lease_and_hears_of_no_election_tells_nothing_old(world):
    old, new = world.groups[1], world.groups[2]
    assert await new.commit(5) is None
    assert await old.committed() == {0: 5}
    old.cut_off()
    for broker in (2, 3):
        world.cluster.brokers[broker].links.follow({})
    await world.elect(2)
    addresses = {each.id: each.address for each in world.cluster.brokers.values()}
    for broker, leader in ((2, 3), (3, 2)):
        world.cluster.brokers[broker].links.follow({leader: addresses[leader]})
    assert await new.commit(6) is None
    # Whoever was elected has waited for the lease to run out, and so have the others' confirmations.
    await world.cluster.until(lambda: not _may_acknowledge(old.process))
    world.brief(0.5)
    with pytest.raises(Refusal) as caught:
        await old.committed()
    assert caught.value.reason is Reason.COORDINATOR_LOADING
    assert (await old.commit(4)).reason is Reason.COORDINATOR_LOADING
    old.hear_again()
    world.cluster.connect()
    world.brief(20.0)
    assert await old.committed() == {0: 6}


def _may_acknowledge(process):
    leader = process.replicas.find(PARTITION).leader
    return leader.core.may_acknowledge(asyncio.get_running_loop().time(), 0.0)


async def test_while_offsets_are_loaded_nobody_is_told_that_there_are_none(world):
    assert await world.groups[3].commit(5) is None
    world.groups[2].threads.gate.clear()
    await world.elect(2)
    with pytest.raises(Refusal) as caught:
        await world.groups[2].offsets.coordinator.committed(PARTITION, "g")
    assert caught.value.reason is Reason.COORDINATOR_LOADING
    reading = [asyncio.create_task(each.committed()) for each in world.groups.values()]
    await asyncio.sleep(0.2)
    assert not any(each.done() for each in reading)
    world.groups[2].threads.gate.set()
    assert [await each for each in reading] == [{0: 5}] * 3


async def test_what_is_not_loaded_in_time_is_said_to_be_loading(world):
    assert await world.groups[3].commit(5) is None
    world.groups[2].threads.gate.clear()
    await world.elect(2)
    groups = world.groups[3]
    world.brief(3.0)
    with pytest.raises(Refusal, match="still reading its offsets") as caught:
        await groups.committed()
    assert caught.value.reason is Reason.COORDINATOR_LOADING
    refusal = await groups.commit(6)
    assert refusal.reason is Reason.COORDINATOR_LOADING
    assert refusal.meaning.definite
    world.groups[2].threads.gate.set()
    world.brief(20.0)
    assert await world.groups[1].committed() == {0: 5}


async def test_a_group_with_more_offsets_than_a_message_holds_is_told_whole(world):
    groups = world.groups[2]
    groups.directory.topics["d"] = [
        FakePartition("d", PartitionId(DATA.topic_id, number)) for number in range(2_000)
    ]
    commits = [
        OffsetCommit("d", b"", number, number, metadata="m" * 1_000) for number in range(2_000)
    ]
    for first in range(0, 2_000, 500):
        outcomes = await groups.offsets.commit("g", commits[first : first + 500])
        assert {each.refusal for each in outcomes} == {None}
    found = await world.groups[3].offsets.committed("g")
    assert {key.partition: value.offset for key, value in found.items()} == {
        number: number for number in range(2_000)
    }
    assert {value.metadata for value in found.values()} == {"m" * 1_000}


async def test_a_commit_too_large_for_a_message_is_refused_before_it_is_sent(world):
    groups = world.groups[2]
    groups.directory.topics["d"] = [
        FakePartition("d", PartitionId(DATA.topic_id, number)) for number in range(1_000)
    ]
    commits = [OffsetCommit("d", b"", number, 0, metadata="m" * 4_000) for number in range(1_000)]
    [refusal] = {each.refusal for each in await groups.offsets.commit("g", commits)}
    assert refusal.reason is Reason.LIMIT_EXCEEDED
    assert await groups.committed() == {}


# What a coordinator refuses, asked by hand.


def call(call_id, *, hops=1, leader_epoch=1, expires_in_ms=10_000, offset=None, metadata=""):
    """Return a call about group `g` that is about partition 0 of the data."""
    asked = wire.CoordinatorCall(
        call_id=call_id,
        origin=Origin(hops=hops),
        topic_id=PARTITION.topic_id,
        partition=PARTITION.partition,
        leader_epoch=leader_epoch,
        group_id="g",
        expires_at_ms=now_ms() + expires_in_ms,
    )
    if offset is None:
        asked.tell.SetInParent()
    else:
        kept = wire.KeptOffset(topic_id=DATA.topic_id, offset=offset, metadata=metadata)
        asked.store.offsets.append(kept)
    return asked


class Gateway:
    """A stream to a coordinator, by hand; it says that it is broker 9."""

    def __init__(self, channel, *, cluster="cluster", broker=9, epoch=99):
        self.stream = CoordinationServiceStub(channel).Coordinate()
        self.hello = PeerHello(
            cluster_id=cluster, broker_id=broker, broker_epoch=epoch, now_ms=now_ms()
        )

    async def greet(self):
        await self.stream.write(wire.CoordinateRequest(hello=self.hello))
        return await self.stream.read()

    async def ask(self, asked):
        await self.stream.write(wire.CoordinateRequest(call=asked))
        return (await self.stream.read()).answer


@pytest.fixture
async def channels(world):
    async with contextlib.AsyncExitStack() as stack:
        yield {
            broker: await stack.enter_async_context(grpc.aio.insecure_channel(groups.address))
            for broker, groups in world.groups.items()
        }


async def test_who_does_not_coordinate_a_group_passes_nothing_on(world, channels):
    gateway = Gateway(channels[2])
    await gateway.greet()
    answer = await gateway.ask(call(1, offset=5))
    assert answer.refused.reason == Reason.NOT_LEADER
    assert answer.refused.definite
    assert await world.groups[1].committed() == {}


async def test_offsets_are_kept_nowhere_but_in_their_topic(world, channels):
    gateway = Gateway(channels[1])
    await gateway.greet()
    elsewhere = call(1, offset=5)
    elsewhere.topic_id = DATA.topic_id
    assert (await gateway.ask(elsewhere)).refused.reason == Reason.NOT_LEADER
    # Also where this broker leads that partition.
    groups = world.groups[1]
    groups.leaderships.believed = Leadership(1, 1, groups.partition)
    elsewhere.call_id = 2
    assert (await gateway.ask(elsewhere)).refused.reason == Reason.NOT_LEADER
    assert groups.process.machine.log_end == 0


async def test_what_was_passed_on_before_is_refused(channels):
    gateway = Gateway(channels[1])
    await gateway.greet()
    answer = await gateway.ask(call(1, hops=2, offset=5))
    assert answer.refused.reason == Reason.INVALID_REQUEST
    assert (await gateway.ask(call(2, offset=5))).HasField("stored")


async def test_a_call_of_another_leader_epoch_is_refused(world, channels):
    assert await world.groups[1].commit(5) is None
    await world.elect(2)
    await world.groups[2].committed()
    gateway = Gateway(channels[2])
    await gateway.greet()
    older = await gateway.ask(call(1, leader_epoch=1, offset=4))
    newer = await gateway.ask(call(2, leader_epoch=3))
    assert older.refused.reason == Reason.FENCED_LEADER_EPOCH
    assert newer.refused.reason == Reason.UNKNOWN_LEADER_EPOCH
    assert await world.groups[3].committed() == {0: 5}


async def test_a_call_that_comes_after_its_caller_was_answered_is_passed_over(world, channels):
    gateway = Gateway(channels[1])
    await gateway.greet()
    answer = await gateway.ask(call(1, offset=5, expires_in_ms=-1_000))
    assert answer.refused.reason == Reason.REQUEST_TIMED_OUT
    assert await world.groups[1].committed() == {}


async def test_a_newer_stream_ends_the_older_one_before_it_begins(world, channels):
    older, newer = Gateway(channels[1]), Gateway(channels[1])
    await older.greet()
    await newer.greet()
    # Whatever the older one still carries has no effect.
    with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
        await older.stream.write(wire.CoordinateRequest(call=call(1, offset=4)))
    assert (await newer.ask(call(1, offset=5))).HasField("stored")
    # gRPC says INTERNAL where it was still writing.
    ended = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
    assert await older.stream.code() in ended
    assert await world.groups[1].committed() == {0: 5}


async def test_an_earlier_process_of_a_broker_does_not_end_the_stream_of_a_later_one(
    world, channels
):
    later, earlier = Gateway(channels[1]), Gateway(channels[1], epoch=98)
    await later.greet()
    with pytest.raises(grpc.aio.AioRpcError, match="it has been replaced"):
        await earlier.greet()
    assert (await later.ask(call(1, offset=5))).HasField("stored")
    assert await world.groups[1].committed() == {0: 5}


@pytest.mark.parametrize("stranger", [{"cluster": "another"}, {"broker": 1}])
async def test_a_stranger_is_not_heard(channels, stranger):
    gateway = Gateway(channels[1], **stranger)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.greet()
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_what_no_version_says_ends_the_stream(channels):
    gateway = Gateway(channels[1])
    await gateway.greet()
    broken = call(1, offset=5)
    broken.topic_id = b"short"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.ask(broken)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_only_a_newer_version_asks_is_refused_and_the_stream_goes_on(world, channels):
    gateway = Gateway(channels[1])
    await gateway.greet()
    newer = call(1)
    newer.ClearField("tell")
    # A message in field 1000, empty.
    newer.MergeFromString(b"\xc2\x3e\x00")
    answer = await gateway.ask(newer)
    assert answer.refused.reason == Reason.INVALID_REQUEST
    assert answer.refused.definite
    assert "older version" in answer.refused.message
    assert (await gateway.ask(call(2, offset=5))).HasField("stored")
    assert await world.groups[1].committed() == {0: 5}


async def test_a_gateway_that_reads_no_answers_is_not_asked_for_more(world, channels):
    world.groups[1].service.under_way_max = 5
    cluster = world.cluster
    for broker in (2, 3):
        cluster.brokers[broker].links.follow({})
    gateway = Gateway(channels[1])
    await gateway.greet()
    for number in range(20):
        await gateway.stream.write(wire.CoordinateRequest(call=call(number + 1, offset=number)))
    [served] = world.groups[1].service._streams.values()
    await cluster.until(lambda: served._under_way == 5)
    cluster.connect()
    answers = [(await gateway.stream.read()).answer for _ in range(20)]
    assert [each.call_id for each in answers if each.HasField("stored")] == list(range(1, 21))
    assert await world.groups[1].committed() == {0: 19}
