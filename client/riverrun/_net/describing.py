"""Turn what brokers answer about topics, groups and themselves into frozen values."""

from __future__ import annotations

from typing import Literal

from google.protobuf.duration_pb2 import Duration

from riverrun._core.descriptions import (
    BrokerInfo,
    ClusterInfo,
    ConfigEntry,
    Limits,
    PartitionDescription,
    PartitionOffset,
    ServerInfo,
    Storage,
    TopicDescription,
    TopicInfo,
    TopicLeaders,
)
from riverrun._core.records import CommittedOffset
from riverrun.v1 import admin_pb2, consumer_pb2, metadata_pb2

_SOURCES: dict[int, Literal["default", "topic"]] = {
    admin_pb2.CONFIG_SOURCE_DEFAULT: "default",
    admin_pb2.CONFIG_SOURCE_TOPIC: "topic",
}


def seconds(duration: Duration) -> float:
    """Return a duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def topic_info(topic: admin_pb2.Topic, *, created: bool = False) -> TopicInfo:
    """Return what defines a topic."""
    return TopicInfo(
        name=topic.topic,
        topic_id=topic.topic_id,
        partitions=topic.partitions,
        replication_factor=topic.replication_factor,
        configs=dict(topic.configs),
        internal=topic.internal,
        create_time_ms=topic.create_time_ms,
        created=created,
    )


def topic_description(answer: admin_pb2.DescribeTopicResponse) -> TopicDescription:
    """Return everything about a topic."""
    return TopicDescription(
        topic_info(answer.topic),
        tuple(_partition(partition) for partition in answer.partitions),
        tuple(
            ConfigEntry(
                entry.key, entry.value, _SOURCES.get(entry.source, "unknown"), entry.documentation
            )
            for entry in answer.configs
        ),
    )


def _partition(partition: admin_pb2.PartitionDescription) -> PartitionDescription:
    return PartitionDescription(
        partition=partition.partition,
        leader=partition.leader,
        leader_epoch=partition.leader_epoch,
        replicas=tuple(partition.replicas),
        in_sync_replicas=tuple(partition.in_sync_replicas),
        log_start_offset=partition.log_start_offset,
        high_watermark=partition.high_watermark,
        log_end_offset=partition.log_end_offset,
        size_bytes=partition.size_bytes,
        error=partition.error.message if partition.HasField("error") else "",
        eligible_leader_replicas=tuple(partition.eligible_leader_replicas),
        partition_epoch=partition.partition_epoch,
        min_in_sync_replicas=partition.min_in_sync_replicas,
    )


def cluster_info(cluster: metadata_pb2.ClusterMetadata) -> ClusterInfo:
    """Return a cluster at one revision of its metadata."""
    return ClusterInfo(
        cluster_id=cluster.cluster_id,
        revision=cluster.revision,
        brokers=tuple(
            BrokerInfo(broker.broker_id, broker.endpoint, broker.rack, broker.host)
            for broker in cluster.brokers
        ),
        served_by=cluster.served_by,
        topics=tuple(_leaders(topic) for topic in cluster.topics),
    )


def _leaders(topic: metadata_pb2.TopicMetadata) -> TopicLeaders:
    return TopicLeaders(
        name=topic.topic,
        topic_id=topic.topic_id,
        partitions=tuple(
            PartitionDescription(
                partition.partition,
                partition.leader,
                partition.leader_epoch,
                tuple(partition.replicas),
                tuple(partition.in_sync_replicas),
            )
            for partition in topic.partitions
        ),
        internal=topic.internal,
    )


def server_info(info: metadata_pb2.GetServerInfoResponse, endpoint: str) -> ServerInfo:
    """Return what a broker says of itself."""
    limits = info.limits
    return ServerInfo(
        version=info.version,
        broker_id=info.broker_id,
        cluster_id=info.cluster_id,
        features=tuple(info.features),
        limits=Limits(
            max_batch_bytes=limits.max_batch_bytes,
            max_batch_records=limits.max_batch_records,
            max_request_bytes=limits.max_request_bytes,
            max_frame_bytes=limits.max_frame_bytes,
            max_partitions_per_call=limits.max_partitions_per_call,
            max_unacknowledged_batches=limits.max_unacknowledged_batches,
            max_in_flight_bytes_per_connection=limits.max_in_flight_bytes_per_connection,
            timestamp_ahead_max_s=seconds(limits.timestamp_ahead_max),
            default_produce_timeout_s=seconds(limits.default_produce_timeout),
            max_produce_timeout_s=seconds(limits.max_produce_timeout),
            max_fetch_wait_s=seconds(limits.max_fetch_wait),
            min_session_timeout_s=seconds(limits.min_session_timeout),
            max_session_timeout_s=seconds(limits.max_session_timeout),
            default_session_timeout_s=seconds(limits.default_session_timeout),
            default_revocation_timeout_s=seconds(limits.default_revocation_timeout),
        ),
        now_ms=info.now_ms,
        endpoint=endpoint,
        storage=_storage(info.storage) if info.HasField("storage") else None,
        open_files_limit=info.open_files_limit or None,
    )


def _storage(told: metadata_pb2.Storage) -> Storage:
    return Storage(
        accepts_appends=told.state != metadata_pb2.STORAGE_STATE_FULL,
        total_bytes=told.total_bytes,
        free_bytes=told.free_bytes,
        low_water_bytes=told.low_water_bytes,
        high_water_bytes=told.high_water_bytes,
    )


def partition_offset(answer: consumer_pb2.OffsetAnswer) -> PartitionOffset:
    """Return a place found in one partition."""
    return PartitionOffset(
        topic=answer.topic,
        partition=answer.partition,
        offset=answer.offset if answer.HasField("offset") else None,
        timestamp_ms=answer.timestamp_ms if answer.HasField("timestamp_ms") else None,
        high_watermark=answer.high_watermark,
        leader_epoch=answer.leader_epoch,
    )


def committed_offset(committed: consumer_pb2.CommittedOffset) -> CommittedOffset:
    """Return how far a group has come in one partition."""
    return CommittedOffset(
        committed.offset,
        committed.metadata,
        committed.leader_epoch if committed.HasField("leader_epoch") else None,
        committed.commit_time_ms,
    )
