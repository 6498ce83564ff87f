"""What members lose by being silent, or slow: their place, or the partitions that they were to give up."""

from __future__ import annotations

from collections.abc import Mapping

from riverrun_server.core.groups.group import Group, MemberKey, Timers
from riverrun_server.core.groups.group_changes import GroupChanges, removal
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.group_views import Ended
from riverrun_server.core.groups.members import Record
from riverrun_server.core.groups.membership import unknown_member


def expire(
    groups: Mapping[str, Group], timers: Timers, now_ms: int, limits: GroupsLimits
) -> tuple[list[Record], list[Ended]]:
    """Return the records for what is due, and the streams that are over with it."""
    _spare_those_who_could_not_be_heard(timers, now_ms, limits)
    records: list[Record] = []
    ended: list[Ended] = []
    silent = timers.sessions.take_due(now_ms)
    for key in silent:
        group = groups[key.group_id]
        records += removal(group, key.member_id)
        ended.append(_silent(group, key))
    late: dict[str, list[str]] = {}
    for key in timers.revocations.take_due(now_ms):
        if key not in silent:
            late.setdefault(key.group_id, []).append(key.member_id)
    for group_id, member_ids in late.items():
        changes = GroupChanges(groups[group_id])
        for member_id in member_ids:
            _take_late(groups[group_id], changes, member_id, now_ms)
        records += changes.records()
    return records, ended


def _spare_those_who_could_not_be_heard(timers: Timers, now_ms: int, limits: GroupsLimits) -> None:
    """Put sessions off that were over while the coordinator stood still: beats may wait in its queues."""
    due_ms = timers.sessions.next_ms()
    if due_ms is not None and now_ms - due_ms > limits.stall_ms:
        for key in timers.sessions.take_due(now_ms):
            timers.sessions.set(key, now_ms + limits.doubt_ms)


def _silent(group: Group, key: MemberKey) -> Ended:
    member = group.members[key.member_id]
    did = "not come back" if member.is_away else "been silent"
    why = f"it has {did} for longer than its session timeout of {member.session_timeout_ms} ms"
    return Ended(key, member.attachment, unknown_member(key.group_id, key.member_id, why))


def _take_late(group: Group, changes: GroupChanges, member_id: str, now_ms: int) -> None:
    by_ms = group.presence[member_id].revoke_by_ms
    late = [each for each, due_ms in by_ms.items() if due_ms <= now_ms]
    changes.release(member_id, late)
