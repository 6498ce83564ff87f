"""What brokers tell about themselves, topics and partitions, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """What defines a topic.

    Attributes:
        name: of the topic.
        topic_id: 16 bytes; a topic made anew under the same name has another one.
        partitions: how many it has.
        replication_factor: how many replicas each of them has.
        configs: what was set for this topic; the broker's defaults hold for the rest.
        internal: True for topics that belong to the brokers.
        create_time_ms: when it was made, in ms since 1970.
        created: False where `create_topic` found it there already, or only checked; what it found
            there may be its own, made by an attempt whose answer was lost.

    Example:
        topic = await admin.create_topic("orders", partitions=3, if_not_exists=True)
        print(topic.partitions, topic.created)
    """

    name: str
    topic_id: bytes
    partitions: int
    replication_factor: int
    configs: Mapping[str, str] = field(default_factory=dict)
    internal: bool = False
    create_time_ms: int = 0
    created: bool = False


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One setting that holds for a topic, and where it comes from.

    Example:
        for entry in (await admin.describe_topic("orders")).configs:
            print(entry.key, "=", entry.value, "from", entry.source)
    """

    key: str
    value: str
    source: Literal["default", "topic", "unknown"]
    documentation: str = ""


@dataclass(frozen=True, slots=True)
class PartitionDescription:
    """Everything about one partition.

    Attributes:
        partition: its number.
        leader: the broker that leads it; -1 where nobody does.
        leader_epoch: of its leadership.
        replicas: the brokers that hold it.
        in_sync_replicas: those of them that are in sync.
        log_start_offset: the first offset that can be read.
        high_watermark: what lies below it is committed.
        log_end_offset: what the next record will have.
        size_bytes: of its batches.
        error: why it cannot be used; empty where it can.
        eligible_leader_replicas: replicas that are not in sync, and may lead all the same.
        partition_epoch: grows with every change of leader and replicas in sync.
        min_in_sync_replicas: with fewer in sync nothing is committed; 0 where an older broker does not
            tell.

    Example:
        for partition in (await admin.describe_topic("orders")).partitions:
            print(partition.partition, partition.high_watermark - partition.log_start_offset)
    """

    partition: int
    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    in_sync_replicas: tuple[int, ...]
    log_start_offset: int = 0
    high_watermark: int = 0
    log_end_offset: int = 0
    size_bytes: int = 0
    error: str = ""
    eligible_leader_replicas: tuple[int, ...] = ()
    partition_epoch: int = 0
    min_in_sync_replicas: int = 0


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """Everything about one topic: its definition, partitions and settings.

    Example:
        described = await admin.describe_topic("orders")
        print(described.topic.name, len(described.partitions))
    """

    topic: TopicInfo
    partitions: tuple[PartitionDescription, ...]
    configs: tuple[ConfigEntry, ...]


