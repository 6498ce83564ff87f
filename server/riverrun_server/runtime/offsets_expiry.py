"""Offsets that nobody needs any more: looked for now and then, and deleted like any other."""

from __future__ import annotations

from collections.abc import Sequence

from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.members import GroupRecord, Record
from riverrun_server.core.groups.offsets import OffsetRecord
from riverrun_server.runtime.group_turn import Turn


class OffsetsExpiry:
    """Deletes what was committed longer ago than offsets are kept, in groups that have had no member as long.

    Transitions: waiting -> due, after a while -> waiting (`write`).

    Args:
        limits: how long offsets are kept.
        every_s: how often to look.
    """

    def __init__(self, limits: GroupsLimits, every_s: float) -> None:
        self._retention_ms = limits.retention_ms
        self._every_s = every_s
        self._due_at: float | None = None

    def next_s(self, now: float) -> float:
        """Return how long until it is due."""
        if self._due_at is None:
            self._due_at = now + self._every_s
        return max(0.0, self._due_at - now)

    def is_due(self, now: float) -> bool:
        """Return whether it is time to look; the first time is a while after the beginning."""
        return self.next_s(now) == 0.0

    def write(self, turn: Turn) -> None:
        """Write what deletes the offsets that are too old; all that are committed are to be known."""
        self._due_at = None
        if self._retention_ms < 0:
            return
        for group_id in sorted(turn.offsets.groups):
            if turn.groups.operations.is_idle(group_id, turn.now_ms):
                self._expire(turn, group_id)

    def _expire(self, turn: Turn, group_id: str) -> None:
        committed = turn.offsets.committed(group_id)
        expired = [
            OffsetRecord(group_id, partition, None)
            for partition, value in committed.items()
            if value.commit_time_ms + self._retention_ms <= turn.now_ms
        ]
        turn.store_each(group_id, expired)
        if expired and len(expired) == len(committed):
            turn.write(self._forgotten(turn, group_id))

    def _forgotten(self, turn: Turn, group_id: str) -> Sequence[Record]:
        """Return what deletes a group that has neither members nor offsets any more."""
        known = turn.groups.registry.get(group_id) is not None
        return [GroupRecord(group_id, None)] if known else []
