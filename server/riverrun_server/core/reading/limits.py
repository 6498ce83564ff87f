"""The bounds of reading, each with where its number comes from."""

from __future__ import annotations

from dataclasses import dataclass

from riverrun_server.core.limits import Limits

# What a piece costs in a message beside its bytes: its tag and its length.
PIECE_OVERHEAD_BYTES = 5

_LIMITS = Limits()
# Everything in a message that is not records: names, offsets, errors of other partitions.
_MARGIN_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingLimits:
    """What a reader may ask for, and what it may cost.

    Attributes:
        frame_bytes: what a message aims at unless the reader asks for less or more. A message costs
            about 0.2 ms whatever its size up to 64 KB, and beyond 1 MiB nothing is gained.
        frame_bytes_max: the largest message, so that an untuned stub accepts it; the margin holds
            everything in a message that is not records.
        partitions_per_call: the most partitions in one call.
        heartbeat_interval_s: how often a stream gives a sign of life.
        fetch_wait_s_max: how long Fetch waits at the most.
        fetches_waiting: how many may wait at once; the other places are for calls that do not.
        disk_wait_s_max: how long Fetch waits for the disk where it knows that there is something.
        answer_wait_s_max: how long Fetch waits for the disk where it has something to answer with.
        control_waiting: control messages read from a stream ahead of their turn.
        member_control_waiting: the same for a member's stream, whose heartbeats must be heard behind them.
        member_commits_waiting: commits of a member that may wait to become durable; further ones are refused.
        commits_waiting: commits of one stream that may wait to become durable.
        run_bytes: what is taken apart in one step. Records are 3-10 times as large in memory as on
            the wire, and a subscriber that does not read holds one step.
        read_ahead_bytes: what all cursors of one stream together may hold, as long as each may hold
            `chunk_bytes_min`; and what one Fetch may have on its way from the disk, as long as one
            partition may.
        crowded_bytes: what is delivered from memory although there is no room for deliveries: who
            keeps up must not suffer from those who do not.
        chunk_bytes_min: the least that a cursor reads in one step.
    """

    frame_bytes: int = 1 << 20
    frame_bytes_max: int = _LIMITS.max_frame_bytes - _MARGIN_BYTES
    partitions_per_call: int = _LIMITS.max_partitions_per_call
    heartbeat_interval_s: float = 3.0
    fetch_wait_s_max: float = _LIMITS.max_fetch_wait_ms / 1000
    fetches_waiting: int = 2048
    disk_wait_s_max: float = 10.0
    answer_wait_s_max: float = 1.0
    control_waiting: int = 16
    member_control_waiting: int = 128
    member_commits_waiting: int = 256
    commits_waiting: int = 16
    run_bytes: int = 256 << 10
    read_ahead_bytes: int = 8 << 20
    crowded_bytes: int = 64 << 10
    chunk_bytes_min: int = 64 << 10
