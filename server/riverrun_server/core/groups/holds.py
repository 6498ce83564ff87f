"""Partitions that nobody is given for a while, so that their offsets can be set while the group lives."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.group import Group, Timers
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.log.batch import PartitionId


class HoldState(enum.Enum):
    """How far a hold is."""

    WAITING = "somebody still has one of its partitions"
    FREE = "nobody has any of them, and nobody is given one"
    OVER = "it was lifted, took too long, or began with another coordinator"


class Holds:
    """The holds of all groups of a partition of the offsets topic; all of it is soft.

    Transitions: waiting (`hold`) -> free, when members have given everything up -> over (`lift`, or its
    time is over, which may be while it waits, too).

    Args:
        timers: where their deadlines are.
        limits: how many there may be.
    """

    def __init__(self, timers: Timers, limits: GroupsLimits) -> None:
        self._timers = timers
        self._limits = limits
        self._number = 0

    def hold(self, group: Group, partitions: Iterable[PartitionId], until_ms: int) -> int:
        """Hold partitions of a group; return the number of the hold.

        Raises:
            Refusal: CONFLICT, LIMIT_EXCEEDED.
        """
        wanted = frozenset(partitions)
        held = [each for each in wanted if group.is_held(each)]
        if held:
            raise Refusal(
                Reason.CONFLICT,
                f"the offsets of {min(held)} in group {group.group_id!r} are being reset already; try "
                "again when that is done",
            )
        if len(group.holds) >= self._limits.holds_max:
            raise Refusal(
                Reason.LIMIT_EXCEEDED,
                f"group {group.group_id!r} has {len(group.holds)} resets under way and "
                f"{self._limits.holds_max} are allowed; wait for one of them",
            )
        self._number += 1
        group.holds[self._number] = wanted
        group.touched.update(group.holders[each] for each in wanted if each in group.holders)
        self._timers.holds.set((group.group_id, self._number), until_ms)
        return self._number

    def state(self, group: Group | None, number: int) -> HoldState:
        """Return how far a hold is."""
        if group is None or number not in group.holds:
            return HoldState.OVER
        if group.holders.keys().isdisjoint(group.holds[number]):
            return HoldState.FREE
        return HoldState.WAITING

    def lift(self, group: Group | None, number: int) -> None:
        """End a hold, where it is not over yet."""
        if group is None or number not in group.holds:
            return
        self._timers.holds.drop((group.group_id, number))
        # Free they are, and now they may be given: the same to those who wait for them.
        group.freed |= group.holds.pop(number)

    def expire(self, groups: Mapping[str, Group], now_ms: int) -> list[str]:
        """End the holds that have taken too long, and return the names of their groups."""
        due = self._timers.holds.take_due(now_ms)
        for group_id, number in due:
            self.lift(groups[group_id], number)
        return [group_id for group_id, _ in due]
