"""The records of one step of one group, with epochs that only rise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from riverrun_server.core.groups.group import Group
from riverrun_server.core.groups.members import (
    AssignmentRecord,
    AssignmentValue,
    Assignor,
    GroupRecord,
    GroupValue,
    MemberRecord,
    Record,
)
from riverrun_server.core.log.batch import PartitionId


class GroupChanges:
    """Gathers what one step writes of one group; nothing of it is in the group before it is replayed.

    The order of the records is such that after any first part of them the log is as good as after
    all: the group's epoch is there before any member's, and a member's partitions go before it does.

    Args:
        group: as it is; each of its members is changed once at most.
    """

    def __init__(self, group: Group) -> None:
        value = group.value or GroupValue(epoch=0)
        self._group = group
        self._epoch = value.epoch
        self._assignor = value.assignor
        self._emptied_at_ms = value.emptied_at_ms
        self._assignments: dict[str, AssignmentValue] = {}

    def raise_epoch(self) -> None:
        """Count another change of what the members should have."""
        self._epoch += 1

    def share_by(self, assignor: Assignor) -> None:
        """Note how the partitions are shared out."""
        self._assignor = assignor

    def emptied(self, at_ms: int | None) -> None:
        """Note since when it has no members."""
        self._emptied_at_ms = at_ms

    def assign(
        self,
        member_id: str,
        *,
        target: frozenset[PartitionId],
        owned: Mapping[PartitionId, int],
        given: Iterable[PartitionId] = (),
        revoking: Mapping[PartitionId, int],
    ) -> None:
        """Say what a member should have and has from now on.

        Args:
            member_id: the member.
            target: what it should have.
            owned: what it keeps, with the assignment epochs that it has.
            given: what it gets in addition.
            revoking: what it is to give up, with the assignment epochs that it has.
        """
        assert member_id not in self._assignments, member_id
        old = self._group.assignments.get(member_id)
        given = frozenset(given)
        if old is None:
            epoch = max(1, self._epoch)
        elif given or owned.keys() != old.owned.keys() or revoking.keys() != old.revoking.keys():
            # Each view that a member is told has its own number, which is none of the past.
            epoch = max(old.epoch + 1, self._epoch)
        else:
            epoch = old.epoch
        self._epoch = max(self._epoch, epoch)
        value = AssignmentValue(
            epoch=epoch,
            target=target,
            owned={**owned, **dict.fromkeys(sorted(given), epoch)},
            revoking=dict(revoking),
        )
        if value != old:
            self._assignments[member_id] = value

    def release(self, member_id: str, partitions: Iterable[PartitionId]) -> None:
        """Take from a member what it was to give up."""
        old = self._group.assignments[member_id]
        gone = set(partitions)
        assert gone <= old.revoking.keys(), gone
        self.assign(
            member_id,
            target=old.target,
            owned=old.owned,
            revoking={each: at for each, at in old.revoking.items() if each not in gone},
        )

    def records(self) -> list[Record]:
        """Return what is to be appended, in this order."""
        group_id = self._group.group_id
        records: list[Record] = []
        value = GroupValue(
            epoch=self._epoch, assignor=self._assignor, emptied_at_ms=self._emptied_at_ms
        )
        if value != self._group.value and self._epoch > 0:
            records.append(GroupRecord(group_id, value))
        records += [
            AssignmentRecord(group_id, member_id, value)
            for member_id, value in self._assignments.items()
        ]
        return records


def removal(group: Group, member_id: str) -> list[Record]:
    """Return the records after which a member is not in the group, and its partitions are free."""
    records: list[Record] = []
    if member_id in group.assignments:
        records.append(AssignmentRecord(group.group_id, member_id, None))
    if member_id in group.members:
        records.append(MemberRecord(group.group_id, member_id, None))
    return records
