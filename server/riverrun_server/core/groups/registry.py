"""What the log says of all groups of one partition of the offsets topic, and what of it is news."""

from __future__ import annotations

from collections.abc import Mapping

from riverrun_server.core.groups.group import Group, MemberKey, Timers
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.live_records import (
    LiveRecords,
    MembershipRecord,
    record_of,
    size_of,
)
from riverrun_server.core.groups.members import GroupRecord, MemberRecord, Record
from riverrun_server.core.groups.room import check_room


class Registry:
    """The groups that there are; only `replay` changes what is known of them for good.

    Args:
        timers: where the deadlines of the groups are.

    Attributes:
        due: groups that something has happened to since they were settled, in that order.
        changed: members of which something is different since somebody asked.
    """

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._groups: dict[str, Group] = {}
        self._live = LiveRecords()
        self._members = 0
        self._bytes = 0
        # Dicts for their order.
        self.due: dict[str, None] = {}
        self.changed: dict[MemberKey, None] = {}

    @property
    def groups(self) -> Mapping[str, Group]:
        """Every group, by name."""
        return self._groups

    @property
    def count(self) -> int:
        """How many records the log has to have for what is known."""
        return len(self._live)

    @property
    def members(self) -> int:
        """How many members all groups together have."""
        return self._members

    @property
    def size_bytes(self) -> int:
        """How much memory is taken, about."""
        return self._bytes

    @property
    def lowest_live(self) -> int | None:
        """The offset below which the log says nothing that counts; None where nothing does."""
        return self._live.lowest

    def get(self, group_id: str) -> Group | None:
        """Return a group; None where there is none."""
        return self._groups.get(group_id)

    def begin(self, group_id: str) -> Group:
        """Return a group, which begins with this where there was none."""
        group = self._groups.get(group_id)
        if group is None:
            group = self._groups[group_id] = Group(group_id, self._timers)
            self._bytes += group.size_bytes
        return group

    def replay(self, record: MembershipRecord, offset: int) -> None:
        """Take a record of the log into account."""
        group = self.begin(record.group_id)
        self._bytes -= group.size_bytes
        self._members -= len(group.members)
        if isinstance(record, GroupRecord):
            group.replay_group(record.value)
        else:
            told = _told(group, record.member_id)
            if isinstance(record, MemberRecord):
                group.replay_member(record.member_id, record.value)
            else:
                group.replay_assignment(record.member_id, record.value)
            if _told(group, record.member_id) != told:
                self.changed[MemberKey(record.group_id, record.member_id)] = None
        self._bytes += group.size_bytes
        self._members += len(group.members)
        self._live.replay(record, offset)
        self.due[record.group_id] = None
        if not group.exists:
            self._bytes -= group.size_bytes
            group.end()
            del self._groups[group.group_id]

    def take_due(self, groups_max: int) -> list[Group]:
        """Return the first groups that are due, which are not due any more."""
        taken = [*self.due][:groups_max]
        for group_id in taken:
            del self.due[group_id]
        return [self._groups[group_id] for group_id in taken if group_id in self._groups]

    def check_room(self, limits: GroupsLimits, group_id: str) -> None:
        """Check that a group may have another member.

        Raises:
            Refusal: LIMIT_EXCEEDED.
        """
        check_room(
            limits,
            group_id,
            self._groups.get(group_id),
            groups=len(self._groups),
            members=self._members,
            size_bytes=self._bytes,
        )

    def live_records_below(self, point: int, limit_bytes: int) -> list[Record]:
        """Return the oldest records that count and stand below an offset, to be appended again.

        At least one is returned where there is one, then about as many as fit into `limit_bytes`.
        """
        records: list[Record] = []
        size = 0
        for key in self._live.below(point):
            record = record_of(key, self._groups[key.group_id])
            records.append(record)
            size += size_of(record)
            if size >= limit_bytes:
                break
        return records


def _told(group: Group, member_id: str) -> tuple[int, int]:
    """Return the stream that is told, and the number of the view that it is told."""
    member, has = group.members.get(member_id), group.assignments.get(member_id)
    return (member.attachment if member else 0), (has.epoch if has else 0)
