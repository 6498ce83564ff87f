"""One partition of the offsets topic: committed offsets and groups with members, kept in one log.

Both are machines of their own, and the log is one: what is replayed goes to either, and a rewrite has
to write again what either still needs of the log before that can be trimmed.

Not here: appending, loading and trimming (runtime/).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from riverrun_server.core.groups.groups import Groups
from riverrun_server.core.groups.members import Record
from riverrun_server.core.groups.offsets import CommittedOffsets, OffsetRecord, OffsetsLimits
from riverrun_server.core.log.batch import PartitionId


class MakeGroups(Protocol):
    """Makes the machine of groups."""

    def __call__(self, has_offsets: Callable[[str], bool]) -> Groups:
        """Return one that knows nothing yet, and asks `has_offsets` what is committed by a group."""
        ...


class OffsetsPartition:
    """What one partition of the offsets topic says.

    Transitions:
        loading -> ready (`loaded`), when everything up to the log end at election is replayed
        any -> loading (`reload`), with machines that know nothing
        ready: `begin_rewrite` -> `rewritten` -> appended -> `replay` ... -> `trimmable` -> `end_rewrite`

    Args:
        limits: of the offsets, and of the log.
        make_groups: makes the machine of groups.

    Attributes:
        offsets: what groups have committed.
        groups: the groups that have members.
    """

    def __init__(self, limits: OffsetsLimits, make_groups: MakeGroups) -> None:
        self._limits = limits
        self._make_groups = make_groups
        self._rewrite_below: int | None = None
        self.offsets = CommittedOffsets(limits)
        self.groups = make_groups(self._has_offsets)

    def replay(self, record: Record, offset: int) -> None:
        """Take a record of the log into account."""
        if isinstance(record, OffsetRecord):
            self.offsets.replay(record, offset)
        else:
            self.groups.replay(record, offset)
            # It counts records of the log, whatever they are about.
            self.offsets.next_offset = max(self.offsets.next_offset, offset + 1)

    def loaded(self, log_start_offset: int, next_offset: int, now_ms: int) -> None:
        """Begin to answer; the topics are known to the groups by now."""
        self.offsets.loaded(log_start_offset, next_offset)
        self.groups.loaded(now_ms)

    def reload(self) -> None:
        """Forget everything: what is in the log is no longer known for sure."""
        self.offsets.reload()
        self.groups = self._make_groups(self._has_offsets)
        self._rewrite_below = None

    # Compaction by rewrite.

    @property
    def rewriting(self) -> bool:
        """Whether a rewrite is under way."""
        return self._rewrite_below is not None

    def rewrite_due(self) -> bool:
        """Return whether the log is much longer than what it says."""
        offsets, limits = self.offsets, self._limits
        live = offsets.count + self.groups.registry.count
        records = offsets.next_offset - offsets.log_start_offset
        return offsets.ready and records > max(
            limits.rewrite_records_min, limits.rewrite_factor * live
        )

    def begin_rewrite(self) -> None:
        """Set the point below which nothing live shall stand."""
        self.offsets.begin_rewrite()
        self._rewrite_below = self.offsets.next_offset

    def rewritten(self, limit_bytes: int, exists: Callable[[PartitionId], bool]) -> list[Record]:
        """Return live records that stand below the point, to be appended again.

        At least one is returned where there is one, then about as many as fit into `limit_bytes`.
        Nothing else may be on its way into the log meanwhile. Offsets of partitions that no longer
        exist are deleted.
        """
        assert self._rewrite_below is not None
        offsets: list[Record] = [*self.offsets.rewritten(limit_bytes, exists)]
        return offsets or self.groups.registry.live_records_below(self._rewrite_below, limit_bytes)

    def trimmable(self) -> int | None:
        """Return the point to trim to, or None while a live record stands below it."""
        assert self._rewrite_below is not None
        lowest = self.groups.registry.lowest_live
        if lowest is not None and lowest < self._rewrite_below:
            return None
        return self.offsets.trimmable()

    def end_rewrite(self, log_start_offset: int) -> None:
        """Note that the log was trimmed, or that the rewrite was given up."""
        self._rewrite_below = None
        self.offsets.end_rewrite(log_start_offset)

    def _has_offsets(self, group_id: str) -> bool:
        return bool(self.offsets.committed(group_id))
