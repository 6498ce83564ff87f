"""Event streaming behind a gRPC API: the client library.

Whatever needs grpc or takes long is imported when it is first used, so that a shell's completion
stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from riverrun._core.records import (
    CommitMode,
    CommittedOffset,
    From,
    Headers,
    Last,
    NewRecord,
    Offset,
    OffsetAndTimestamp,
    OffsetReset,
    PositionReset,
    Record,
    RecordMetadata,
    SendSummary,
    Time,
    TopicPartition,
)
from riverrun.errors import (
    BufferFullError,
    ClosedError,
    CorruptDataError,
    DeserializationError,
    FatalError,
    LeaderHint,
    NoBrokerError,
    OffsetOutOfRangeError,
    OffsetRange,
    ProducerFencedError,
    Reason,
    RetriableError,
    RiverrunError,
    TimedOutError,
    TopicExistsError,
    TopicNotFoundError,
    UsageError,
)

if TYPE_CHECKING:
    from riverrun._core.cluster_descriptions import (
        BrokerDescription,
        ClusterDescription,
        DrainResult,
        ElectionResult,
        LackingPartition,
    )
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
        TrimResult,
    )
    from riverrun._core.group_descriptions import (
        GroupDescription,
        GroupInfo,
        GroupMember,
        GroupPartition,
        OffsetMove,
        Shift,
    )
    from riverrun._core.histogram import Durations
    from riverrun._core.partitioner import Partitioner
    from riverrun._core.producer_statistics import ProducerStatistics
    from riverrun._core.reader_statistics import ConsumerStatistics
    from riverrun._net.member_settings import MemberOptions, OnPartitions
    from riverrun.admin import Admin
    from riverrun.client import Client
    from riverrun.consumer import Consumer, RecordBatchView
    from riverrun.deserializers import Deserializer
    from riverrun.producer import OnDelivery, Producer

_LATE = {
    "Admin": "riverrun.admin",
    "BrokerDescription": "riverrun._core.cluster_descriptions",
    "BrokerInfo": "riverrun._core.descriptions",
    "Client": "riverrun.client",
    "ClusterDescription": "riverrun._core.cluster_descriptions",
    "ClusterInfo": "riverrun._core.descriptions",
    "ConfigEntry": "riverrun._core.descriptions",
    "Consumer": "riverrun.consumer",
    "ConsumerStatistics": "riverrun._core.reader_statistics",
    "Deserializer": "riverrun.deserializers",
    "DrainResult": "riverrun._core.cluster_descriptions",
    "Durations": "riverrun._core.histogram",
    "ElectionResult": "riverrun._core.cluster_descriptions",
    "GroupDescription": "riverrun._core.group_descriptions",
    "GroupInfo": "riverrun._core.group_descriptions",
    "GroupMember": "riverrun._core.group_descriptions",
    "GroupPartition": "riverrun._core.group_descriptions",
    "OffsetMove": "riverrun._core.group_descriptions",
    "Shift": "riverrun._core.group_descriptions",
    "LackingPartition": "riverrun._core.cluster_descriptions",
    "OnDelivery": "riverrun.producer",
    "Partitioner": "riverrun._core.partitioner",
    "Limits": "riverrun._core.descriptions",
    "MemberOptions": "riverrun._net.member_settings",
    "OnPartitions": "riverrun._net.member_settings",
    "PartitionDescription": "riverrun._core.descriptions",
    "PartitionOffset": "riverrun._core.descriptions",
    "Producer": "riverrun.producer",
    "ProducerStatistics": "riverrun._core.producer_statistics",
    "RecordBatchView": "riverrun.consumer",
    "ServerInfo": "riverrun._core.descriptions",
    "Storage": "riverrun._core.descriptions",
    "TopicDescription": "riverrun._core.descriptions",
    "TopicInfo": "riverrun._core.descriptions",
    "TopicLeaders": "riverrun._core.descriptions",
    "TrimResult": "riverrun._core.descriptions",
}

__all__ = [
    "Admin",
    "BrokerDescription",
    "BrokerInfo",
    "BufferFullError",
    "Client",
    "ClosedError",
    "ClusterDescription",
    "ClusterInfo",
    "CommitMode",
    "CommittedOffset",
    "ConfigEntry",
    "Consumer",
    "ConsumerStatistics",
    "CorruptDataError",
    "DeserializationError",
    "Deserializer",
    "DrainResult",
    "Durations",
    "ElectionResult",
    "FatalError",
    "From",
    "GroupDescription",
    "GroupInfo",
    "GroupMember",
    "GroupPartition",
    "Headers",
    "LackingPartition",
    "Last",
    "LeaderHint",
    "Limits",
    "MemberOptions",
    "NewRecord",
    "NoBrokerError",
    "Offset",
    "OffsetAndTimestamp",
    "OffsetMove",
    "OffsetOutOfRangeError",
    "OffsetRange",
    "OffsetReset",
    "OnDelivery",
    "OnPartitions",
    "PartitionDescription",
    "PartitionOffset",
    "Partitioner",
    "PositionReset",
    "Producer",
    "ProducerFencedError",
    "ProducerStatistics",
    "Reason",
    "Record",
    "RecordBatchView",
    "RecordMetadata",
    "RetriableError",
    "RiverrunError",
    "SendSummary",
    "ServerInfo",
    "Shift",
    "Storage",
    "Time",
    "TimedOutError",
    "TopicDescription",
    "TopicExistsError",
    "TopicInfo",
    "TopicLeaders",
    "TopicNotFoundError",
    "TopicPartition",
    "TrimResult",
    "UsageError",
]


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module 'riverrun' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    return __all__
