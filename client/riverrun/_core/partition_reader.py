"""One partition of a consumer: where it stands on the wire and where in the application."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from riverrun._core.leader_map import ANY
from riverrun._core.records import From, Offset, TopicPartition
from riverrun.errors import RiverrunError, TopicNotFoundError

B = TypeVar("B")


class StartedPosition(NamedTuple):
    """Where the broker begins, or goes on, in one partition."""

    partition: TopicPartition
    topic_id: bytes
    offset: int
    high_watermark: int
    log_start: int = 0

    @property
    def in_range(self) -> bool:
        """Whether the offset can be read for certain; above the watermark it may not exist."""
        return self.log_start <= self.offset <= self.high_watermark


class Delivered(NamedTuple, Generic[B]):
    """A delivery as it came from the wire."""

    partition: TopicPartition
    first_offset: int
    next_offset: int
    high_watermark: int
    leader_epoch: int
    charged_bytes: int
    batches: Sequence[B]


class Asked(NamedTuple):
    """What a stream's start asked for in one partition.

    Attributes:
        at: where to go on.
        is_seek: whether that is where the application, or a retry, wants to go.
        seek_id: of that seek.
    """

    at: From
    is_seek: bool
    seek_id: int


class Taken(NamedTuple, Generic[B]):
    """One batch for the application, and what of it was asked for: offsets in [first, end)."""

    reader: PartitionReader
    batch: B
    first: int
    end: int
    next_offset: int
    high_watermark: int


@dataclass(slots=True, eq=False)
class PartitionReader:
    """One partition of a consumer.

    Transitions: flowing -> seeking -> flowing; flowing -> paused -> seeking or flowing;
    any -> failed -> seeking.

    Attributes:
        partition: which.
        topic_id: of its topic.
        expected: what the next delivery must begin with.
        position: what the application gets next.
        leader_epoch: of the last record delivered; None before the first.
        position_epoch: of the batch that the application was given last.
        high_watermark: the newest one known.
        end: where reading stops; None is nowhere.
        seek_id: of the seek whose answer is awaited; 0 for none.
        place: where that seek goes, or where to begin what could not be begun.
        retrying: that seek is our own, and the application stays where it is.
        paused: nothing is returned to the application.
        dropped: something was dropped while paused, so that resuming has to go back.
        held: the stream was asked to stop what nobody takes.
        begun: it has had a position, or the application has chosen one.
        in_range: the broker has the position; where it has not yet said so, an error may follow.
        home: the broker that it is read from, by its id; ANY for whichever answers.
        start_seek_id: what `seek_id` was when the current stream's start was written.
        trouble: why the broker cannot deliver it just now, while it is asked again.
        error: why the broker does not deliver it.
        retired: its group wants it back: nothing more of it is returned.
    """

    partition: TopicPartition
    topic_id: bytes
    expected: int
    position: int
    leader_epoch: int | None = None
    position_epoch: int | None = None
    high_watermark: int = 0
    end: int | None = None
    seek_id: int = 0
    place: From | None = None
    retrying: bool = False
    paused: bool = False
    dropped: bool = False
    held: bool = False
    begun: bool = True
    in_range: bool = True
    home: int = ANY
    start_seek_id: int = 0
    trouble: RiverrunError | None = None
    error: RiverrunError | None = None
    retired: bool = False

    def cut(self, offset: int) -> int:
        """Return the offset, or where reading stops if that comes before it."""
        return offset if self.end is None else min(offset, self.end)

    @property
    def settled(self) -> bool:
        """Whether `position` is where the application stands, and no place that it still goes to."""
        return self.place is None or self.retrying

    @property
    def lag(self) -> int | None:
        """How many offsets lie before the high watermark; None where that is not known."""
        return max(0, self.high_watermark - self.position) if self.settled else None

    @property
    def gone(self) -> bool:
        """Whether there is no such partition any more, so that asking for it again is of no use."""
        return isinstance(self.error, TopicNotFoundError) and not self.seek_id

    @property
    def is_wanted(self) -> bool:
        """Whether a broker is to be asked for it."""
        return not self.gone and not self.retired

    @property
    def finished(self) -> bool:
        """Whether the application has been given everything up to the end."""
        return self.retired or (
            self.end is not None
            and self.position >= self.end
            and self.place is None
            and self.in_range
        )

    @property
    def delivered(self) -> bool:
        """Whether everything up to the end has come, though the application may not have it yet."""
        return (
            self.gone
            or self.retired
            or (
                self.end is not None
                and self.expected >= self.end
                and self.place is None
                and self.in_range
                # What a pause has dropped is read again when it ends.
                and (self.paused or not self.dropped)
            )
        )

    @property
    def resume_epoch(self) -> int | None:
        """The leader epoch of the last record before `resume_at`, where that was read."""
        if self.place is None:
            return self.position_epoch if self.dropped else self.leader_epoch
        if not self.retrying or not isinstance(self.place, Offset):
            return None
        if self.place.offset == self.expected:
            return self.leader_epoch
        return self.position_epoch if self.place.offset == self.position else None

    @property
    def resume_at(self) -> From:
        """Where a new stream begins."""
        if self.place is not None:
            return self.place
        return Offset(self.position if self.dropped else self.expected)
