"""CommitOffset, FetchOffsets and ListOffsets: an answer or an error for each partition."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from riverrun.v1 import consumer_pb2
from riverrun.v1.consumer_pb2 import (
    CommitOffsetRequest,
    CommitOffsetResponse,
    CommittedOffset,
    FetchOffsetsRequest,
    FetchOffsetsResponse,
    GroupOffset,
    ListOffsetsRequest,
    ListOffsetsResponse,
    NoCommittedOffset,
    OffsetAnswer,
    OffsetQuery,
)
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import check_group_id
from riverrun_server.core.groups.offsets import CommittedOffset as Committed
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.places import Place, PlaceKind
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.rpc.reading_requests import (
    check_count,
    commits_of,
    partition_name,
    place_of,
    unknown_value,
)
from riverrun_server.runtime.reader import ReadingServices
from riverrun_server.wire.deliveries import commit_result

# Lookups by time read the disk: so many of one call at once.
_AT_ONCE = 8


class OffsetCalls:
    """Serves the unary calls about offsets.

    Args:
        services: what all readers share.
    """

    def __init__(self, services: ReadingServices) -> None:
        self._services = services

    async def commit(self, request: CommitOffsetRequest) -> CommitOffsetResponse:
        """Store how far a group has come.

        Raises:
            Refusal: the request is wrong as a whole.
        """
        check_group_id(request.group_id)
        if not request.offsets:
            raise Refusal(Reason.INVALID_REQUEST, "the request commits nothing; set `offsets`")
        check_count("offsets", len(request.offsets), self._services.limits)
        outcomes = await self._services.offsets.commit(
            request.group_id, commits_of(request.offsets)
        )
        write_error = self._services.write_error
        return CommitOffsetResponse(results=[commit_result(each, write_error) for each in outcomes])

    async def fetch(self, request: FetchOffsetsRequest) -> FetchOffsetsResponse:
        """Tell how far a group has come.

        Raises:
            Refusal: the request is wrong as a whole, or COORDINATOR_LOADING.
        """
        check_group_id(request.group_id)
        check_count("partitions", len(request.partitions), self._services.limits)
        committed = await self._services.offsets.committed(request.group_id)
        if request.partitions:
            return FetchOffsetsResponse(
                offsets=[self._group_offset(each, committed) for each in request.partitions]
            )
        return self._all_offsets(request.group_id, committed)

    def _group_offset(
        self, named: consumer_pb2.TopicPartition, committed: Mapping[PartitionId, Committed]
    ) -> GroupOffset:
        name = partition_name(named)
        try:
            access = self._services.directory.partition(*name)
        except Refusal as refusal:
            return GroupOffset(
                topic=name.topic,
                topic_id=name.topic_id,
                partition=name.partition,
                error=self._services.write_error(refusal),
            )
        return _known_offset(access, committed.get(access.id))

    def _all_offsets(
        self, group_id: str, committed: Mapping[PartitionId, Committed]
    ) -> FetchOffsetsResponse:
        response, size = FetchOffsetsResponse(), 0
        for access, value in self._still_there(committed):
            offset = _known_offset(access, value)
            size += offset.ByteSize() + 8
            if size > self._services.limits.frame_bytes_max:
                raise Refusal(
                    Reason.LIMIT_EXCEEDED,
                    f"the {len(committed)} offsets of group {group_id!r} do not fit one message of "
                    f"{self._services.limits.frame_bytes_max} bytes; name the partitions",
                )
            response.offsets.append(offset)
        return response

    def _still_there(
        self, committed: Mapping[PartitionId, Committed]
    ) -> list[tuple[PartitionAccess, Committed]]:
        """Return the offsets of topics that exist, by topic and partition."""
        found = []
        for partition, value in committed.items():
            try:
                access = self._services.directory.partition("", *partition)
            except Refusal:
                continue
            found.append((access, value))
        return sorted(found, key=lambda each: (each[0].topic, each[0].id.partition))

    async def find(self, request: ListOffsetsRequest) -> ListOffsetsResponse:
        """Find offsets by place or time.

        Raises:
            Refusal: the request is wrong as a whole.
        """
        if not request.queries:
            raise Refusal(Reason.INVALID_REQUEST, "the request asks for nothing; set `queries`")
        check_count("queries", len(request.queries), self._services.limits)
        asked: list[tuple[PartitionAccess, Place] | OffsetAnswer] = []
        for query in request.queries:
            place = _query_place(query)
            asked += [
                each if isinstance(each, OffsetAnswer) else (each, place)
                for each in self._asked(query)
            ]
            check_count("queries", len(asked), self._services.limits)
        return ListOffsetsResponse(answers=await self._answers(asked))

    def _asked(self, query: OffsetQuery) -> Sequence[PartitionAccess | OffsetAnswer]:
        """Return the partitions of a query, or the answer that it names none."""
        directory = self._services.directory
        try:
            if not query.HasField("partition"):
                return directory.partitions(query.topic, query.topic_id)
            return [directory.partition(query.topic, query.topic_id, query.partition)]
        except Refusal as refusal:
            answer = OffsetAnswer(
                topic=query.topic,
                topic_id=query.topic_id,
                partition=query.partition,
                error=self._services.write_error(refusal),
            )
            return [answer]

    async def _answers(
        self, asked: Sequence[tuple[PartitionAccess, Place] | OffsetAnswer]
    ) -> list[OffsetAnswer]:
        answers: list[OffsetAnswer] = []
        for at in range(0, len(asked), _AT_ONCE):
            answers += await asyncio.gather(
                *[self._answer(each) for each in asked[at : at + _AT_ONCE]]
            )
        return answers

    async def _answer(self, asked: tuple[PartitionAccess, Place] | OffsetAnswer) -> OffsetAnswer:
        if isinstance(asked, OffsetAnswer):
            return asked
        access, place = asked
        answer = OffsetAnswer(
            topic=access.topic, topic_id=access.id.topic_id, partition=access.id.partition
        )
        try:
            found = None
            if place.kind is PlaceKind.TIME:
                found = await access.offset_at_time(place.value)
            marks = await access.watermarks()
        except Refusal as refusal:
            answer.error.CopyFrom(self._services.write_error(refusal))
            return answer
        answer.leader_epoch = marks.leader_epoch
        answer.high_watermark = marks.high_watermark
        if found is not None:
            answer.offset, answer.timestamp_ms = found
        elif place.kind is PlaceKind.LATEST:
            answer.offset = marks.high_watermark
        elif place.kind is PlaceKind.EARLIEST:
            answer.offset = marks.log_start_offset
        return answer


def _query_place(query: OffsetQuery) -> Place:
    if query.WhichOneof("at") == "from":
        value: int = getattr(query, "from")
        if value == consumer_pb2.FROM_COMMITTED:
            raise Refusal(
                Reason.INVALID_REQUEST,
                "ListOffsets knows FROM_EARLIEST and FROM_LATEST; ask FetchOffsets for what a "
                "group has committed",
            )
        if value not in consumer_pb2.From.values():
            raise unknown_value("from", value, consumer_pb2.From.keys())
    return place_of(query, "")


def _known_offset(access: PartitionAccess, value: Committed | None) -> GroupOffset:
    offset = GroupOffset(
        topic=access.topic, topic_id=access.id.topic_id, partition=access.id.partition
    )
    if value is None:
        offset.none.CopyFrom(NoCommittedOffset())
    else:
        offset.committed.CopyFrom(
            CommittedOffset(
                offset=value.offset,
                leader_epoch=value.leader_epoch,
                metadata=value.metadata,
                commit_time_ms=value.commit_time_ms,
            )
        )
    return offset
