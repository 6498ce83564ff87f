"""Who may commit which offsets: the member that has the partition, under the assignment that it has it by.

A commit says the epoch that its member had been told (KIP-1251). It counts for a partition if that
member has it, given in this epoch or before, so neither a new epoch that the member has not heard of
yet makes it fail, nor can one of an earlier assignment pass.
"""

from __future__ import annotations

from collections.abc import Iterable

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.group import Group
from riverrun_server.core.log.batch import PartitionId


def check_without_member(group: Group | None, group_id: str) -> None:
    """Check a commit that names no member: it would go behind the back of those who have partitions.

    Raises:
        Refusal: GROUP_HAS_MEMBERS.
    """
    if group is not None and group.members:
        raise Refusal(
            Reason.GROUP_HAS_MEMBERS,
            f"group {group_id!r} has {len(group.members)} members, and only they commit: commit on a "
            "member's stream, reset the offsets, or end the members first",
        )


def refused_partitions(
    group: Group, member_id: str, epoch: int, partitions: Iterable[PartitionId]
) -> dict[PartitionId, Refusal]:
    """Return why a member's commit does not count, for each partition for which it does not.

    Args:
        group: of which it is a member.
        member_id: who commits.
        epoch: that it says it had when it read.
        partitions: that it commits.
    """
    has = group.assignments.get(member_id)
    refused: dict[PartitionId, Refusal] = {}
    for partition in partitions:
        given_in = None
        if has is not None:
            given_in = has.owned.get(partition, has.revoking.get(partition))
        if has is None or given_in is None:
            refused[partition] = Refusal(
                Reason.PARTITION_NOT_ASSIGNED,
                f"member {member_id} of group {group.group_id!r} does not have {partition}, or not any "
                "more; drop what was read of it, another member reads it from the last commit on",
            )
        elif not given_in <= epoch <= has.epoch:
            refused[partition] = Refusal(
                Reason.FENCED_MEMBER_EPOCH,
                f"the commit names member epoch {epoch}, and member {member_id} of group "
                f"{group.group_id!r} has {partition} since epoch {given_in} and is at epoch "
                f"{has.epoch}; commit only what was delivered since then",
            )
    return refused
