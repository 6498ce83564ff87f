"""The calls about offsets: where logs begin and end, and how far groups have come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from riverrun._core.argument_checks import (
    INT32_MAX,
    by_partition,
    check_group,
    check_topic,
    out_of_range,
    topic_partitions,
    whole_number,
)
from riverrun._core.attempts import Attempts
from riverrun._core.descriptions import PartitionOffset
from riverrun._core.records import (
    CommittedOffset,
    From,
    OffsetAndTimestamp,
    Time,
    TopicPartition,
)
from riverrun._net.channel import Connections
from riverrun._net.describing import committed_offset, partition_offset
from riverrun._net.failures import from_proto
from riverrun.errors import Reason, RiverrunError, UsageError
from riverrun.v1 import consumer_pb2 as pb

TopicIds: TypeAlias = Mapping[TopicPartition, bytes]
"""The ids of topics, by partition, as far as they are known."""

_NAMED = {"earliest": pb.FROM_EARLIEST, "latest": pb.FROM_LATEST}
_NO_IDS: TopicIds = {}


def offset_query(topic: str, partition: int | None, at: From) -> pb.OffsetQuery:
    """Return the question for one place.

    Raises:
        UsageError: it is not one that brokers look up.
    """
    check_topic(topic)
    if partition is not None:
        partition = whole_number("partition", partition, 0, INT32_MAX)
    query = pb.OffsetQuery(topic=topic, partition=partition)
    if isinstance(at, Time):
        query.time_ms = at.time_ms
    elif isinstance(at, str) and at in _NAMED:
        setattr(query, "from", _NAMED[at])
    else:
        raise UsageError(
            f'cannot look up {at!r}; use "earliest", "latest" or Time(ms)',
            reason=Reason.INVALID_REQUEST,
        )
    return query


async def list_offsets(
    connections: Connections, queries: Iterable[pb.OffsetQuery]
) -> tuple[PartitionOffset, ...]:
    """Look places up; an answer for each partition asked about.

    Raises:
        RiverrunError: the first partition that could not answer, or the call itself.
    """
    request = pb.ListOffsetsRequest(queries=queries)
    if not request.queries:
        return ()
    answer = await connections.call(
        lambda connection, timeout_s: connection.consumer.ListOffsets(request, timeout=timeout_s),
        "list offsets",
        attempts=Attempts(changes=False),
    )
    for found in answer.answers:
        if found.HasField("error"):
            raise from_proto(found.error, f"{found.topic}[{found.partition}]")
    return tuple(partition_offset(found) for found in answer.answers)


async def high_watermarks(
    connections: Connections, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """Ask for high watermarks.

    Raises:
        RiverrunError: the first partition that could not answer, or the call itself.
    """
    queries = [offset_query(p.topic, p.partition, "latest") for p in partitions]
    found = await list_offsets(connections, queries)
    return {TopicPartition(at.topic, at.partition): at.high_watermark for at in found}


async def log_starts(
    connections: Connections, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """Ask for the first offsets that can still be read.

    Raises:
        RiverrunError: the first partition that could not answer, or the call itself.
    """
    queries = [offset_query(p.topic, p.partition, "earliest") for p in partitions]
    found = await list_offsets(connections, queries)
    return {TopicPartition(at.topic, at.partition): at.offset or 0 for at in found}


async def offsets_at_times(
    connections: Connections, times_ms: Mapping[TopicPartition, int]
) -> dict[TopicPartition, OffsetAndTimestamp | None]:
    """Find the first record whose timestamp is that or later; None where there is none.

    Raises:
        RiverrunError: the first partition that could not answer, or the call itself.
    """
    queries = [offset_query(p.topic, p.partition, Time(ms)) for p, ms in times_ms.items()]
    found = await list_offsets(connections, queries)
    return {
        TopicPartition(at.topic, at.partition): None
        if at.offset is None
        else OffsetAndTimestamp(at.offset, at.timestamp_ms or 0)
        for at in found
    }


async def fetch_group_offsets(
    connections: Connections,
    group: str,
    partitions: Iterable[TopicPartition],
    topic_ids: TopicIds = _NO_IDS,
) -> dict[TopicPartition, CommittedOffset | None]:
    """Ask how far a group has come; no partitions is all that it has committed.

    Where a topic's id is known, a topic of the same name that was made later is an error.

    Raises:
        RiverrunError: the first partition of which nobody can say, or the call itself.
    """
    check_group(group)
    request = pb.FetchOffsetsRequest(
        group_id=group,
        partitions=[
            pb.TopicPartition(topic=p.topic, topic_id=topic_ids.get(p, b""), partition=p.partition)
            for p in topic_partitions(partitions)
        ],
    )
    answer = await connections.call(
        lambda connection, timeout_s: connection.consumer.FetchOffsets(request, timeout=timeout_s),
        f"fetch offsets of group {group}",
        attempts=Attempts(changes=False),
    )
    found: dict[TopicPartition, CommittedOffset | None] = {}
    for offset in answer.offsets:
        partition = TopicPartition(offset.topic, offset.partition)
        if offset.HasField("error"):
            raise from_proto(offset.error, f"group {group}, {partition}")
        known = offset.HasField("committed")
        found[partition] = committed_offset(offset.committed) if known else None
    return found


async def commit_group_offsets(
    connections: Connections,
    group: str,
    offsets: Mapping[TopicPartition, int | CommittedOffset],
    topic_ids: TopicIds = _NO_IDS,
) -> None:
    """Store how far a group has come: the next offset to read, by partition.

    Where a topic's id is known, a topic of the same name that was made later is an error.

    Raises:
        RiverrunError: the first partition that refused, or the call itself.
    """
    for error in (await try_group_offsets(connections, group, offsets, topic_ids)).values():
        raise error


async def try_group_offsets(
    connections: Connections,
    group: str,
    offsets: Mapping[TopicPartition, int | CommittedOffset],
    topic_ids: TopicIds = _NO_IDS,
    committer: tuple[str, int] | None = None,
) -> dict[TopicPartition, RiverrunError]:
    """Store how far a group has come, likewise; return what partitions refused, the others have it.

    Args:
        connections: finds brokers.
        group: the group.
        offsets: the next offset to read, by partition.
        topic_ids: of topics whose ids are known.
        committer: the member that commits, and the newest epoch that it was told; None is nobody.

    Raises:
        RiverrunError: the call itself.
    """
    check_group(group)
    offsets = by_partition("offsets", offsets)
    if not offsets:
        return {}
    request = pb.CommitOffsetRequest(
        group_id=group,
        offsets=[
            _commit(partition, topic_ids.get(partition, b""), offset)
            for partition, offset in offsets.items()
        ],
    )
    if committer is not None:
        request.member_id, request.member_epoch = committer
    attempts = Attempts()
    answer = await connections.call(
        lambda connection, timeout_s: connection.consumer.CommitOffset(request, timeout=timeout_s),
        f"commit offsets of group {group}",
        attempts=attempts,
    )
    refused: dict[TopicPartition, RiverrunError] = {}
    for result in answer.results:
        if result.HasField("error"):
            partition = TopicPartition(result.topic, result.partition)
            error = from_proto(result.error, f"group {group}, {partition}")
            refused[partition] = attempts.told(error)
    return refused


def _commit(
    partition: TopicPartition, topic_id: bytes, offset: int | CommittedOffset
) -> pb.OffsetCommit:
    place = offset if isinstance(offset, CommittedOffset) else CommittedOffset(offset)
    if not isinstance(place.metadata, str):
        raise out_of_range(f"the metadata to commit for {partition}", place.metadata, "a str")
    epoch = place.leader_epoch
    return pb.OffsetCommit(
        topic=partition.topic,
        topic_id=topic_id,
        partition=partition.partition,
        offset=whole_number(f"the offset to commit for {partition}", place.offset),
        leader_epoch=None if epoch is None else whole_number("leader_epoch", epoch, 0, INT32_MAX),
        metadata=place.metadata,
    )
