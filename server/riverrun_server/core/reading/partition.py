"""One partition of a subscription: where its reader stands and whether it may be sent something."""

from __future__ import annotations

from riverrun_server.core.errors import Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.places import Position


class PartitionReading:
    """The reader's place in one partition.

    Transitions:
        flowing -> stopped (refused) -> flowing (sought)
        flowing <-> paused, whether stopped or not
        any -> finished, where the reader asked to stop at the end, and back by a seek
        any -> revoked, for good
    """

    __slots__ = (
        "announced",
        "end_offset",
        "high_watermark",
        "id",
        "in_range",
        "leader_epoch",
        "log_start_offset",
        "offset",
        "paused",
        "revoked",
        "stopped_by",
        "topic",
    )

    def __init__(self, topic: str, partition: PartitionId) -> None:
        self.topic = topic
        self.id = partition
        self.offset = 0
        self.high_watermark = 0
        self.log_start_offset = 0
        self.leader_epoch: int | None = None
        self.end_offset: int | None = None
        # Out of range, its cursor decides what becomes of it; until then nothing is finished.
        self.in_range = True
        self.paused = False
        # Whether its group has begun to take it from the reader: nothing more of it is sent.
        self.revoked = False
        self.stopped_by: Refusal | None = None
        # Whether the reader has been told that it is caught up since the start or the last seek.
        self.announced = False

    @property
    def finished(self) -> bool:
        """Whether everything that the reader asked for has been delivered."""
        return self.end_offset is not None and self.offset >= self.end_offset and self.in_range

    @property
    def flows(self) -> bool:
        """Whether it may be sent something, as far as the partition goes."""
        return (
            not self.paused and not self.revoked and self.stopped_by is None and not self.finished
        )

    @property
    def position(self) -> Position:
        """Where the reader stands, for messages."""
        return Position(
            self.topic,
            self.id,
            self.offset,
            self.high_watermark,
            self.log_start_offset,
            self.leader_epoch,
        )

    def placed(self, position: Position, *, stop_at_end: bool) -> None:
        """Stand elsewhere, by a start or a seek, which also ends a failure.

        With `stop_at_end` the end is what was committed when the partition was first placed.
        """
        self._stand(position)
        self.stopped_by = None
        self.announced = False
        if stop_at_end and self.end_offset is None:
            self.end_offset = position.high_watermark

    def reset(self, position: Position) -> None:
        """Stand elsewhere because the old position was out of range."""
        self._stand(position)

    def delivered(self, next_offset: int, leader_epoch: int | None) -> None:
        """Take into account that the reader has been sent everything below `next_offset`."""
        assert next_offset >= self.offset, (next_offset, self.offset)
        self.in_range = True
        self.offset = next_offset
        if leader_epoch is not None:
            self.leader_epoch = leader_epoch

    def observed(self, high_watermark: int, log_start_offset: int) -> None:
        """Take bounds into account; what was read ahead may bring older ones, which change nothing."""
        self.high_watermark = max(self.high_watermark, high_watermark)
        self.log_start_offset = max(self.log_start_offset, log_start_offset)

    def caught_up(self) -> bool:
        """Return True once when everything committed has been delivered."""
        if self.announced or self.revoked or self.stopped_by is not None or not self.in_range:
            return False
        if self.offset < self.high_watermark:
            return False
        self.announced = True
        return True

    def _stand(self, position: Position) -> None:
        self.offset, self.leader_epoch = position.offset, position.leader_epoch
        self.in_range = position.in_range
        self.high_watermark = position.high_watermark
        self.log_start_offset = position.log_start_offset
