"""What operators do with groups: look at them, hold partitions for a reset, delete and forget."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.group import Group, Timers
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.group_views import (
    GroupDescription,
    GroupListing,
    description_of,
    listing_of,
)
from riverrun_server.core.groups.holds import Holds, HoldState
from riverrun_server.core.groups.members import GroupRecord, Record
from riverrun_server.core.groups.offsets import OffsetRecord
from riverrun_server.core.groups.registry import Registry
from riverrun_server.core.log.batch import PartitionId


class GroupOperations:
    """The groups of one partition of the offsets topic, for operators.

    Args:
        registry: the groups.
        timers: their deadlines.
        has_offsets: tells whether anything is committed by a group.
        limits: what is allowed.
    """

    def __init__(
        self,
        registry: Registry,
        timers: Timers,
        has_offsets: Callable[[str], bool],
        limits: GroupsLimits,
    ) -> None:
        self._registry = registry
        self._timers = timers
        self._has_offsets = has_offsets
        self._limits = limits
        self._holds = Holds(timers, limits)

    def describe(self, group_id: str, now_ms: int) -> GroupDescription:
        """Return everything about a group but its offsets.

        Raises:
            Refusal: GROUP_NOT_FOUND: it has neither members nor offsets.
        """
        group = self._registry.get(group_id)
        if group is None and self._has_offsets(group_id):
            group = Group(group_id, self._timers)
        if group is None:
            raise not_found(group_id)
        return description_of(group, now_ms)

    def list_groups(self) -> list[GroupListing]:
        """Return the groups that have members, or have had some; others may have offsets."""
        return [listing_of(group) for group in self._registry.groups.values()]

    def hold(self, group_id: str, partitions: Iterable[PartitionId], until_ms: int) -> int:
        """Take partitions from whoever has them and give them to nobody; return the hold's number.

        It is over when it is lifted, at `until_ms` on the broker's clock, or with this machine, and its
        number with it. While it lasts, and is free, offsets of its partitions may be written.

        Raises:
            Refusal: GROUP_NOT_FOUND, CONFLICT, LIMIT_EXCEEDED.
        """
        group = self._registry.get(group_id)
        if group is None:
            raise not_found(group_id)
        number = self._holds.hold(group, partitions, until_ms)
        self._registry.due[group_id] = None
        return number

    def hold_state(self, group_id: str, number: int) -> HoldState:
        """Return how far a hold is."""
        return self._holds.state(self._registry.get(group_id), number)

    def lift(self, group_id: str, number: int) -> None:
        """End a hold: its partitions are given to those who should have them. Twice does no harm."""
        self._holds.lift(self._registry.get(group_id), number)
        self._registry.due[group_id] = None

    def expire_holds(self, now_ms: int) -> None:
        """End the holds that have taken too long."""
        for group_id in self._holds.expire(self._registry.groups, now_ms):
            self._registry.due[group_id] = None

    def delete_group(self, group_id: str, offsets: Iterable[PartitionId]) -> list[Record]:
        """Return the records that delete a group without members.

        Args:
            group_id: the group.
            offsets: the partitions for which it has committed offsets, which go with it.

        Raises:
            Refusal: GROUP_HAS_MEMBERS, GROUP_NOT_FOUND.
        """
        group = self._registry.get(group_id)
        if group is not None and group.members:
            raise Refusal(
                Reason.GROUP_HAS_MEMBERS,
                f"group {group_id!r} has {len(group.members)} members; end or remove them first",
            )
        records: list[Record] = [OffsetRecord(group_id, each, None) for each in offsets]
        if group is not None:
            records.append(GroupRecord(group_id, None))
        if not records:
            raise not_found(group_id)
        return records

    def idle(self, now_ms: int) -> list[str]:
        """Return the groups that have had no members for as long as anything is remembered of them.

        Offsets that they have committed since then may still be wanted.
        """
        return [each for each in self._registry.groups if self.is_idle(each, now_ms)]

    def is_idle(self, group_id: str, now_ms: int) -> bool:
        """Return whether no member has needed a group's offsets for as long as they are kept."""
        group = self._registry.get(group_id)
        if group is None:
            return True
        emptied_at_ms = group.value.emptied_at_ms if group.value else None
        return emptied_at_ms is not None and emptied_at_ms + self._limits.retention_ms <= now_ms


def not_found(group_id: str) -> Refusal:
    """Return the refusal where there is no such group."""
    return Refusal(
        Reason.GROUP_NOT_FOUND,
        f"there is no group {group_id!r}: it has neither members nor committed offsets; check the name",
    )
