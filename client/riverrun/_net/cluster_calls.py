"""The calls about brokers: who leads what, how the cluster is, elections, draining."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from riverrun._core.argument_checks import (
    INT32_MAX,
    check_topic,
    out_of_range,
    texts,
    whole_number,
)
from riverrun._core.attempts import Attempts
from riverrun._core.cluster_descriptions import (
    BrokerDescription,
    ClusterDescription,
    DrainResult,
    ElectionResult,
    LackingPartition,
)
from riverrun._core.descriptions import ClusterInfo
from riverrun._core.records import TopicPartition
from riverrun._net.channel import Connections
from riverrun._net.describing import cluster_info
from riverrun._net.failures import from_proto
from riverrun.v1 import admin_pb2 as pb
from riverrun.v1 import metadata_pb2

_OUTCOMES: dict[int, Literal["elected", "unchanged"]] = {
    pb.ELECTION_OUTCOME_ELECTED: "elected",
    pb.ELECTION_OUTCOME_UNCHANGED: "unchanged",
}


async def fetch_cluster(connections: Connections, topics: Iterable[str]) -> ClusterInfo:
    """Tell the brokers, and who leads what in the topics named; none is all.

    Raises:
        TopicNotFoundError: there is none of a name.
    """
    names = texts("topics", topics, 'names, as ["orders"]')
    request = metadata_pb2.GetMetadataRequest(topics=names)
    answer = await connections.call(
        lambda connection, timeout_s: connection.metadata.GetMetadata(request, timeout=timeout_s),
        "get metadata",
        attempts=Attempts(changes=False),
    )
    for topic in answer.cluster.topics:
        if topic.HasField("error"):
            raise from_proto(topic.error, f"topic {topic.topic}")
    return cluster_info(answer.cluster)


async def describe_cluster(connections: Connections) -> ClusterDescription:
    """Tell how the cluster is.

    Raises:
        RiverrunError: no broker tells it.
    """
    request = pb.DescribeClusterRequest()
    answer = await connections.call(
        lambda connection, timeout_s: connection.admin.DescribeCluster(request, timeout=timeout_s),
        "describe the cluster",
        attempts=Attempts(changes=False),
    )
    return ClusterDescription(
        cluster_id=answer.cluster_id,
        revision=answer.revision,
        served_by=answer.served_by,
        controller=answer.controller,
        brokers=tuple(map(_broker, answer.brokers)),
        topics=answer.topics,
        partitions=answer.partitions,
        offline_partitions=answer.offline_partitions,
        under_min_isr_partitions=answer.under_min_isr_partitions,
        under_replicated_partitions=answer.under_replicated_partitions,
        lacking=tuple(map(_lacking, answer.lacking)),
    )


async def elect_leaders(
    connections: Connections, targets: Iterable[str | TopicPartition]
) -> tuple[ElectionResult, ...]:
    """Make preferred leaders lead; a call elects a bounded number, so there may be several.

    Raises:
        RiverrunError: of a call; elections of calls before it have taken effect.
    """
    request = pb.ElectLeadersRequest(targets=[_target(each) for each in _listed(targets)])
    found: dict[tuple[str, int | None], ElectionResult] = {}
    while True:
        attempts = Attempts()
        answer = await connections.call(
            lambda connection, timeout_s: connection.admin.ElectLeaders(request, timeout=timeout_s),
            "elect preferred leaders",
            attempts=attempts,
        )
        results = [_election(result, attempts) for result in answer.results]
        for result in results:
            key = (result.topic, result.partition)
            # What an earlier call has elected, the next one finds unchanged.
            if key not in found or result.outcome != "unchanged":
                found[key] = result
        if not answer.left or all(result.outcome != "elected" for result in results):
            return tuple(found.values())


async def drain_broker(
    connections: Connections, broker_id: int, *, undo: bool, force: bool
) -> DrainResult:
    """Have a broker drain, or serve again.

    Raises:
        UsageError: there is no such broker, it is fenced, or it is needed.
    """
    request = pb.DrainBrokerRequest(
        broker_id=whole_number("broker_id", broker_id, 0, INT32_MAX), undo=undo, force=force
    )
    answer = await connections.call(
        lambda connection, timeout_s: connection.admin.DrainBroker(request, timeout=timeout_s),
        f"let broker {broker_id} serve again" if undo else f"drain broker {broker_id}",
    )
    return DrainResult(
        _broker(answer.broker),
        answer.changed,
        answer.stranded_partitions,
        answer.short_partitions,
    )


def _listed(targets: Iterable[str | TopicPartition]) -> list[str | TopicPartition]:
    expected = 'topics or partitions, as ["orders", TopicPartition("clicks", 3)]'
    if isinstance(targets, str | TopicPartition) or not isinstance(targets, Iterable):
        raise out_of_range("targets", targets, expected)
    listed = list(targets)
    for each in listed:
        if not isinstance(each, str | TopicPartition):
            raise out_of_range("a target", each, expected)
    return listed


def _target(target: str | TopicPartition) -> pb.ElectionTarget:
    if isinstance(target, str):
        check_topic(target)
        return pb.ElectionTarget(topic=target)
    check_topic(target.topic)
    partition = whole_number("a partition", target.partition, 0, INT32_MAX)
    return pb.ElectionTarget(topic=target.topic, partition=partition)


def _election(result: pb.ElectionResult, attempts: Attempts) -> ElectionResult:
    error = attempts.told(from_proto(result.error)) if result.HasField("error") else None
    return ElectionResult(
        topic=result.topic,
        partition=result.partition if result.HasField("partition") else None,
        outcome=_OUTCOMES.get(result.outcome, "failed"),
        leader=result.leader,
        leader_epoch=result.leader_epoch,
        error=error.message if error else "",
        reason=error.reason if error else None,
        outcome_known=error.outcome_known if error else True,
    )


def _broker(broker: pb.BrokerDescription) -> BrokerDescription:
    return BrokerDescription(
        broker_id=broker.broker_id,
        endpoint=broker.endpoint,
        endpoints=dict(broker.endpoints),
        peer_endpoint=broker.peer_endpoint,
        rack=broker.rack,
        host=broker.host,
        broker_epoch=broker.broker_epoch,
        start_time_ms=broker.start_time_ms,
        controller=broker.controller,
        alive=broker.alive,
        fenced=broker.fenced,
        draining=broker.draining,
        leaders=broker.leaders,
        preferred_leaders=broker.preferred_leaders,
        replicas=broker.replicas,
        in_sync_replicas=broker.in_sync_replicas,
    )


def _lacking(partition: pb.LackingPartition) -> LackingPartition:
    return LackingPartition(
        topic=partition.topic,
        partition=partition.partition,
        leader=partition.leader,
        leader_epoch=partition.leader_epoch,
        partition_epoch=partition.partition_epoch,
        replicas=tuple(partition.replicas),
        in_sync_replicas=tuple(partition.in_sync_replicas),
        eligible_leader_replicas=tuple(partition.eligible_leader_replicas),
        min_in_sync_replicas=partition.min_in_sync_replicas,
        lags={each.broker_id: each.lag for each in partition.lags},
    )