@dataclass(frozen=True, slots=True)
class BrokerInfo:
    """One broker and where clients reach it, as host:port.

    Example:
        for broker in (await admin.cluster()).brokers:
            print(broker.broker_id, broker.endpoint)
    """

    broker_id: int
    endpoint: str
    rack: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class TopicLeaders:
    """Who leads the partitions of one topic.

    Example:
        [leaders] = (await admin.cluster(["orders"])).topics
        print({partition.partition: partition.leader for partition in leaders.partitions})
    """

    name: str
    topic_id: bytes
    partitions: tuple[PartitionDescription, ...]
    internal: bool = False


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """A cluster at one revision of its metadata.

    Attributes:
        cluster_id: of the cluster.
        revision: of the metadata; it only grows.
        brokers: all of them.
        served_by: the broker that answered.
        topics: by name, with who leads what; of each partition only leader and replicas are told.

    Example:
        cluster = await admin.cluster()
        print(cluster.cluster_id, len(cluster.brokers))
    """

    cluster_id: str
    revision: int
    brokers: tuple[BrokerInfo, ...]
    served_by: int
    topics: tuple[TopicLeaders, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """A broker's bounds. Calls beyond them fail with an error that names the limit.

    Attributes:
        max_batch_bytes: the largest batch that a topic may allow, also expanded.
        max_batch_records: the most records in a batch.
        max_request_bytes: the largest message that it accepts.
        max_frame_bytes: the largest message that it sends.
        max_partitions_per_call: the most partitions in one call.
        max_unacknowledged_batches: of one producer, waiting for their answer in one partition.
        max_in_flight_bytes_per_connection: that may wait for their answer.
        timestamp_ahead_max_s: how far ahead of its clock a timestamp may lie.
        default_produce_timeout_s: how long it waits for the ack condition by default.
        max_produce_timeout_s: how long it waits at the most.
        max_fetch_wait_s: how long a fetch waits at the most.
        min_session_timeout_s: the shortest that a member of a group may ask for.
        max_session_timeout_s: the longest.
        default_session_timeout_s: that of a member that asks for none.
        default_revocation_timeout_s: how long such a member may take to give a partition up.

    Example:
        limits = (await client.server_info()).limits
        print(limits.max_batch_bytes)
    """

    max_batch_bytes: int
    max_batch_records: int
    max_request_bytes: int
    max_frame_bytes: int
    max_partitions_per_call: int
    max_unacknowledged_batches: int
    max_in_flight_bytes_per_connection: int
    timestamp_ahead_max_s: float
    default_produce_timeout_s: float
    max_produce_timeout_s: float
    max_fetch_wait_s: float
    min_session_timeout_s: float
    max_session_timeout_s: float
    default_session_timeout_s: float
    default_revocation_timeout_s: float


@dataclass(frozen=True, slots=True)
class Storage:
    """The disk with a broker's data, as the broker saw it last.

    Attributes:
        accepts_appends: False while too little is free and appends are refused.
        total_bytes: how large the file system is.
        free_bytes: how much of it is free for the broker.
        low_water_bytes: below so many free bytes appends are refused.
        high_water_bytes: from so many free bytes on they are accepted again.

    Example:
        storage = (await client.server_info()).storage
        print(storage.free_bytes, storage.accepts_appends)
    """

    accepts_appends: bool
    total_bytes: int
    free_bytes: int
    low_water_bytes: int
    high_water_bytes: int


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a broker says of itself.

    Attributes:
        version: of the broker's software.
        broker_id: its id.
        cluster_id: its cluster's id.
        features: what it can do beyond the first version of the API.
        limits: its bounds.
        now_ms: its clock, in ms since 1970.
        endpoint: the address that answered, as host:port.
        storage: the disk that it keeps everything on; None where an older broker does not tell.
        open_files_limit: how many files and connections its process may have open; None where an
            older broker does not tell, -1 where there is no limit.

    Example:
        info = await client.server_info()
        print(info.version, info.endpoint)
    """

    version: str
    broker_id: int
    cluster_id: str
    features: tuple[str, ...]
    limits: Limits
    now_ms: int
    endpoint: str
    storage: Storage | None = None
    open_files_limit: int | None = None


@dataclass(frozen=True, slots=True)
class TrimResult:
    """Where a partition begins after a trim; `error` says why that was refused, if so.

    Attributes:
        partition: which one.
        log_start_offset: the first offset that is left.
        error: why it was refused; empty where it was not.
        outcome_known: False where it may have been trimmed all the same.

    Example:
        for result in await admin.trim_topic("orders", {0: -1}):
            print(result.partition, result.log_start_offset, result.error)
    """

    partition: int
    log_start_offset: int
    error: str = ""
    outcome_known: bool = True


@dataclass(frozen=True, slots=True)
class PartitionOffset:
    """A place found in one partition.

    Attributes:
        topic: of the partition.
        partition: the partition.
        offset: what was found; None where no record is that late.
        timestamp_ms: of the record found by time, in ms since 1970.
        high_watermark: of the partition.
        leader_epoch: the current one.

    Example:
        for found in await admin.list_offsets("orders", "latest"):
            print(found.partition, found.offset)
    """

    topic: str
    partition: int
    offset: int | None
    timestamp_ms: int | None
    high_watermark: int
    leader_epoch: int
