"""Members of groups on a cluster of real brokers, made of generated stubs alone."""

from __future__ import annotations

import asyncio
import os
import signal

import grpc
import pytest

from riverrun.v1 import consumer_pb2 as c
from riverrun.v1 import group_pb2 as g
from riverrun.v1.admin_pb2 import AddPartitionsRequest, CreateTopicRequest
from riverrun.v1.admin_pb2_grpc import AdminServiceStub
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.errors_pb2 import ErrorReason as E
from riverrun.v1.group_pb2_grpc import GroupServiceStub
from riverrun.v1.producer_pb2 import ProduceRequest
from riverrun.v1.producer_pb2_grpc import ProducerServiceStub
from riverrun.v1.records_pb2 import Record
from tests.cluster.stub_member import StubMember, shared

PARTITIONS = 6


class Stubs:
    """What tests ask of one broker."""

    def __init__(self, address):
        self.channel = grpc.aio.insecure_channel(address)
        self.admin = AdminServiceStub(self.channel)
        self.groups = GroupServiceStub(self.channel)
        self.consumer = ConsumerServiceStub(self.channel)
        self.producer = ProducerServiceStub(self.channel)

    async def create(self, topic, partitions=PARTITIONS):
        await self.admin.CreateTopic(CreateTopicRequest(topic=topic, partitions=partitions))

    async def produce(self, topic, partition, *values):
        records = [Record(value=each) for each in values]
        await self.producer.Produce(
            ProduceRequest(topic=topic, partition=partition, records=records)
        )

    async def describe(self, group):
        return await self.groups.DescribeGroup(g.DescribeGroupRequest(group_id=group))

    async def committed(self, group, topic):
        found = await self.consumer.FetchOffsets(c.FetchOffsetsRequest(group_id=group))
        return {
            each.partition: each.committed.offset for each in found.offsets if each.topic == topic
        }


@pytest.fixture
async def stubs(shared_cluster):
    """Everything, at each of the brokers."""
    all_of_them = {n: Stubs(each.address) for n, each in shared_cluster.brokers.items()}
    yield all_of_them
    for each in all_of_them.values():
        await each.channel.close()


@pytest.fixture
async def topic(stubs, request):
    """A topic of the test's own, with a record in each partition."""
    name = "".join(each if each.isalnum() else "-" for each in request.node.name)[:60]
    await stubs[1].create(name)
    for partition in range(PARTITIONS):
        await stubs[1].produce(name, partition, b"%d" % partition)
    return name


def address(cluster, broker):
    return cluster.brokers[broker].address


async def test_members_at_any_brokers_share_partitions_and_each_record_goes_to_one(
    shared_cluster, stubs, topic
):
    a = StubMember(address(shared_cluster, 1), topic, topic)
    b = StubMember(address(shared_cluster, 2), topic, topic)
    async with a:
        await shared(a, partitions=PARTITIONS)
        await a.until(lambda: len(a.values) == PARTITIONS)
        assert await a.commit_everything() == {}
        kept = dict(a.owned)
        async with b:
            await shared(a, b, partitions=PARTITIONS)
            assert a.owned.items() <= kept.items(), "what it keeps has not moved"
            for partition in range(PARTITIONS):
                await stubs[3].produce(topic, partition, b"later %d" % partition)
            later = PARTITIONS * 2
            await a.until(lambda: len(a.values) + len(b.values) == later)
            assert len(set(a.values + b.values)) == later
            await b.leave()
            assert b.error is None
            await shared(a, partitions=PARTITIONS, within_s=5)


async def test_what_is_committed_by_a_member_is_where_the_next_one_begins(
    shared_cluster, stubs, topic
):
    async with StubMember(address(shared_cluster, 1), topic, topic) as a:
        await a.until(lambda: len(a.values) == PARTITIONS)
        assert await a.commit_everything() == {}
        await a.leave()
    async with StubMember(address(shared_cluster, 3), topic, topic) as b:
        await shared(b, partitions=PARTITIONS)
        assert b.positions == dict.fromkeys(range(PARTITIONS), 1)
        assert b.values == []
    assert await stubs[2].committed(topic, topic) == dict.fromkeys(range(PARTITIONS), 1)


