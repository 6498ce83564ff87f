"""The methods of AdminService that are about brokers: how the cluster is, elections, draining."""

from __future__ import annotations

from typing import Any, Final

import grpc.aio

from riverrun.v1 import admin_pb2
from riverrun.v1.admin_pb2 import (
    BrokerDescription,
    ElectionResult,
    LackingPartition,
    ReplicaLag,
)
from riverrun_server.core.cluster import health
from riverrun_server.core.cluster.health import ClusterHealth, Lack, Share
from riverrun_server.core.cluster.preferred_elections import Prospect, Target
from riverrun_server.core.cluster.standing import broker_epoch
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.rpc.caller import CALLER
from riverrun_server.rpc.errors import to_proto
from riverrun_server.rpc.replica_lags import lags_of
from riverrun_server.rpc.reply_size import check_size
from riverrun_server.runtime import cluster_changes
from riverrun_server.runtime.catalog import Catalog
from riverrun_server.runtime.metadata_changes import MetadataChanges
from riverrun_server.runtime.served_topics import NO_LEADER

# Of so many partitions that lack something it is told; with long names they take half a MiB.
_LACKING_MAX: Final = 1_000
_NO_CONTROLLER: Final = -1

_Context = grpc.aio.ServicerContext[Any, Any]


class ClusterAdmin:
    """Serves its part of riverrun.v1.AdminService from a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def describe_cluster(
        self, _: admin_pb2.DescribeClusterRequest, __: _Context
    ) -> admin_pb2.DescribeClusterResponse:
        """Tell the brokers, and which partitions lack a leader or replicas, and by how much."""
        image = self._changes().image
        found = health.health(image)
        lacking = [_lacking(each) for each in found.lacking[:_LACKING_MAX]]
        response = admin_pb2.DescribeClusterResponse(
            cluster_id=self._catalog.cluster_id,
            revision=image.revision,
            served_by=self._catalog.broker_id,
            controller=self._controller(),
            brokers=[self._broker(broker, found) for broker in sorted(image.brokers)],
            topics=found.topics,
            partitions=found.partitions,
            offline_partitions=found.lacks[Lack.LEADER],
            under_min_isr_partitions=found.lacks[Lack.MIN_ISR],
            under_replicated_partitions=found.lacks[Lack.REPLICAS],
        )
        await self._tell_lags(lacking)
        response.lacking.extend(lacking)
        limits = self._catalog.policy.limits
        check_size(response, limits, "the description of the cluster", "ask for its metadata")
        return response

    async def elect_leaders(
        self, request: admin_pb2.ElectLeadersRequest, _: _Context
    ) -> admin_pb2.ElectLeadersResponse:
        """Elect preferred leaders."""
        changes, limits = self._changes(), self._catalog.policy.limits
        if len(request.targets) > limits.max_partitions_per_call:
            raise Refusal(
                Reason.LIMIT_EXCEEDED,
                f"targets has {len(request.targets)} entries, at most "
                f"{limits.max_partitions_per_call} are allowed in one call (setting "
                "limits.max_partitions_per_call); name topics without partitions, or nothing for all",
            )
        targets = [
            Target(each.topic, each.partition if each.HasField("partition") else None)
            for each in request.targets
        ]
        elections = await cluster_changes.elect_leaders(
            changes, targets, limits.max_partitions_per_call
        )
        response = admin_pb2.ElectLeadersResponse(
            results=map(_result, elections.before, elections.after), left=elections.left
        )
        check_size(
            response,
            limits,
            "what became of the elections",
            "describe the cluster to see who leads",
        )
        return response

    async def drain_broker(
        self, request: admin_pb2.DrainBrokerRequest, _: _Context
    ) -> admin_pb2.DrainBrokerResponse:
        """Take a broker out of service, or let it serve again."""
        changes = self._changes()
        drained = await cluster_changes.drain(
            changes, request.broker_id, undo=request.undo, force=request.force
        )
        return admin_pb2.DrainBrokerResponse(
            broker=self._broker(request.broker_id, health.health(changes.image)),
            changed=drained.changed,
            stranded_partitions=len(drained.plan.cost.stranded),
            short_partitions=len(drained.plan.cost.short),
        )

    async def _tell_lags(self, lacking: list[LackingPartition]) -> None:
        """Say of replicas that are not in sync how far they are behind, as far as their leaders tell."""
        led = [each for each in lacking if each.leader != NO_LEADER]
        for told, lags in zip(led, await lags_of([*map(self._access, led)]), strict=True):
            behind = sorted(lags.keys() - set(told.in_sync_replicas))
            told.lags.extend(ReplicaLag(broker_id=broker, lag=lags[broker]) for broker in behind)

    def _access(self, told: LackingPartition) -> PartitionAccess | None:
        try:
            return self._catalog.topics.partition(told.topic, b"", told.partition)
        except Refusal:
            return None

    def _changes(self) -> MetadataChanges:
        self._catalog.topics.check_ready()
        return self._catalog.changes.metadata

    def _controller(self) -> int:
        found = self._changes().image.controller
        return found.value.broker_id if found else _NO_CONTROLLER

    def _broker(self, broker: int, found: ClusterHealth) -> BrokerDescription:
        image = self._changes().image
        registered = image.brokers[broker]
        value, share = registered.value, found.shares.get(broker, Share())
        return BrokerDescription(
            broker_id=broker,
            endpoint=value.endpoints.get(CALLER.get().listener, ""),
            endpoints=value.endpoints,
            peer_endpoint=value.peer_endpoint,
            rack=value.rack,
            host=value.host,
            broker_epoch=broker_epoch(registered),
            start_time_ms=value.start_time_ms,
            controller=broker == self._controller(),
            # A broker that keeps the metadata itself has no such key, and nobody who would ask.
            alive=broker in image.live or broker == self._catalog.broker_id,
            fenced=value.fenced,
            draining=value.draining,
            leaders=share.leaders,
            preferred_leaders=share.preferred,
            replicas=share.replicas,
            in_sync_replicas=share.in_sync,
        )


def _lacking(found: health.LackingPartition) -> LackingPartition:
    told = LackingPartition(topic=found.topic, partition=found.partition, leader=NO_LEADER)
    value = found.value
    if value is not None:
        if Lack.LEADER not in found.lacks:
            told.leader = value.leader
        told.leader_epoch = value.leader_epoch
        told.partition_epoch = value.partition_epoch
        told.replicas.extend(value.replicas)
        told.in_sync_replicas.extend(each.broker for each in value.isr)
        told.eligible_leader_replicas.extend(each.broker for each in value.elr)
        told.min_in_sync_replicas = value.min_isr
    return told


def _result(before: Prospect, after: Prospect) -> ElectionResult:
    result = ElectionResult(topic=after.topic, partition=after.partition, leader=NO_LEADER)
    if after.value is not None:
        result.leader = after.value.leader if after.led else NO_LEADER
        result.leader_epoch = after.value.leader_epoch
    if after.obstacle is not None:
        result.outcome = admin_pb2.ELECTION_OUTCOME_FAILED
        result.error.CopyFrom(to_proto(after.obstacle))
    elif before.due or before.obstacle is not None:
        result.outcome = admin_pb2.ELECTION_OUTCOME_ELECTED
    else:
        result.outcome = admin_pb2.ELECTION_OUTCOME_UNCHANGED
    return result
