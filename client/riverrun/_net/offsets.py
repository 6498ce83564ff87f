"""The calls about offsets: where logs begin and end, and how far groups have come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from riverrun._core.descriptions import PartitionOffset
from riverrun._core.records import CommittedOffset, From, Time, TopicPartition
from riverrun._net.channel import Connections
from riverrun._net.describing import committed_offset, partition_offset
from riverrun._net.failures import from_proto
from riverrun.errors import Reason, UsageError
from riverrun.v1 import consumer_pb2 as pb

_NAMED = {"earliest": pb.FROM_EARLIEST, "latest": pb.FROM_LATEST}


def offset_query(topic: str, partition: int | None, at: From) -> pb.OffsetQuery:
    """Return the question for one place.

    Raises:
        UsageError: it is not one that brokers look up.
    """
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
    )
    for found in answer.answers:
        if found.HasField("error"):
            raise from_proto(found.error, f"{found.topic}[{found.partition}]")
    return tuple(partition_offset(found) for found in answer.answers)


async def fetch_group_offsets(
    connections: Connections, group: str, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, CommittedOffset | None]:
    """Ask how far a group has come; no partitions is all that it has committed.

    Raises:
        RiverrunError: the first partition of which nobody can say, or the call itself.
    """
    _check_group(group)
    request = pb.FetchOffsetsRequest(
        group_id=group,
        partitions=[pb.TopicPartition(topic=p.topic, partition=p.partition) for p in partitions],
    )
    answer = await connections.call(
        lambda connection, timeout_s: connection.consumer.FetchOffsets(request, timeout=timeout_s),
        f"fetch offsets of group {group}",
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
) -> None:
    """Store how far a group has come: the next offset to read, by partition.

    Raises:
        RiverrunError: the first partition that refused, or the call itself.
    """
    _check_group(group)
    if not offsets:
        return
    request = pb.CommitOffsetRequest(
        group_id=group,
        offsets=[_commit(partition, offset) for partition, offset in offsets.items()],
    )
    answer = await connections.call(
        lambda connection, timeout_s: connection.consumer.CommitOffset(request, timeout=timeout_s),
        f"commit offsets of group {group}",
    )
    for result in answer.results:
        if result.HasField("error"):
            raise from_proto(result.error, f"group {group}, {result.topic}[{result.partition}]")


def _commit(partition: TopicPartition, offset: int | CommittedOffset) -> pb.OffsetCommit:
    place = offset if isinstance(offset, CommittedOffset) else CommittedOffset(offset)
    if place.offset < 0:
        raise UsageError(
            f"the offset to commit for {partition} is {place.offset}; offsets begin at 0",
            reason=Reason.INVALID_REQUEST,
        )
    return pb.OffsetCommit(
        topic=partition.topic,
        partition=partition.partition,
        offset=place.offset,
        leader_epoch=place.leader_epoch,
        metadata=place.metadata,
    )


def _check_group(group: str) -> None:
    if not group:
        raise UsageError("the group's name is empty", reason=Reason.INVALID_NAME)
