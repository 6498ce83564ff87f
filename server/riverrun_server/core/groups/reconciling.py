"""From what members should have to what they have, without stopping what does not move.

Intuition (KIP-848, decided by the coordinator): what a member has and should not have it is told to
give up; what it should have and nobody has it is given. Nothing waits for anything else, so a slow
member delays only those who wait for its own partitions.
"""

from __future__ import annotations

from collections.abc import Mapping

from riverrun_server.core.groups.group import Group
from riverrun_server.core.groups.group_changes import GroupChanges
from riverrun_server.core.groups.members import AssignmentValue
from riverrun_server.core.log.batch import PartitionId

_NOTHING = AssignmentValue(epoch=0)


def to_reconcile(group: Group) -> set[str]:
    """Return the members that may be given something now, or are to give something up.

    A member that waits for others is looked at again when what it waits for is free.
    """
    found = group.touched & group.assignments.keys()
    if group.freed:
        for member_id in group.unsettled:
            if not group.assignments[member_id].target.isdisjoint(group.freed):
                found.add(member_id)
    return found


def reconcile(
    group: Group,
    changes: GroupChanges,
    targets: Mapping[str, frozenset[PartitionId]],
    now_ms: int,
) -> None:
    """Bring members nearer to what they should have, and start the time of what they are to give up.

    What is freed here can be given in the next step only: it is not free before that is in the log.

    Args:
        group: the group as it is.
        changes: takes what is to be written.
        targets: what each member to be looked at should have.
        now_ms: on the broker's clock.
    """
    for member_id, target in targets.items():
        member = group.members[member_id]
        has = group.assignments.get(member_id, _NOTHING)
        lost = {
            each: given_in
            for each, given_in in has.owned.items()
            if each not in target or group.is_held(each)
        }
        revoking = dict(has.revoking)
        if member.is_away:
            # Nobody delivers them, so there is nobody to wait for.
            revoking.clear()
        else:
            revoking.update(lost)
            if lost:
                group.revoke(member_id, lost, now_ms)
        changes.assign(
            member_id,
            target=target,
            owned={each: at for each, at in has.owned.items() if each not in lost},
            given=[each for each in target if _is_free(group, each)],
            revoking=revoking,
        )


def _is_free(group: Group, partition: PartitionId) -> bool:
    return partition not in group.holders and not group.is_held(partition)
