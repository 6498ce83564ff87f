"""Records and places in logs, as applications see them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Generic, Literal, NamedTuple, TypeAlias

from riverrun._core.headers import own_headers
from riverrun._core.type_parameters import K, K_co, V, V_co
from riverrun.errors import Reason, RiverrunError, UsageError

Headers: TypeAlias = Sequence[tuple[str, bytes]]
"""Names and values beside a record's own; names may repeat and their order is kept."""


class TopicPartition(NamedTuple):
    """One partition of one topic.

    Example:
        place = riverrun.TopicPartition("orders", 0)
        print(await consumer.position(place))
    """

    topic: str
    partition: int

    def __str__(self) -> str:
        """Name it for messages."""
        return f"{self.topic}[{self.partition}]"


class Record(NamedTuple, Generic[K, V]):
    """A record as it was read: `Record` has bytes, `Record[str, Order]` what deserializers made.

    Attributes:
        topic: where it stands.
        partition: where it stands.
        offset: its place in the partition.
        timestamp_ms: when it happened, in ms since 1970: the producer's time, else the append's.
        key: None where it has none.
        value: None for a tombstone, which is not the same as empty.
        headers: what travelled with it, in order.

    Example:
        async for record in client.consumer("orders", stop_at_end=True):
            print(record.offset, record.key, record.value)
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: K | None
    value: V | None
    headers: Headers = ()

    @property
    def topic_partition(self) -> TopicPartition:
        """Where it stands, as `seek`, `commit` and the like want it."""
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class NewRecord(Generic[K_co, V_co]):
    """A record to be written by `send_many`, with all that `send` takes.

    Attributes:
        value: the payload; None is a tombstone, which is not the same as empty.
        key: keeps records together and in order: equal keys go to one partition.
        headers: anything else that travels with it; it keeps a copy.
        timestamp_ms: when it happened, in ms since 1970, not below 0; None is now.

    Example:
        record = riverrun.NewRecord(b"2 apples", key=b"anna", headers=[("shop", b"3")])
        await producer.send_many("orders", [record])
    """

    value: V_co | None
    key: K_co | None = None
    headers: Headers = ()
    timestamp_ms: int | None = None

    def __post_init__(self) -> None:
        """Keep headers of its own: a list that is filled anew for each record would change all.

        Raises:
            UsageError: they are not pairs.
        """
        if self.headers != ():
            object.__setattr__(self, "headers", own_headers(self.headers))


class RecordMetadata(NamedTuple):
    """Where a record went.

    Attributes:
        topic: the topic.
        partition: the partition.
        offset: its place there; None for a record that had been written before so long ago that
            the broker has forgotten where.
        timestamp_ms: the timestamp that it carries.

    Example:
        where = await producer.send("orders", b"2 apples")
        print(where.topic, where.partition, where.offset)
    """

    topic: str
    partition: int
    offset: int | None
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class SendSummary:
    """What `send_many` has written.

    Attributes:
        topic: the topic.
        records: how many records were acknowledged.
        bytes: how many bytes they took, encoded, before compression.
        batches: in how many batches.
        offsets: per partition the first offset, and the one behind the last. Other producers'
            records may stand in between.

    Example:
        summary = await producer.send_many("orders", [b"1", b"2", b"3"])
        for partition, (first, end) in summary.offsets.items():
            print(partition, first, end)
    """

    topic: str
    records: int = 0
    bytes: int = 0
    batches: int = 0
    offsets: Mapping[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Offset:
    """Start at this offset.

    Example:
        consumer = client.consumer("orders", from_=riverrun.Offset(0))
    """

    offset: int


@dataclass(frozen=True, slots=True, init=False)
class Time:
    """Start at the first record whose timestamp is this or later, in ms since 1970.

    Args:
        time_ms: that, or a datetime that knows its time zone. What lies between two ms counts as the
            later one.

    Raises:
        UsageError: it is something else, or not within 64 bits.

    Example:
        midnight_ms = int(time.time()) // 86_400 * 86_400_000
        consumer = client.consumer("orders", from_=riverrun.Time(midnight_ms))
    """

    time_ms: int

    def __init__(self, time_ms: float | datetime) -> None:
        """Take the time."""
        object.__setattr__(self, "time_ms", _whole_ms(time_ms))


@dataclass(frozen=True, slots=True)
class Last:
    """Start so many records before the end of each partition.

    Example:
        consumer = client.consumer("orders", from_=riverrun.Last(10))
    """

    records: int


From: TypeAlias = Literal["earliest", "latest", "committed"] | Offset | Time | Last
"""A place in a log. "committed" is where the group has come to, else the earliest."""

OffsetReset: TypeAlias = Literal["earliest", "latest", "error"]
"""Where to go on from a position that is out of range."""

CommitMode: TypeAlias = Literal["manual", "auto", "at_most_once"]
"""Who commits, and when. "manual": the application, by `Consumer.commit`. "auto": the consumer, in the
background, what the application has finished with: each record at least once. "at_most_once": the
consumer, before it returns records: each record at most once."""


class PositionReset(NamedTuple):
    """A position that was out of range, so that reading goes on elsewhere.

    Attributes:
        partition: where.
        old_offset: where reading could not go on.
        new_offset: where it does.
        cause: why, with the offsets that can be read.

    Example:
        def skipped(reset):
            print(reset.partition, "lost", reset.old_offset, "to", reset.new_offset)

        consumer = client.consumer("orders", offset_reset="earliest", on_reset=skipped)
    """

    partition: TopicPartition
    old_offset: int
    new_offset: int
    cause: RiverrunError


class OffsetAndTimestamp(NamedTuple):
    """A record found by its time: its offset and its timestamp, in ms since 1970.

    Example:
        place = riverrun.TopicPartition("orders", 0)
        found = (await consumer.offsets_for_times({place: 0}))[place]
        if found is not None:
            print(found.offset, found.timestamp_ms)
    """

    offset: int
    timestamp_ms: int


class CommittedOffset(NamedTuple):
    """How far a group has come in one partition.

    Attributes:
        offset: the next offset to read.
        metadata: what the application stored beside it.
        leader_epoch: of the last record read, where it was given.
        commit_time_ms: when it was committed, in ms since 1970.

    Example:
        place = riverrun.TopicPartition("orders", 0)
        await admin.commit_group_offsets("billing", {place: riverrun.CommittedOffset(2, metadata="by hand")})
    """

    offset: int
    metadata: str = ""
    leader_epoch: int | None = None
    commit_time_ms: int = 0


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_INT64 = 2**63


def _whole_ms(time: object) -> int:
    ms: int | None = None
    match time:
        case bool():
            pass
        case int():
            ms = time
        case float() if math.isfinite(time):
            ms = math.ceil(time)
        case datetime() if time.tzinfo is not None:
            ms = -((_EPOCH - time) // _MS)
    if ms is None or not -_INT64 <= ms < _INT64:
        raise UsageError(
            f"{time!r} is no time; use ms since 1970, or a datetime that knows its time zone, such as "
            "datetime.now(UTC)",
            reason=Reason.INVALID_REQUEST,
        )
    return ms