async def test_a_member_that_is_killed_is_missed_after_its_session_timeout(shared_cluster, topic):
    session = {"session_timeout": {"seconds": 2}}
    a = StubMember(address(shared_cluster, 1), topic, topic, **session)
    b = StubMember(address(shared_cluster, 2), topic, topic, **session)
    async with a, b:
        await shared(a, b, partitions=PARTITIONS)
        begin = asyncio.get_running_loop().time()
        await b.cut()
        await shared(a, partitions=PARTITIONS, within_s=10)
        took_s = asyncio.get_running_loop().time() - begin
        assert 1.0 < took_s < 3.5


async def test_a_member_that_resumes_elsewhere_keeps_what_it_has(shared_cluster, topic):
    a = StubMember(address(shared_cluster, 1), topic, topic)
    b = StubMember(address(shared_cluster, 2), topic, topic)
    async with a, b:
        await shared(a, b, partitions=PARTITIONS)
        had, others = dict(b.owned), dict(a.owned)
        await b.resume(address(shared_cluster, 3))
        await b.until(lambda: b.owned == had)
        assert a.owned == others
        assert a.epoch == max(a.epoch, *others.values())


async def test_a_static_member_that_comes_back_in_time_moves_nothing(shared_cluster, topic):
    a = StubMember(address(shared_cluster, 1), topic, topic, instance_id="a")
    b = StubMember(address(shared_cluster, 2), topic, topic, instance_id="b")
    async with a, b:
        await shared(a, b, partitions=PARTITIONS)
        had, epoch = dict(b.owned), a.epoch
        other = StubMember(address(shared_cluster, 3), topic, topic, instance_id="b")
        await other.join()
        await asyncio.wait_for(other.ended.wait(), 10)
        assert "instance id 'b'" in other.error.details()
        await other.cut()
        await b.leave(temporary=True)
        again = StubMember(address(shared_cluster, 3), topic, topic, instance_id="b")
        async with again:
            await again.until(lambda: again.owned == had)
            assert again.member.member_id == b.member.member_id
            assert a.epoch == epoch, "it was told nothing"


