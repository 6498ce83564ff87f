"""What a group does when something has changed: who should have what, and the next step towards it.

It is asked once for a batch of changes, however many: a thousand joins cost one computation. A group
that changes all the time computes its targets no more often than its size allows, and goes on
reconciling towards those that it has.
"""

from __future__ import annotations

from collections.abc import Callable

from riverrun_server.core.groups.assignment.values import Assign
from riverrun_server.core.groups.group import Group
from riverrun_server.core.groups.group_changes import GroupChanges, removal
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.members import Assignor, GroupRecord, Record
from riverrun_server.core.groups.reconciling import reconcile, to_reconcile
from riverrun_server.core.groups.subscriptions import Subscriptions, voted
from riverrun_server.core.log.batch import PartitionId


class Settling:
    """Settles groups, one step at a time.

    Args:
        subscriptions: the topics that there are.
        assignors: returns how partitions are shared out, by name.
        has_offsets: tells whether anything is committed by a group; where nothing is, a group without
            members is forgotten at once.
        limits: how often targets are computed.
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        assignors: Callable[[Assignor], Assign],
        has_offsets: Callable[[str], bool],
        limits: GroupsLimits,
    ) -> None:
        self._subscriptions = subscriptions
        self._assignors = assignors
        self._has_offsets = has_offsets
        self._limits = limits

    def step(self, group: Group, now_ms: int) -> list[Record]:
        """Return the records of the next step; none where there is nothing to do for now."""
        if group.look and (orphans := group.orphans()):
            # Partitions of nobody would never be given to anybody.
            return [record for each in orphans for record in removal(group, each)]
        if not group.members:
            return self._close(group, now_ms)
        changes = GroupChanges(group)
        targets = self._new_targets(group, changes, now_ms)
        for member_id in sorted(to_reconcile(group)):  # in one order in each run
            targets.setdefault(member_id, group.assignments[member_id].target)
        group.touched.clear()
        group.freed.clear()
        reconcile(group, changes, targets, now_ms)
        return changes.records()

    def _new_targets(
        self, group: Group, changes: GroupChanges, now_ms: int
    ) -> dict[str, frozenset[PartitionId]]:
        """Return what each member should have that should have something else than before."""
        if not (group.is_changed or group.look) or self._is_paused(group, now_ms):
            return {}
        present = group.value.assignor if group.value else None
        assignor = voted(group.members.values(), present, Assignor.UNIFORM)
        targets = self._compute(group, assignor)
        different = {
            member_id: target
            for member_id, target in targets.items()
            if member_id not in group.assignments or group.assignments[member_id].target != target
        }
        changes.share_by(assignor)
        changes.emptied(None)
        if group.is_changed or different:
            changes.raise_epoch()
        group.is_changed = group.look = False
        group.settled_at_ms = now_ms
        return different

    def _compute(self, group: Group, assignor: Assignor) -> dict[str, frozenset[PartitionId]]:
        subscribers = self._subscriptions.subscribers(group.members)
        topics = self._subscriptions.subscribed(subscribers)
        current = {
            member_id: group.assignments[member_id].target
            for member_id in group.members
            if member_id in group.assignments
        }
        targets = self._assignors(assignor)(subscribers, topics, current)
        assert targets.keys() == group.members.keys(), "an assignor gives each member its target"
        given = sum(map(len, targets.values()))
        assert given == len(frozenset().union(*targets.values())), "and nothing to two"
        return targets

    def _is_paused(self, group: Group, now_ms: int) -> bool:
        if group.settled_at_ms is None:
            return False
        until_ms = group.settled_at_ms + self._limits.pause_ms(len(group.members))
        if now_ms < until_ms:
            group.timers.pauses.set(group.group_id, until_ms)
            return True
        return False

    def _close(self, group: Group, now_ms: int) -> list[Record]:
        """Remember since when nobody is in it; or nothing, where there is nothing to remember."""
        group.is_changed = group.look = False
        group.touched.clear()
        group.freed.clear()
        if group.value is None or group.value.emptied_at_ms is not None:
            return []
        if not self._has_offsets(group.group_id):
            return [GroupRecord(group.group_id, None)]
        changes = GroupChanges(group)
        changes.raise_epoch()
        changes.emptied(now_ms)
        return changes.records()
