"""Requests of readers as values: places, forms, policies, every field checked and bounded."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, Protocol

from google.protobuf.duration_pb2 import Duration

from riverrun.v1 import consumer_pb2
from riverrun.v1.consumer_pb2 import OffsetCommit as OffsetCommitMessage
from riverrun.v1.consumer_pb2 import StartPosition, TopicPartition
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import OffsetCommit
from riverrun_server.core.reading.control import PartitionName
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import (
    COMMITTED,
    EARLIEST,
    LATEST,
    Place,
    PlaceKind,
    ResetPolicy,
)
from riverrun_server.wire import forms
from riverrun_server.wire.deliveries import HEADER_BYTES_MAX
from riverrun_server.wire.forms import Form

_NAMED_PLACES: dict[int, Place] = {
    consumer_pb2.FROM_UNSPECIFIED: EARLIEST,
    consumer_pb2.FROM_EARLIEST: EARLIEST,
    consumer_pb2.FROM_LATEST: LATEST,
    consumer_pb2.FROM_COMMITTED: COMMITTED,
}
_RESETS: dict[int, ResetPolicy] = {
    consumer_pb2.OFFSET_RESET_ERROR: ResetPolicy.ERROR,
    consumer_pb2.OFFSET_RESET_EARLIEST: ResetPolicy.EARLIEST,
    consumer_pb2.OFFSET_RESET_LATEST: ResetPolicy.LATEST,
}


class HasPlace(Protocol):
    """A message with `oneof at`; its fields are named alike but for a prefix."""

    def WhichOneof(  # noqa: N802 - protobuf's name
        self, oneof_group: Literal["at"], /
    ) -> str | None:
        """Return which of the places is set."""
        ...


def place_of(message: HasPlace, group_id: str) -> Place:
    """Return the place that a message names; the earliest where it names none.

    Raises:
        Refusal: INVALID_REQUEST.
    """
    which = message.WhichOneof("at")
    if which is None:
        return EARLIEST
    value: int = getattr(message, which)
    if which == "from":
        place = _NAMED_PLACES.get(value)
        if place is None:
            raise unknown_value("from", value, consumer_pb2.From.keys())
        if place is COMMITTED and not group_id:
            raise Refusal(
                Reason.INVALID_REQUEST,
                "FROM_COMMITTED needs a group whose committed offsets it means; set `group_id`",
            )
        return place
    kind = _kind_of(which)
    if value < 0 and kind is not PlaceKind.TIME:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"{which} is {value} and must not be negative; for the ends of a log set `from` to "
            "FROM_EARLIEST or FROM_LATEST",
        )
    return Place(kind, value)


def _kind_of(field: str) -> PlaceKind:
    match field.removeprefix("from_"):
        case "offset":
            return PlaceKind.OFFSET
        case "time_ms":
            return PlaceKind.TIME
        case "last":
            return PlaceKind.LAST
    raise AssertionError(field)


def place_of_position(position: StartPosition, group_id: str) -> Place:
    """Return the place of an explicit position, with the epoch before it.

    Raises:
        Refusal: INVALID_REQUEST.
    """
    place = place_of(position, group_id)
    if not position.HasField("leader_epoch"):
        return place
    if place.kind is not PlaceKind.OFFSET or position.leader_epoch < 0:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"leader_epoch {position.leader_epoch} is that of the record before `offset`, from "
            "its delivery; set it only beside an offset, and never below 0",
        )
    return Place(place.kind, place.value, position.leader_epoch)


def partition_name(message: StartPosition | TopicPartition) -> PartitionName:
    """Return the partition that a message names."""
    return PartitionName(message.topic, message.topic_id, message.partition)


def reset_policy(value: int, group_id: str) -> ResetPolicy:
    """Return what happens to a position out of range.

    Raises:
        Refusal: INVALID_REQUEST.
    """
    if value == consumer_pb2.OFFSET_RESET_UNSPECIFIED:
        return ResetPolicy.EARLIEST if group_id else ResetPolicy.ERROR
    policy = _RESETS.get(value)
    if policy is None:
        raise unknown_value("offset_reset", value, consumer_pb2.OffsetReset.keys())
    return policy


def form_of(value: int, accept_codecs: Sequence[int]) -> Form:
    """Return the form of deliveries. Codecs that this broker does not know do no harm.

    Raises:
        Refusal: INVALID_REQUEST.
    """
    if value in (consumer_pb2.FORM_UNSPECIFIED, consumer_pb2.FORM_RECORDS):
        return forms.RECORDS
    if value == consumer_pb2.FORM_BATCHES:
        return forms.batches(accept_codecs)
    raise unknown_value("form", value, consumer_pb2.Form.keys())


def commits_on_delivery(value: int, group_id: str) -> bool:
    """Return whether the broker commits.

    Raises:
        Refusal: INVALID_REQUEST.
    """
    if value in (consumer_pb2.COMMIT_MODE_UNSPECIFIED, consumer_pb2.COMMIT_MODE_EXPLICIT):
        return False
    if value != consumer_pb2.COMMIT_MODE_ON_DELIVERY:
        raise unknown_value("commit_mode", value, consumer_pb2.CommitMode.keys())
    if not group_id:
        raise Refusal(
            Reason.INVALID_REQUEST,
            "COMMIT_MODE_ON_DELIVERY needs a group to commit for; set `group_id`",
        )
    return True


def frame_room(max_frame_bytes: int, limits: ReadingLimits) -> int:
    """Return how many bytes of records one message aims at.

    Raises:
        Refusal: INVALID_REQUEST.
    """
    check_not_negative("max_frame_bytes", max_frame_bytes)
    frame = min(max_frame_bytes or limits.frame_bytes, limits.frame_bytes_max)
    return max(1, frame - HEADER_BYTES_MAX)


def commits_of(messages: Sequence[OffsetCommitMessage]) -> list[OffsetCommit]:
    """Return the offsets of a commit."""
    return [
        OffsetCommit(
            each.topic,
            each.topic_id,
            each.partition,
            each.offset,
            each.leader_epoch if each.HasField("leader_epoch") else None,
            each.metadata,
        )
        for each in messages
    ]


def seconds_of(field: str, duration: Duration) -> float:
    """Return a duration in seconds.

    Raises:
        Refusal: INVALID_REQUEST for a negative one.
    """
    seconds = duration.seconds + duration.nanos / 1e9
    if seconds < 0:
        raise Refusal(
            Reason.INVALID_REQUEST, f"{field} is {seconds} s and must not be negative; 0 is at once"
        )
    return seconds


def check_not_negative(field: str, value: int) -> None:
    """Check a count or a size.

    Raises:
        Refusal: INVALID_REQUEST.
    """
    if value < 0:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"{field} is {value} and must not be negative; leave it out for the default",
        )


def check_count(field: str, count: int, limits: ReadingLimits) -> None:
    """Check how many partitions a call names.

    Raises:
        Refusal: LIMIT_EXCEEDED.
    """
    if count > limits.partitions_per_call:
        raise Refusal(
            Reason.LIMIT_EXCEEDED,
            f"{field} come to {count} partitions and one call may name "
            f"{limits.partitions_per_call} (max_partitions_per_call); split it",
        )


def unknown_value(field: str, value: int, names: Collection[str]) -> Refusal:
    """Return the refusal of an enum's value that means nothing."""
    return Refusal(
        Reason.INVALID_REQUEST,
        f"{field} is {value}, which means nothing here; use one of {', '.join(names)}",
    )