async def test_a_half_closed_member_gives_up_by_itself_and_leaves_with_its_stream(
    shared_cluster, topic
):
    a = StubMember(address(shared_cluster, 1), topic, topic, acknowledges=False)
    b = StubMember(address(shared_cluster, 2), topic, topic)
    async with a:
        await shared(a, partitions=PARTITIONS)
        await a.half_close()
        async with b:
            await b.until(lambda: len(b.owned) == PARTITIONS // 2)
            begin = asyncio.get_running_loop().time()
            await a.cut()
            await shared(b, partitions=PARTITIONS, within_s=5)
            assert asyncio.get_running_loop().time() - begin < 4, "less than a session timeout"


async def test_a_slow_member_holds_up_only_what_it_is_to_give_up(shared_cluster, stubs, topic):
    a = StubMember(address(shared_cluster, 1), topic, topic, acknowledges=False)
    b = StubMember(address(shared_cluster, 2), topic, topic)
    async with a:
        await shared(a, partitions=PARTITIONS)
        async with b:
            await a.until(lambda: len(a.revoking) == PARTITIONS // 2)
            kept = next(iter(a.owned))
            before = len(a.records[kept])
            await stubs[1].produce(topic, kept, b"goes on")
            await a.until(lambda: len(a.records[kept]) == before + 1)
            assert b.owned == {}
            assert await a.commit(dict.fromkeys(a.revoking, 1)) == {}
            await a.acknowledge()
            await shared(a, b, partitions=PARTITIONS)


async def test_partitions_that_are_added_flow_in_by_themselves(shared_cluster, stubs, topic):
    async with StubMember(address(shared_cluster, 2), topic, topic) as a:
        await shared(a, partitions=PARTITIONS)
        await stubs[1].admin.AddPartitions(AddPartitionsRequest(topic=topic, partitions=8))
        await shared(a, partitions=8)


async def test_a_heartbeat_is_echoed_once_the_coordinator_knows(shared_cluster, topic):
    async with StubMember(address(shared_cluster, 1), topic, topic) as a:
        await a.until(lambda: a.confirmed_heartbeat > 0)


async def test_a_commit_for_what_a_member_has_not_is_refused_for_that_partition_alone(
    shared_cluster, stubs, topic
):
    a = StubMember(address(shared_cluster, 1), topic, topic)
    b = StubMember(address(shared_cluster, 2), topic, topic)
    async with a, b:
        await shared(a, b, partitions=PARTITIONS)
        errors = await a.commit(dict.fromkeys(range(PARTITIONS), 1))
        assert errors == dict.fromkeys(b.owned, E.ERROR_REASON_PARTITION_NOT_ASSIGNED)
        by_nobody = await stubs[3].consumer.CommitOffset(
            c.CommitOffsetRequest(
                group_id=topic, offsets=[c.OffsetCommit(topic=topic, partition=0, offset=0)]
            )
        )
        assert by_nobody.results[0].error.reason == E.ERROR_REASON_GROUP_HAS_MEMBERS
        mine = next(iter(a.owned))
        by_call = await stubs[3].consumer.CommitOffset(
            c.CommitOffsetRequest(
                group_id=topic,
                offsets=[c.OffsetCommit(topic=topic, partition=mine, offset=0)],
                member_id=a.member.member_id,
                member_epoch=a.epoch,
            )
        )
        assert not by_call.results[0].HasField("error")


async def test_a_live_group_is_reset_and_goes_on_there_without_a_restart(
    shared_cluster, stubs, topic
):
    a = StubMember(address(shared_cluster, 1), topic, topic)
    b = StubMember(address(shared_cluster, 2), topic, topic)
    async with a, b:
        await shared(a, b, partitions=PARTITIONS)
        await a.until(lambda: len(a.values) + len(b.values) >= PARTITIONS)
        for each in (a, b):
            assert await each.commit_everything() == {}
        target = g.OffsetTarget(topic=topic)
        setattr(target, "from", c.FROM_EARLIEST)
        asked = g.ResetOffsetsRequest(group_id=topic, targets=[target])
        asked.validate_only = True
        planned = await stubs[3].groups.ResetOffsets(asked)
        asked.validate_only = False
        done = await stubs[3].groups.ResetOffsets(asked)
        assert done == planned
        assert {(each.old_offset, each.new_offset) for each in done.moves} == {(1, 0)}
        await a.until(lambda: len(a.values) + len(b.values) >= 2 * PARTITIONS)
        await shared(a, b, partitions=PARTITIONS)
        seen = sorted(a.values + b.values)
        assert seen == sorted([b"%d" % n for n in range(PARTITIONS)] * 2)


async def test_a_group_is_shown_with_who_has_what_and_how_far_it_is_behind(
    shared_cluster, stubs, topic
):
    a = StubMember(address(shared_cluster, 1), topic, topic, client_id="billing", rack="r1")
    async with a:
        await shared(a, partitions=PARTITIONS)
        await a.until(lambda: len(a.values) == PARTITIONS)
        assert await a.commit({0: 1, 1: 0}) == {}
        shown = await stubs[2].describe(topic)
        assert shown.state == g.GROUP_STATE_STABLE
        (member,) = shown.members
        assert (member.client_id, member.rack, member.gateway) == ("billing", "r1", 1)
        assert member.state == g.MEMBER_STATE_ATTACHED
        assert [each.partition for each in member.owned] == list(range(PARTITIONS))
        assert [each.member_id for each in shown.partitions] == [member.member_id] * PARTITIONS
        lags = [each.lag_records for each in shown.partitions]
        assert lags == [0, 1, 1, 1, 1, 1]
        assert shown.partitions[0].lag_time.ToMilliseconds() == 0
        assert shown.partitions[1].lag_time.ToMilliseconds() > 0
        listed = await stubs[3].groups.ListGroups(g.ListGroupsRequest(page_size=1000))
        assert {each.group_id: each.members for each in listed.groups}[topic] == 1
        assert not listed.silent
        removed = await stubs[2].groups.RemoveMember(
            g.RemoveMemberRequest(group_id=topic, member_id=member.member_id)
        )
        assert removed.member_id == member.member_id
        await asyncio.wait_for(a.ended.wait(), 10)
        assert "an operator has removed it" in a.error.details()
    await stubs[2].groups.DeleteGroup(g.DeleteGroupRequest(group_id=topic))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stubs[1].describe(topic)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_whoever_has_the_token_can_let_a_member_go_by_a_call(shared_cluster, stubs, topic):
    async with StubMember(address(shared_cluster, 1), topic, topic) as a:
        await shared(a, partitions=PARTITIONS)
        await stubs[2].consumer.LeaveGroup(
            c.LeaveGroupRequest(group_id=topic, member_id=a.member.member_id, token=a.member.token)
        )
        await asyncio.wait_for(a.ended.wait(), 10)
        assert a.error.code() is grpc.StatusCode.FAILED_PRECONDITION


async def coordinator_of(stubs, group):
    return (await stubs.describe(group)).coordinator


async def test_the_death_of_a_coordinator_moves_nothing_and_takes_no_commit_back(cluster):
    """And that of a gateway costs its member a resume."""
    stubs = {n: Stubs(each.address) for n, each in cluster.brokers.items()}
    try:
        await stubs[1].create("t")
        for partition in range(PARTITIONS):
            await stubs[1].produce("t", partition, b"x")
        members = [
            StubMember(address(cluster, n), "g", "t", session_timeout={"seconds": 20})
            for n in (1, 2, 3)
        ]
        for each in members:
            await each.join()
        await shared(*members, partitions=PARTITIONS)
        for each in members:
            assert await each.commit_everything() == {}
        had = {each.member.member_id: dict(each.owned) for each in members}
        dead = await coordinator_of(stubs[1], "g")
        await asyncio.to_thread(cluster.brokers[dead].kill9)
        (orphan,) = [each for each in members if each.address == address(cluster, dead)]
        alive = [each for each in members if each is not orphan]
        await asyncio.wait_for(orphan.ended.wait(), 10)
        await orphan.resume(alive[0].address)
        await orphan.until(lambda: orphan.owned == had[orphan.member.member_id])
        for each in alive:
            assert not each.ended.is_set(), each.error
            assert each.owned == had[each.member.member_id]
            assert await each.commit_everything() == {}
            assert each.lost == []
        other = next(n for n in cluster.brokers if n != dead)
        shown = await stubs[other].describe("g")
        assert shown.coordinator not in {0, dead}
        assert len(shown.members) == len(members)
        for each in members:
            await each.cut()
    finally:
        for each in stubs.values():
            await each.channel.close()


async def test_a_gateway_that_hangs_delivers_nothing_more_once_others_may_have_it(cluster):
    stubs = {n: Stubs(each.address) for n, each in cluster.brokers.items()}
    try:
        await stubs[1].create("t")
        session = {"session_timeout": {"seconds": 3}}
        probe = StubMember(address(cluster, 1), "g", "t", **session)
        await probe.join()
        coordinator = await coordinator_of(stubs[1], "g")
        await probe.leave()
        hangs, stays = [n for n in cluster.brokers if n != coordinator]
        a = StubMember(address(cluster, hangs), "g", "t", **session)
        b = StubMember(address(cluster, stays), "g", "t", **session)
        await a.join()
        await b.join()
        await shared(a, b, partitions=PARTITIONS)
        os.kill(cluster.brokers[hangs].pid, signal.SIGSTOP)
        try:
            # Its partitions are led elsewhere soon, and its member is silent for too long.
            await b.until(lambda: len(b.owned) == PARTITIONS, 30)
        finally:
            os.kill(cluster.brokers[hangs].pid, signal.SIGCONT)
        await asyncio.wait_for(a.ended.wait(), 30)
        assert a.error.code() in {
            grpc.StatusCode.FAILED_PRECONDITION,
            grpc.StatusCode.UNAVAILABLE,
        }
        await a.cut()
        await b.cut()
    finally:
        for each in stubs.values():
            await each.channel.close()
