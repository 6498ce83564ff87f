"""Topics, partitions and offsets as JSON: the names of fields are those of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverrun.cli.places import format_time

if TYPE_CHECKING:
    from riverrun import PartitionDescription, PartitionOffset, TopicDescription, TopicInfo


def topic_fields(topic: TopicInfo) -> dict[str, object]:
    """Tell what defines a topic."""
    return {
        "topic": topic.name,
        "topic_id": topic.topic_id.hex(),
        "partitions": topic.partitions,
        "replication_factor": topic.replication_factor,
        "configs": dict(topic.configs),
        "internal": topic.internal,
        "create_time": format_time(topic.create_time_ms),
    }


def description_fields(description: TopicDescription) -> dict[str, object]:
    """Tell everything about a topic."""
    return {
        **topic_fields(description.topic),
        "partitions": [partition_fields(partition) for partition in description.partitions],
        "configs": [
            {
                "key": entry.key,
                "value": entry.value,
                "source": entry.source,
                "documentation": entry.documentation,
            }
            for entry in description.configs
        ],
    }


def partition_fields(partition: PartitionDescription) -> dict[str, object]:
    """Tell everything about a partition."""
    fields: dict[str, object] = {
        "partition": partition.partition,
        "leader": partition.leader,
        "leader_epoch": partition.leader_epoch,
        "replicas": list(partition.replicas),
        "in_sync_replicas": list(partition.in_sync_replicas),
        "eligible_leader_replicas": list(partition.eligible_leader_replicas),
        "min_in_sync_replicas": partition.min_in_sync_replicas,
        "partition_epoch": partition.partition_epoch,
        "log_start_offset": partition.log_start_offset,
        "high_watermark": partition.high_watermark,
        "log_end_offset": partition.log_end_offset,
        "size_bytes": partition.size_bytes,
    }
    if partition.error:
        fields["error"] = partition.error
    return fields


def place_fields(found: PartitionOffset) -> dict[str, object]:
    """Tell where in a partition something was found."""
    fields: dict[str, object] = {"partition": found.partition, "offset": found.offset}
    if found.timestamp_ms is not None:
        fields["timestamp"] = found.timestamp_ms
    return {**fields, "high_watermark": found.high_watermark}
