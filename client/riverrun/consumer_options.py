"""The settings of a consumer that do not bear on what its records are, for type checkers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from riverrun._core.records import CommitMode, From, OffsetReset, PositionReset, TopicPartition
from riverrun._net.member_settings import MemberOptions


class ConsumerOptions(MemberOptions, total=False):
    """What `Client.consumer` takes beside topics and deserializers; it says what each one means."""

    group: str | None
    from_: From | None
    partitions: Iterable[int | TopicPartition] | Mapping[TopicPartition, From] | None
    offset_reset: OffsetReset | None
    stop_at_end: bool
    prefetch_bytes: int
    on_reset: Callable[[PositionReset], None] | None
    commit: CommitMode
    commit_interval_s: float
