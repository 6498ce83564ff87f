"""The cluster over gRPC: how it is, preferred leaders elected, brokers drained, or why not."""

from __future__ import annotations

import dataclasses

import grpc
import pytest

from riverrun.v1 import admin_pb2 as a
from riverrun.v1 import errors_pb2 as e
from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.changes import TopicPolicy
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    ControllerValue,
    Incarnations,
    LiveProcess,
    PartitionValue,
    Replica,
    TopicValue,
)
from riverrun_server.core.limits import Limits
from riverrun_server.ports.metadata import Delete, Put, Transaction
from tests.core.cluster_world import make_id
from tests.rpc.catalog_service import failed, served
from tests.runtime.catalog_world import LIVES, CatalogWorld

OTHERS = {broker: Incarnations(make_id(broker), make_id(broker + 50)) for broker in (2, 3)}
TOPIC = make_id(0x700)


class Cluster:
    """The broker that is served, and the metadata that others would have written."""

    def __init__(self, broker):
        self.broker = broker
        self.admin = broker.admin
        self.image = broker.catalog._image

    async def write(self, **values):
        """Put values, or with None delete keys; return once the broker has applied it."""
        documents, dice = self.broker.world.documents, self.broker.world.dice
        changes = [
            Delete(key) if value is None else Put(key, documents.encode(value, dice.token(8)))
            for key, value in values.items()
        ]
        result = await self.broker.world.store.transact(Transaction((), tuple(changes)))
        await self.broker.catalog._applied.reached(result.revision)

    async def register(self, broker, **fields):
        found = self.image.brokers.get(broker)
        value = (
            found.value
            if found
            else BrokerRegistration(
                broker_id=broker,
                incarnations=OTHERS[broker],
                endpoints={"clients": f"b{broker}:7171", "inner": f"b{broker}:7272"},
                peer_endpoint=f"b{broker}:7373",
                rack=f"r{broker}",
                host=f"m{broker}",
                start_time_ms=1_000 + broker,
            )
        )
        if found:
            epoch = value.broker_epoch or found.mod_revision
            value = dataclasses.replace(value, broker_epoch=epoch)
        live = LiveProcess(incarnation=value.incarnations.fsync)
        value = dataclasses.replace(value, **fields)
        await self.write(**{keys.broker(broker): value, keys.live(broker): live})

    def epoch(self, broker):
        found = self.image.brokers[broker]
        return found.value.broker_epoch or found.mod_revision

    async def topic(self, *partitions):
        """Make topic t of (leader, replicas, ISR) in turn."""
        topic = TopicValue(
            topic="t", topic_id=TOPIC, partitions=len(partitions), replication_factor=3
        )
        lives = {1: LIVES, **OTHERS}
        values = {
            keys.partition(TOPIC, number): PartitionValue(
                leader=leader,
                leader_epoch=4,
                leader_broker_epoch=self.epoch(leader),
                partition_epoch=9,
                replicas=tuple(replicas),
                isr=tuple(Replica(each, lives[each].fsync) for each in isr),
                min_isr=2,
            )
            for number, (leader, replicas, isr) in enumerate(partitions)
        }
        await self.write(**values, **{keys.topic("t"): topic})

    def partition(self, number):
        return self.image.partitions[TOPIC][number].value


@pytest.fixture
async def cluster():
    async with served() as broker:
        cluster = Cluster(broker)
        await cluster.register(2)
        await cluster.register(3)
        yield cluster


async def elect(cluster, *targets):
    return await cluster.admin.ElectLeaders(a.ElectLeadersRequest(targets=targets))


# --- DescribeCluster


async def test_the_cluster_is_described_with_its_brokers_and_what_they_have(cluster):
    controller = ControllerValue(broker_id=2, broker_epoch=cluster.epoch(2))
    await cluster.write(**{keys.CONTROLLER: controller})
    await cluster.topic((1, (1, 2, 3), (1, 2, 3)), (2, (3, 1, 2), (1, 2, 3)))
    told = await cluster.admin.DescribeCluster(a.DescribeClusterRequest())
    assert told.cluster_id == cluster.broker.catalog.cluster_id
    assert told.revision == cluster.broker.catalog.revision
    assert (told.served_by, told.controller) == (1, 2)
    assert (told.topics, told.partitions) == (1, 2)
    assert not told.lacking
    first, second, third = told.brokers
    assert second == a.BrokerDescription(
        broker_id=2,
        endpoint="b2:7171",
        endpoints={"clients": "b2:7171", "inner": "b2:7272"},
        peer_endpoint="b2:7373",
        rack="r2",
        host="m2",
        broker_epoch=cluster.epoch(2),
        start_time_ms=1_002,
        controller=True,
        alive=True,
        leaders=1,
        replicas=2,
        in_sync_replicas=2,
    )
    assert (first.leaders, first.preferred_leaders) == (1, 1)
    assert (third.leaders, third.preferred_leaders) == (0, 1)


