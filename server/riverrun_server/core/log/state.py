"""What is kept of a partition beside its batches: its bounds, its clocks, its signposts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogState:
    """The bounds and running totals of one partition, replaced by every write.

    Attributes:
        log_start_offset: the first offset that can be read; what lies below is gone or going.
        log_end_offset: the offset that the next record gets.
        high_watermark: as last known; persisted lazily with other writes.
        max_timestamp_ms: the largest record timestamp ever appended.
        last_append_time_ms: of the newest append; the next one is never earlier.
        appended_bytes: of all batches ever appended, as stored, deleted ones included.
        trimmed_bytes: of the batches deleted at the log's start.
        indexed_bytes: `appended_bytes` before the batch that the newest index row stands at.
        indexed_append_time_ms: the append time of that batch.
        interval_max_timestamp_ms: the largest record timestamp from that batch on.
        accepted_epoch: the largest leader epoch ever accepted.
    """

    log_start_offset: int = 0
    log_end_offset: int = 0
    high_watermark: int = 0
    max_timestamp_ms: int = 0
    last_append_time_ms: int = 0
    appended_bytes: int = 0
    trimmed_bytes: int = 0
    indexed_bytes: int = 0
    indexed_append_time_ms: int = 0
    interval_max_timestamp_ms: int = 0
    accepted_epoch: int = 0

    def __post_init__(self) -> None:
        """Refuse what could only come from a bug of ours (invariant: start <= HW <= end)."""
        assert 0 <= self.log_start_offset <= self.high_watermark <= self.log_end_offset, self

    def committed_to(self, offset: int) -> LogState:
        """Return the state with this high watermark; written out, for it happens with every sync."""
        return LogState(
            self.log_start_offset,
            self.log_end_offset,
            offset,
            self.max_timestamp_ms,
            self.last_append_time_ms,
            self.appended_bytes,
            self.trimmed_bytes,
            self.indexed_bytes,
            self.indexed_append_time_ms,
            self.interval_max_timestamp_ms,
            self.accepted_epoch,
        )


@dataclass(frozen=True, slots=True)
class IndexRow:
    """A signpost at about one batch a MiB and at least one an hour, written with that batch.

    Attributes:
        base_offset: of the batch that it stands at.
        append_time_ms: of that batch.
        bytes_before: all bytes ever appended before that batch.
        max_timestamp_before_ms: the largest record timestamp of all batches before it.
        interval_max_timestamp_ms: the same, of the batches since the previous row only.
    """

    base_offset: int
    append_time_ms: int
    bytes_before: int
    max_timestamp_before_ms: int
    interval_max_timestamp_ms: int
