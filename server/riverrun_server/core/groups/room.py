"""Whether there is room for another member."""

from __future__ import annotations

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.group import Group
from riverrun_server.core.groups.group_limits import GroupsLimits


def check_room(
    limits: GroupsLimits,
    group_id: str,
    group: Group | None,
    *,
    groups: int,
    members: int,
    size_bytes: int,
) -> None:
    """Check that a group may have another member.

    Args:
        limits: the bounds.
        group_id: its name.
        group: the group; None where it would begin with this member.
        groups: that there are.
        members: that all of them have.
        size_bytes: of memory that all of them take.

    Raises:
        Refusal: LIMIT_EXCEEDED.
    """
    if group is not None and len(group.members) >= limits.group_members_max:
        raise Refusal(
            Reason.LIMIT_EXCEEDED,
            f"group {group_id!r} has {len(group.members)} members and {limits.group_members_max} are "
            "allowed; share the work within fewer processes, or between several groups",
        )
    if group is None and groups >= limits.groups_max:
        what = f"{groups} groups of {limits.groups_max} allowed"
    elif members >= limits.members_max:
        what = f"{members} members of {limits.members_max} allowed"
    elif size_bytes >= limits.bytes_max:
        what = f"members in {size_bytes} bytes of memory of {limits.bytes_max} allowed"
    else:
        return
    raise Refusal(
        Reason.LIMIT_EXCEEDED,
        f"the coordinator of group {group_id!r} holds {what}, for all groups of its partition of the "
        "offsets topic together, and takes no more; use fewer groups or members, or delete groups that "
        "are no longer needed",
    )
