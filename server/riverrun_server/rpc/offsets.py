"""CommitOffset, FetchOffsets and ListOffsets: an answer or an error for each partition."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from riverrun.v1 import consumer_pb2
from riverrun.v1.consumer_pb2 import (
    CommitOffsetRequest,
    CommitOffsetResponse,
    CommittedOffset,
    FetchOffsetsRequest,
    FetchOffsetsResponse,
    GroupOffset,
    LeaveGroupRequest,
    LeaveGroupResponse,
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
from riverrun_server.ports.membership import Coordination
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.rpc.reading_requests import (
    check_count,
    check_not_negative,
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
        coordination: finds the coordinators of groups.
    """

    def __init__(self, services: ReadingServices, coordination: Coordination) -> None:
        self._services = services
        self._coordination = coordination

    async def commit(self, request: CommitOffsetRequest) -> CommitOffsetResponse:
        """Store how far a group has come.

        Raises:
            Refusal: the request is wrong as a whole.
        """
        check_group_id(request.group_id)
        if not request.offsets:
            raise Refusal(Reason.INVALID_REQUEST, "the request commits nothing; set `offsets`")
        check_count("offsets", len(request.offsets), self._services.limits)
        outcomes = await self._coordination.commit(
            request.group_id, commits_of(request.offsets), _committer(request)
        )
        write_error = self._services.write_error
        return CommitOffsetResponse(results=[commit_result(each, write_error) for each in outcomes])

    async def leave(self, request: LeaveGroupRequest) -> LeaveGroupResponse:
        """Let a member go.

        Raises:
            Refusal: UNKNOWN_MEMBER, MEMBER_TAKEN_OVER; the request is wrong.
        """
        check_group_id(request.group_id)
        if not request.member_id:
            raise Refusal(
                Reason.INVALID_REQUEST,
                "the request names no member; set `member_id` and `token` from "
                "`SubscribeStarted.member`, or ask GroupService to remove one",
            )
        await self._coordination.leave(
            request.group_id, request.member_id, request.token, temporary=request.temporary
        )
        return LeaveGroupResponse()

    async def fetch(self, request: FetchOffsetsRequest) -> FetchOffsetsResponse:
        """Tell how far a group has come.

        Raises:
            Refusal: the request is wrong as a whole, or COORDINATOR_LOADING.
        """
        check_group_id(request.group_id)
        check_count("partitions", len(request.partitions), self._services.limits)
        committed = await self._services.offsets.committed(
            request.group_id, self._known(request.partitions) if request.partitions else None
        )
        if request.partitions:
            return FetchOffsetsResponse(
                offsets=[self._group_offset(each, committed) for each in request.partitions]
            )
        return self._all_offsets(request.group_id, committed)

    def _known(self, partitions: Iterable[consumer_pb2.TopicPartition]) -> list[PartitionId]:
        """Return those partitions that are there."""
        known = []
        for each in partitions:
            with contextlib.suppress(Refusal):
                known.append(self._services.directory.partition(*partition_name(each)).id)
        return known

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


class _Member(NamedTuple):
    """Implements ports.membership.Committer for a commit that comes on no stream."""

    member_id: str
    epoch: int
    attachment: int | None = None


def _committer(request: CommitOffsetRequest) -> _Member | None:
    if not request.member_id:
        if request.member_epoch:
            raise Refusal(
                Reason.INVALID_REQUEST,
                f"member_epoch {request.member_epoch} is given and no member; set `member_id`, too",
            )
        return None
    check_not_negative("member_epoch", request.member_epoch)
    return _Member(request.member_id, request.member_epoch)


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
