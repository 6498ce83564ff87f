"""Places in a log as readers name them, and the offsets that they come to."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from riverrun_server.core.log.batch import PartitionId


class PlaceKind(enum.Enum):
    """How a place is named."""

    EARLIEST = enum.auto()
    LATEST = enum.auto()
    COMMITTED = enum.auto()
    OFFSET = enum.auto()
    TIME = enum.auto()
    LAST = enum.auto()


class ResetPolicy(enum.Enum):
    """What happens to a position that is out of range."""

    ERROR = enum.auto()
    EARLIEST = enum.auto()
    LATEST = enum.auto()


@dataclass(frozen=True, slots=True)
class Place:
    """A place as a reader names it.

    Attributes:
        kind: how it is named.
        value: the offset, the time in ms since 1970, or the count of records before the end.
        leader_epoch: of the record before an offset, where the reader has read it.
        otherwise: where to begin where the group has committed nothing; of COMMITTED only.
    """

    kind: PlaceKind
    value: int = 0
    leader_epoch: int | None = None
    otherwise: Place | None = None


EARLIEST = Place(PlaceKind.EARLIEST)
LATEST = Place(PlaceKind.LATEST)
COMMITTED = Place(PlaceKind.COMMITTED, otherwise=EARLIEST)


@dataclass(frozen=True, slots=True)
class Position:
    """A place come to an offset, and the bounds of its partition at that time.

    Attributes:
        topic: the topic's name.
        id: the partition.
        offset: the next one to be read.
        high_watermark: what lies below it is committed.
        log_start_offset: the first offset that can be read.
        leader_epoch: of the record before `offset`, where the reader has read it.
        in_range: whether the partition has the offset, as far as could be seen.
    """

    topic: str
    id: PartitionId
    offset: int
    high_watermark: int
    log_start_offset: int
    leader_epoch: int | None = None
    in_range: bool = True


def offset_of(place: Place, log_start: int, high_watermark: int, found: int | None) -> int:
    """Return the offset of a place that is not COMMITTED.

    Offsets come back as they are, also out of range: what becomes of them is the policy of the
    reader. `found` is the offset of the first record at or after a time; where there is none yet,
    reading begins behind the last committed record.
    """
    match place.kind:
        case PlaceKind.EARLIEST:
            return log_start
        case PlaceKind.LATEST:
            return high_watermark
        case PlaceKind.OFFSET:
            return place.value
        case PlaceKind.TIME:
            return high_watermark if found is None else found
        case PlaceKind.LAST:
            # Counted in offsets: where offsets have gaps it is fewer records, never more.
            return max(log_start, high_watermark - place.value)
        case PlaceKind.COMMITTED:
            raise AssertionError("a committed place is resolved with the group's offsets first")
