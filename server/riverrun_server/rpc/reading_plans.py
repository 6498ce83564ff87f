"""From the request of a stream to what it reads, from where and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from riverrun.v1.consumer_pb2 import ReadRequest, StartPosition, SubscribeStart
from riverrun.v1.text_pb2 import TailRequest
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import check_group_id
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.events import PartitionFailed
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import Place, PlaceKind, Position, ResetPolicy
from riverrun_server.core.reading.subscription import SubscriptionSettings
from riverrun_server.ports.partitions import Directory, PartitionAccess
from riverrun_server.rpc.reading_requests import (
    check_count,
    check_not_negative,
    commits_on_delivery,
    form_of,
    frame_room,
    partition_name,
    place_of,
    place_of_position,
    reset_policy,
)
from riverrun_server.runtime.offsets import GroupOffsets
from riverrun_server.runtime.places import Wanted, positions_at, settled
from riverrun_server.wire import forms
from riverrun_server.wire.forms import Form

# How a failure names all partitions of a topic.
WHOLE_TOPIC = -1
_NOT_THERE = frozenset(
    {Reason.TOPIC_NOT_FOUND, Reason.PARTITION_NOT_FOUND, Reason.TOPIC_ID_MISMATCH}
)


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    """What a stream reads and how.

    Attributes:
        wanted: partitions and where to begin in each.
        settings: of the subscription.
        form: how deliveries look.
        group_id: whose committed offsets count; empty where there is no group.
        commit_on_delivery: whether the broker commits.
        missing: what was asked for and is not there; the stream reads the rest.
    """

    wanted: Sequence[Wanted]
    settings: SubscriptionSettings
    form: Form
    group_id: str = ""
    commit_on_delivery: bool = False
    missing: Sequence[PartitionFailed] = ()


class PartitionList:
    """Partitions that a call names, each once and not too many.

    Args:
        directory: finds them.
        limits: how many one call may name.
        direct: nothing is to be read from other brokers.
    """

    def __init__(
        self, directory: Directory, limits: ReadingLimits, *, direct: bool = False
    ) -> None:
        self._directory = directory
        self._direct = direct
        self._limits = limits
        self._wanted: dict[PartitionId, Wanted] = {}
        self.missing: list[PartitionFailed] = []

    def add_positions(self, positions: Sequence[StartPosition], group_id: str) -> None:
        """Add explicit positions.

        Raises:
            Refusal: of a name or a place; INVALID_REQUEST for a partition named twice.
        """
        check_count("positions", len(positions), self._limits)
        for position in positions:
            name = partition_name(position)
            place = place_of_position(position, group_id)
            try:
                access = self._directory.partition(*name)
            except Refusal as refusal:
                self._miss(PartitionFailed(*name, refusal))
            else:
                self._add(access, place)

    def add_topic(self, topic: str, place: Place) -> None:
        """Add all partitions of a topic that have no explicit position.

        A topic that gets partitions later does not change the stream: `started` has those that it
        reads.

        Raises:
            Refusal: of the name; LIMIT_EXCEEDED.
        """
        try:
            accesses = self._directory.partitions(topic)
        except Refusal as refusal:
            self._miss(PartitionFailed(topic, b"", WHOLE_TOPIC, refusal))
            return
        check_count("topics and positions", len(self._wanted) + len(accesses), self._limits)
        for access in accesses:
            if access.id not in self._wanted:
                self._wanted[access.id] = Wanted(self._seen(access), place)

    def add_partition(self, topic: str, partition: int, place: Place) -> None:
        """Add one partition of a topic.

        Raises:
            Refusal: of the name; INVALID_REQUEST for a partition named twice.
        """
        self._add(self._directory.partition(topic, b"", partition), place)

    def _add(self, access: PartitionAccess, place: Place) -> None:
        if access.id in self._wanted:
            raise Refusal(
                Reason.INVALID_REQUEST,
                f"partition {access.id.partition} of topic {access.topic!r} is named twice; name "
                "each once",
            )
        self._wanted[access.id] = Wanted(self._seen(access), place)

    def _seen(self, access: PartitionAccess) -> PartitionAccess:
        return access.direct() if self._direct else access

    def _miss(self, failed: PartitionFailed) -> None:
        """Note what is not there: one deleted topic must not end a stream of many."""
        if failed.refusal.reason not in _NOT_THERE:
            raise failed.refusal
        self.missing.append(failed)

    def wanted(self, hint: str) -> list[Wanted]:
        """Return the partitions.

        Raises:
            Refusal: INVALID_REQUEST where there are none; where none is there, why the first is not.
        """
        if not self._wanted and self.missing:
            raise self.missing[0].refusal
        if not self._wanted:
            raise Refusal(Reason.INVALID_REQUEST, f"the request names nothing to read; {hint}")
        return list(self._wanted.values())


def subscribe_plan(
    start: SubscribeStart, directory: Directory, limits: ReadingLimits
) -> ReadingPlan:
    """Return what a Subscribe stream reads.

    Raises:
        Refusal: INVALID_REQUEST, LIMIT_EXCEEDED, or of a name.
    """
    group_id = start.group_id
    if group_id:
        check_group_id(group_id)
    partitions = PartitionList(directory, limits, direct=start.do_not_proxy)
    partitions.add_positions(start.positions, group_id)
    place = place_of(start, group_id)
    if group_id and place.kind is not PlaceKind.COMMITTED:
        place = Place(PlaceKind.COMMITTED, otherwise=place)
    check_distinct(start.topics)
    for topic in start.topics:
        partitions.add_topic(topic, place)
    return ReadingPlan(
        partitions.wanted("set `topics`, or `positions`"),
        subscription_settings(start, limits),
        form_of(start.form, start.accept_codecs),
        group_id,
        commits_on_delivery(start.commit_mode, group_id),
        partitions.missing,
    )


def subscription_settings(
    start: SubscribeStart, limits: ReadingLimits, *, is_member: bool = False
) -> SubscriptionSettings:
    """Return how a Subscribe stream delivers.

    Raises:
        Refusal: INVALID_REQUEST.
    """
    credit = start.initial_credit
    check_not_negative("initial_credit.records", credit.records)
    check_not_negative("initial_credit.bytes", credit.bytes)
    check_not_negative("max_records", start.max_records)
    return SubscriptionSettings(
        frame_bytes=frame_room(start.max_frame_bytes, limits),
        credit_records=credit.records if credit.HasField("records") else None,
        credit_bytes=credit.bytes if credit.HasField("bytes") else None,
        max_records=start.max_records or None,
        stop_at_end=start.stop_at_end,
        reset=reset_policy(start.offset_reset, start.group_id),
        is_member=is_member,
    )


def read_plan(request: ReadRequest, directory: Directory, limits: ReadingLimits) -> ReadingPlan:
    """Return what a Read stream reads.

    Raises:
        Refusal: INVALID_REQUEST, LIMIT_EXCEEDED, or of a name.
    """
    group_id = request.group_id
    if group_id:
        check_group_id(group_id)
    partitions = PartitionList(directory, limits, direct=request.do_not_proxy)
    flat = request.topic or request.HasField("partition") or request.WhichOneof("at") is not None
    if flat and request.positions:
        raise Refusal(
            Reason.INVALID_REQUEST,
            "a request is flat (topic, partition, a place) or has `positions`, not both",
        )
    if flat:
        _add_flat(partitions, request, place_of(request, group_id))
    else:
        partitions.add_positions(request.positions, group_id)
    check_not_negative("max_records", request.max_records)
    return ReadingPlan(
        partitions.wanted("set `topic`, or `positions`"),
        SubscriptionSettings(
            frame_bytes=frame_room(request.max_frame_bytes, limits),
            max_records=request.max_records or None,
            stop_at_end=request.stop_at_end,
            reset=reset_policy(request.offset_reset, group_id),
        ),
        form_of(request.form, request.accept_codecs),
        group_id,
        missing=partitions.missing,
    )


def tail_plan(request: TailRequest, directory: Directory, limits: ReadingLimits) -> ReadingPlan:
    """Return what a Tail stream reads.

    Raises:
        Refusal: INVALID_REQUEST, LIMIT_EXCEEDED, or of a name.
    """
    partitions = PartitionList(directory, limits)
    _add_flat(partitions, request, place_of(request, ""))
    check_not_negative("max_records", request.max_records)
    settings = SubscriptionSettings(
        frame_bytes=frame_room(0, limits),
        max_records=request.max_records or None,
        stop_at_end=request.stop_at_end,
        reset=ResetPolicy.ERROR,
    )
    return ReadingPlan(partitions.wanted("set `topic`"), settings, forms.TEXT)


async def places_of(
    wanted: Sequence[Wanted], offsets: GroupOffsets, group_id: str
) -> list[Position | Refusal]:
    """Return where each partition begins, or why that partition cannot tell.

    Raises:
        Refusal: COORDINATOR_LOADING, where the group's offsets are needed and not known yet.
    """
    if any(each.place.kind is PlaceKind.COMMITTED for each in wanted):
        committed = await offsets.committed(group_id, [each.access.id for each in wanted])
        wanted = [
            each._replace(place=settled(each.place, each.access.id, committed)) for each in wanted
        ]
    return await positions_at(wanted)


def _add_flat(partitions: PartitionList, request: ReadRequest | TailRequest, place: Place) -> None:
    if not request.topic:
        raise Refusal(Reason.INVALID_REQUEST, "the request names no topic; set `topic`")
    if request.HasField("partition"):
        partitions.add_partition(request.topic, request.partition, place)
    else:
        partitions.add_topic(request.topic, place)


def check_distinct(topics: Sequence[str]) -> None:
    """Check that no topic is named twice.

    Raises:
        Refusal: INVALID_REQUEST.
    """
    seen: set[str] = set()
    for topic in topics:
        if topic in seen:
            raise Refusal(Reason.INVALID_REQUEST, f"topic {topic!r} is named twice; name each once")
        seen.add(topic)