async def test_what_partitions_lack_is_counted_and_told_the_worst_first(cluster):
    await cluster.topic(
        (1, (1, 2, 3), (1, 2, 3)),
        (1, (1, 2, 3), (1, 2)),
        (1, (1, 2, 3), (1,)),
        (2, (2, 1, 3), (2, 1)),
    )
    await cluster.register(2, fenced=True)
    await cluster.write(**{keys.live(2): None})
    cluster.broker.catalog.topics.partition("t", b"", 1).lags = {2: 0, 3: 9}
    told = await cluster.admin.DescribeCluster(a.DescribeClusterRequest())
    lags = [{lag.broker_id: lag.lag for lag in each.lags} for each in told.lacking]
    # Of those in sync nothing is told, nor where nobody leads.
    assert lags == [{}, {}, {3: 9}]
    assert told.offline_partitions == 1
    assert told.under_min_isr_partitions == 1
    assert told.under_replicated_partitions == 3
    assert [(each.partition, each.leader) for each in told.lacking] == [(3, -1), (2, 1), (1, 1)]
    assert told.lacking[0] == a.LackingPartition(
        topic="t",
        partition=3,
        leader=-1,
        leader_epoch=4,
        partition_epoch=9,
        replicas=[2, 1, 3],
        in_sync_replicas=[2, 1],
        min_in_sync_replicas=2,
    )
    assert [(each.fenced, each.alive) for each in told.brokers] == [
        (False, True),
        (True, False),
        (False, True),
    ]


async def test_a_broker_that_is_alone_controls_nothing_and_is_well():
    async with served() as broker:
        told = await broker.admin.DescribeCluster(a.DescribeClusterRequest())
        assert told.controller == -1
        (member,) = told.brokers
        assert (member.broker_id, member.alive, member.controller) == (1, True, False)


async def test_a_topic_is_described_with_its_epochs_and_who_may_lead_though_not_in_sync(cluster):
    await cluster.topic((1, (1, 2, 3), (1,)))
    value = dataclasses.replace(
        cluster.partition(0), elr=(Replica(2, OTHERS[2].fsync),), partition_epoch=10
    )
    await cluster.write(**{keys.partition(TOPIC, 0): value})
    told = await cluster.admin.DescribeTopic(a.DescribeTopicRequest(topic="t"))
    (partition,) = told.partitions
    assert list(partition.eligible_leader_replicas) == [2]
    assert (partition.leader_epoch, partition.partition_epoch) == (4, 10)
    assert partition.min_in_sync_replicas == 2


# --- ElectLeaders


async def test_preferred_leaders_are_elected_and_each_partition_has_its_result(cluster):
    await cluster.topic(
        (2, (1, 2, 3), (1, 2, 3)),
        (1, (1, 2, 3), (1, 2, 3)),
        (2, (3, 1, 2), (1, 2)),
    )
    told = await elect(cluster, a.ElectionTarget(topic="t"), a.ElectionTarget(topic="u"))
    moved, unchanged, behind, missing = told.results
    assert moved == a.ElectionResult(
        topic="t", partition=0, outcome=a.ELECTION_OUTCOME_ELECTED, leader=1, leader_epoch=5
    )
    assert unchanged.outcome == a.ELECTION_OUTCOME_UNCHANGED
    assert (unchanged.leader, unchanged.leader_epoch) == (1, 4)
    assert behind.outcome == a.ELECTION_OUTCOME_FAILED
    assert (behind.partition, behind.leader) == (2, 2)
    assert behind.error.reason == e.ERROR_REASON_PREFERRED_LEADER_NOT_AVAILABLE
    assert missing.error.reason == e.ERROR_REASON_TOPIC_NOT_FOUND
    assert not missing.HasField("partition")
    assert cluster.partition(0).leader_broker_epoch == cluster.epoch(1)
    # What took effect is served already.
    assert cluster.broker.catalog.topics.find("t").leaders == (1, 1, 2)


