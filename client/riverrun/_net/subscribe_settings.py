"""What a consumer asks of each of its streams, checked, and in the words of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from riverrun._core.argument_checks import (
    INT32_MAX,
    by_partition,
    check_callable,
    is_whole,
    out_of_range,
    topic_partition,
    whole_number,
)
from riverrun._core.records import From, Last, Offset, PositionReset, Time, TopicPartition
from riverrun.errors import Reason, UsageError
from riverrun.v1 import consumer_pb2 as pb

_NAMED = {
    "earliest": pb.FROM_EARLIEST,
    "latest": pb.FROM_LATEST,
    "committed": pb.FROM_COMMITTED,
}
_RESETS = {
    None: pb.OFFSET_RESET_UNSPECIFIED,
    "error": pb.OFFSET_RESET_ERROR,
    "earliest": pb.OFFSET_RESET_EARLIEST,
    "latest": pb.OFFSET_RESET_LATEST,
}


@dataclass(frozen=True, slots=True)
class SubscribeSettings:
    """What a consumer reads.

    Attributes:
        topics: all partitions of each, beside what is named in `places`.
        group: whose committed offsets to use; empty for none.
        begin_at: where to begin in the partitions of `topics`.
        offset_reset: where to go on from a position out of range, as on the wire.
        places: explicit partitions and where to begin in each.
        committed_first: those of them where what the group has committed comes first.
        stop_at_end: end at the high watermarks found at the start.
        prefetch_bytes: how much may be read ahead.
        on_reset: told of each position that was out of range.
        chosen: the application has said where to begin.
    """

    topics: tuple[str, ...]
    group: str
    begin_at: From
    offset_reset: pb.OffsetReset.ValueType
    places: Mapping[TopicPartition, From]
    committed_first: tuple[TopicPartition, ...]
    stop_at_end: bool
    prefetch_bytes: int
    on_reset: Callable[[PositionReset], None] | None = None
    chosen: bool = False

    def follows_group(self, partition: TopicPartition) -> bool:
        """Whether what the group has committed comes before `begin_at` and `places`."""
        explicit = partition in self.places
        return bool(self.group) and (not explicit or partition in self.committed_first)


def checked_settings(
    topics: tuple[str, ...],
    *,
    group: str | None,
    from_: From | None,
    partitions: Iterable[int | TopicPartition] | Mapping[TopicPartition, From] | None,
    offset_reset: str | None,
    stop_at_end: bool,
    prefetch_bytes: int,
    on_reset: Callable[[PositionReset], None] | None = None,
    pattern: str | None = None,
) -> SubscribeSettings:
    """Check what a consumer shall read.

    Raises:
        UsageError: nothing to read, or settings that contradict each other.
    """
    if group is not None and not isinstance(group, str):
        raise out_of_range("group", group, 'its name, a str such as "billing", or None')
    check_callable("on_reset", on_reset)
    whole_number("prefetch_bytes", prefetch_bytes, 1)
    for topic in topics:
        if not isinstance(topic, str):
            raise _refused(
                f"{topic!r} is no topic's name; pass topics as separate arguments: "
                'client.consumer("orders", "clicks")'
            )
    begin_at: From = "earliest" if from_ is None else from_
    places: dict[TopicPartition, From] = {}
    explicit: list[TopicPartition] = []
    if isinstance(partitions, Mapping):
        places.update(by_partition("partitions", partitions))
    else:
        explicit = _explicit(() if partitions is None else partitions, topics)
        places.update(dict.fromkeys(explicit, begin_at))
    for at in (begin_at, *places.values()):
        check_place(at, group)
    whole = _whole_topics(topics, places, pattern)
    if not isinstance(offset_reset, str | None) or offset_reset not in _RESETS:
        raise _refused(f'offset_reset is {offset_reset!r}; use "earliest", "latest" or "error"')
    return SubscribeSettings(
        topics=whole,
        group=group or "",
        begin_at=begin_at,
        offset_reset=_RESETS[offset_reset],
        places=places,
        committed_first=tuple(explicit) if group else (),
        stop_at_end=stop_at_end,
        prefetch_bytes=prefetch_bytes,
        on_reset=on_reset,
        chosen=from_ not in (None, "committed"),
    )


def place_start(start: pb.SubscribeStart, at: From) -> None:
    """Say in a stream's start where to begin in whole topics."""
    match at:
        case Offset(offset):
            start.from_offset = offset
        case Time(time_ms):
            start.from_time_ms = time_ms
        case Last(records):
            start.from_last = records
        case _:
            # "from" is a word of Python.
            setattr(start, "from", _NAMED[at])


def start_position(partition: TopicPartition, topic_id: bytes, at: From) -> pb.StartPosition:
    """Return one partition and where to begin in it."""
    position = pb.StartPosition(
        topic=partition.topic, topic_id=topic_id, partition=partition.partition
    )
    match at:
        case Offset(offset):
            position.offset = offset
        case Time(time_ms):
            position.time_ms = time_ms
        case Last(records):
            position.last = records
        case _:
            setattr(position, "from", _NAMED[at])
    return position


def check_place(at: From, group: str | None) -> None:
    """Check a place.

    Raises:
        UsageError: it is none.
    """
    match at:
        case Offset(number) | Last(number):
            wrong = not is_whole(number)
        case Time():
            wrong = False
        case _:
            wrong = not isinstance(at, str) or at not in _NAMED
    if wrong:
        raise _refused(
            f'{at!r} is no place to read from; use "earliest", "latest", "committed", Offset(n), '
            "Time(ms) or Last(n), with n not below 0"
        )
    if at == "committed" and not group:
        raise _refused('from_ "committed" needs a group: client.consumer(topic, group=...)')


def _explicit(
    partitions: Iterable[int | TopicPartition], topics: tuple[str, ...]
) -> list[TopicPartition]:
    """Return what is named: numbers count in each of the topics."""
    single = isinstance(partitions, str | TopicPartition)
    if single or not isinstance(partitions, Iterable):
        raise out_of_range(
            "partitions", partitions, 'several, as [0, 1] or [riverrun.TopicPartition("orders", 0)]'
        )
    explicit: list[TopicPartition] = []
    for one in partitions:
        if isinstance(one, tuple | str):
            explicit.append(topic_partition(one))
            continue
        number = whole_number("a partition", one, 0, INT32_MAX)
        if not topics:
            raise _refused(f"partition {number} is named without a topic")
        explicit += [topic_partition((topic, number)) for topic in topics]
    return explicit


def _whole_topics(
    topics: tuple[str, ...], places: Mapping[TopicPartition, From], pattern: str | None
) -> tuple[str, ...]:
    """Return the topics of which no partition is named, and check that there is something."""
    named = {partition.topic for partition in places}
    whole = tuple(dict.fromkeys(topic for topic in topics if topic not in named))
    if not whole and not places and not pattern:
        raise _refused("there is nothing to read: name topics, or partitions")
    if not all(whole):
        raise _refused("a topic's name is empty")
    return whole


def _refused(text: str) -> UsageError:
    return UsageError(text, reason=Reason.INVALID_REQUEST)
