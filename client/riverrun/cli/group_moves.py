"""Where each partition of a group is to go on, and how that is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from riverrun.cli.places import AtOffset, AtTime, LastRecords, Place

if TYPE_CHECKING:
    from riverrun import OffsetMove
    from riverrun.cli.group_progress import Standing

SHOWN = 3
"""So many moves are told in the question."""


@dataclass(frozen=True, slots=True)
class Move:
    """One partition of a group, and the offset at which it is to go on."""

    standing: Standing
    offset: int

    @property
    def before(self) -> int | None:
        """Where it stands; None where nothing is committed."""
        return self.standing.committed.offset if self.standing.committed else None


def target_offset(
    standing: Standing, to: Place, times: Mapping[tuple[str, int], int | None]
) -> int:
    """Choose the offset of a place, within those that the partition has."""
    assert standing.earliest is not None, "offline partitions were refused"
    assert standing.latest is not None, "offline partitions were refused"
    match to:
        case "earliest":
            offset = standing.earliest
        case AtOffset(asked):
            offset = asked
        case LastRecords(count):
            offset = standing.latest - count
        case AtTime():
            found = times.get(standing.where)
            offset = standing.latest if found is None else found
        case _:
            offset = standing.latest
    return min(max(offset, standing.earliest), standing.latest)


def as_done(moves: Sequence[Move], done: Sequence[OffsetMove]) -> list[Move]:
    """Return moves as they were made: members may have committed between the plan and its deed."""
    found = {(one.topic, one.partition): one for one in done}
    return [
        move if (one := found.get(move.standing.where)) is None else _made(move, one)
        for move in moves
    ]


def _made(move: Move, done: OffsetMove) -> Move:
    committed = move.standing.committed
    if done.old_offset is None:
        committed = None
    elif committed is not None:
        committed = committed._replace(offset=done.old_offset)
    return Move(replace(move.standing, committed=committed), done.new_offset)


def shown_moves(moves: Sequence[Move]) -> str:
    """Tell the first few moves in a line."""
    told = [
        f"{move.standing.where} from {'nothing' if move.before is None else move.before} to {move.offset}"
        for move in moves[:SHOWN]
    ]
    more = len(moves) - SHOWN
    return ", ".join([*told, f"and {more} more"] if more > 0 else told)


def bounded_note(moves: Sequence[Move], to: Place) -> str:
    """Say where an offset was asked for that a partition does not have; "" where all have it."""
    if not isinstance(to, AtOffset):
        return ""
    bounded = [move for move in moves if move.offset != to.offset]
    if not bounded:
        return ""
    first = bounded[0]
    told = f"offset {to.offset} "
    if to.offset > first.offset:
        told += (
            f"lies behind the end of {first.standing.where}, so its end is taken, {first.offset}"
        )
    else:
        told += f"of {first.standing.where} was deleted, so its first one is taken, {first.offset}"
    more = len(bounded) - 1
    return f"note: {told}" + (f"; so are the nearest of {more} more" if more else "")