async def test_without_targets_everything_is_elected_and_what_was_well_is_left_out(cluster):
    await cluster.topic((2, (1, 2), (1, 2)), (1, (1, 2), (1, 2)), (2, (3, 2), (2,)))
    told = await elect(cluster)
    assert [(each.partition, each.outcome) for each in told.results] == [
        (0, a.ELECTION_OUTCOME_ELECTED),
        (2, a.ELECTION_OUTCOME_FAILED),
    ]
    assert not told.left


async def test_one_call_elects_for_a_bounded_number_and_says_how_many_are_left():
    world = CatalogWorld(policy=TopicPolicy(limits=Limits(max_partitions_per_call=2)))
    async with served(world) as broker:
        cluster = Cluster(broker)
        await cluster.register(2)
        await cluster.topic(*[(2, (1, 2), (1, 2))] * 3, (1, (1, 2), (1, 2)), (1, (2, 1), (1,)))
        for targets in ((), (a.ElectionTarget(topic="t"),)):
            told = await elect(cluster, *targets)
            if not targets:
                assert told.left == 1
                assert [each.partition for each in told.results] == [0, 1]
            else:
                assert told.left == 0
                assert [each.partition for each in told.results] == [0, 1, 2, 3, 4]
        refused = await failed(elect(cluster, *[a.ElectionTarget(topic="t")] * 3))
        assert refused.error.reason == e.ERROR_REASON_LIMIT_EXCEEDED


# --- DrainBroker


async def drain(cluster, broker, **fields):
    return await cluster.admin.DrainBroker(a.DrainBrokerRequest(broker_id=broker, **fields))


async def test_a_broker_is_drained_and_let_serve_again(cluster):
    await cluster.topic((2, (2, 1, 3), (1, 2, 3)))
    epoch = cluster.epoch(2)
    told = await drain(cluster, 2)
    assert told.changed
    assert told.broker.draining
    assert (told.broker.leaders, told.broker.in_sync_replicas) == (1, 1)
    assert (told.stranded_partitions, told.short_partitions) == (0, 0)
    assert cluster.epoch(2) == told.broker.broker_epoch == epoch
    again = await drain(cluster, 2)
    assert (again.changed, again.broker) == (False, told.broker)
    told = await drain(cluster, 2, undo=True)
    assert (told.changed, told.broker.draining) == (True, False)
    assert not (await drain(cluster, 2, undo=True)).changed
    assert cluster.epoch(2) == epoch


async def test_what_draining_would_cost_is_refused_and_had_with_force(cluster):
    await cluster.topic((2, (2, 1, 3), (2,)), (1, (1, 2, 3), (1, 2)))
    refused = await failed(drain(cluster, 2))
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refused.error.reason == e.ERROR_REASON_BROKER_NEEDED
    assert refused.error.outcome == e.OUTCOME_NOTHING_HAPPENED
    assert "1 without a leader once it ends (t[0])" in refused.error.message
    assert "1 with too few replicas in sync to be written (t[1])" in refused.error.message
    assert not cluster.image.brokers[2].value.draining
    told = await drain(cluster, 2, force=True)
    assert (told.changed, told.stranded_partitions, told.short_partitions) == (True, 1, 1)


async def test_a_broker_that_is_not_there_fenced_or_the_last_is_not_drained(cluster):
    refused = await failed(drain(cluster, 9))
    assert refused.code is grpc.StatusCode.NOT_FOUND
    assert refused.error.reason == e.ERROR_REASON_BROKER_NOT_FOUND
    await cluster.register(2, fenced=True)
    assert (await failed(drain(cluster, 2))).error.reason == e.ERROR_REASON_BROKER_FENCED
    await drain(cluster, 3)
    refused = await failed(drain(cluster, 1, force=True))
    assert refused.error.reason == e.ERROR_REASON_BROKER_NEEDED
    assert "the last one that serves" in refused.error.message


async def test_a_broker_that_starts_says_that_it_is_not_ready():
    async with served(run=False) as broker:
        for call in (
            broker.admin.DescribeCluster(a.DescribeClusterRequest()),
            broker.admin.ElectLeaders(a.ElectLeadersRequest()),
            broker.admin.DrainBroker(a.DrainBrokerRequest(broker_id=1)),
        ):
            refused = await failed(call)
            assert refused.error.reason == e.ERROR_REASON_NOT_READY
            assert refused.error.retry_safe
