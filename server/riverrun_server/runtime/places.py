"""Finding the offsets of the places that readers name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups.offsets import CommittedOffset
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.places import EARLIEST, Place, PlaceKind, Position, offset_of
from riverrun_server.ports.partitions import PartitionAccess

# Lookups by time read the disk: so many of one call at once, and others wait no longer for theirs.
_AT_ONCE = 8


class Wanted(NamedTuple):
    """A partition and where to begin in it."""

    access: PartitionAccess
    place: Place


def settled(
    place: Place, partition: PartitionId, committed: Mapping[PartitionId, CommittedOffset]
) -> Place:
    """Return a place that needs no group: what the group has committed, or where it has not."""
    if place.kind is not PlaceKind.COMMITTED:
        return place
    found = committed.get(partition)
    if found is None:
        return place.otherwise or EARLIEST
    return Place(PlaceKind.OFFSET, found.offset, found.leader_epoch)


async def position_at(access: PartitionAccess, place: Place) -> Position:
    """Return where a place is just now.

    Raises:
        Refusal: the partition cannot tell.
    """
    assert place.kind is not PlaceKind.COMMITTED, place
    found = None
    if place.kind is PlaceKind.TIME:
        found = await access.offset_at_time(place.value)
    marks = await access.watermarks()
    offset = offset_of(place, marks.log_start_offset, marks.high_watermark, found and found[0])
    return Position(
        access.topic,
        access.id,
        offset,
        marks.high_watermark,
        marks.log_start_offset,
        place.leader_epoch,
        marks.log_start_offset <= offset <= marks.log_end_offset,
    )


async def positions_at(wanted: Sequence[Wanted]) -> list[Position | Refusal]:
    """Return where many places are, in order; a refusal stands for its own partition only."""
    answers: list[Position | Refusal] = []
    for at in range(0, len(wanted), _AT_ONCE):
        some = wanted[at : at + _AT_ONCE]
        answers += await asyncio.gather(*[_position_or_refusal(each) for each in some])
    return answers


async def _position_or_refusal(wanted: Wanted) -> Position | Refusal:
    try:
        return await position_at(wanted.access, wanted.place)
    except Refusal as refusal:
        return refusal
