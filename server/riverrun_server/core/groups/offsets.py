"""The committed offsets of the groups of one partition of the offsets topic.

Intuition: handlers look and say which records to append; only `replay` changes anything, with a
record that is in the log and committed. So what is known after a restart is what was answered
before it, by the same code (Kafka's CoordinatorRuntime; KIP-848 kept it).

The log would grow with every commit. Compaction by rewrite bounds it: every live record that
stands below a point is appended again, and when all of them stand at or above it and are durable,
the log is trimmed to that point. At each moment in between, replaying what is in the log gives the
same offsets.

Not here: appending, loading and trimming (runtime/offsets_log), keys and values as bytes
(wire/group_records).
"""

from __future__ import annotations

from collections.abc import Callable, KeysView, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId

# What an entry takes beside its texts: two dict entries, four objects, measured with tracemalloc.
_ENTRY_BYTES = 600
# What a record has beside its texts: topic id, partition, offset, epoch, time.
_RECORD_BYTES = 60


class OffsetsUnreadable(Refusal):
    """The coordinator cannot read its offsets: asking it anew in a moment does not help."""


class CommittedOffset(NamedTuple):
    """What a group has committed in one partition."""

    offset: int
    leader_epoch: int | None
    metadata: str
    commit_time_ms: int


class OffsetRecord(NamedTuple):
    """One record of the offsets topic; no value deletes what was stored."""

    group_id: str
    partition: PartitionId
    value: CommittedOffset | None


class _Entry(NamedTuple):
    value: CommittedOffset
    stands_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetsLimits:
    """The bounds of one partition of the offsets topic.

    Attributes:
        entries_max: (group, partition) pairs.
        bytes_max: memory for them.
        rewrite_records_min: a log with fewer records is not worth a rewrite; replaying them takes
            some 50 ms.
        rewrite_factor: rewrite when the log has this many records for each live one; every commit
            is then written 1 / (factor - 1) times more on average.
    """

    entries_max: int = 20_000
    bytes_max: int = 16 << 20
    rewrite_records_min: int = 10_000
    rewrite_factor: int = 4


class CommittedOffsets:
    """The offsets of the groups of one partition of the offsets topic.

    Transitions:
        loading -> ready (loaded), when everything up to the log end at election is replayed
        ready -> loading (reload), when the outcome of an append is unknown
        ready: record -> appended by the caller -> replay
        ready: rewrite begun -> rewritten(records) -> appended -> replay ... -> trimmable

    Attributes:
        trouble: why loading has failed, until it does not; "" where it is only under way.
    """

    def __init__(self, limits: OffsetsLimits) -> None:
        self._limits = limits
        self._groups: dict[str, dict[PartitionId, _Entry]] = {}
        self._bytes = 0
        self._count = 0
        self.ready = False
        self.trouble = ""
        self.next_offset = 0
        self.log_start_offset = 0
        self._rewrite_below: int | None = None

    @property
    def count(self) -> int:
        """How many (group, partition) pairs have an offset."""
        return self._count

    @property
    def groups(self) -> KeysView[str]:
        """The groups that have committed something."""
        return self._groups.keys()

    # Hard state.

    def replay(self, record: OffsetRecord, offset: int) -> None:
        """Take a committed record of the log into account; the one way in which offsets change."""
        self.next_offset = max(self.next_offset, offset + 1)
        group = self._groups.setdefault(record.group_id, {})
        old = group.pop(record.partition, None)
        if old is not None:
            self._count -= 1
            self._bytes -= _size(record.group_id, old.value)
        if record.value is not None:
            group[record.partition] = _Entry(record.value, offset)
            self._count += 1
            self._bytes += _size(record.group_id, record.value)
        if not group:
            del self._groups[record.group_id]

    def loaded(self, log_start_offset: int, next_offset: int) -> None:
        """Begin to answer."""
        self.log_start_offset = log_start_offset
        self.next_offset = max(self.next_offset, next_offset)
        self.ready = True
        self.trouble = ""

    def reload(self) -> None:
        """Forget everything: what is in the log is no longer known for sure."""
        self._groups.clear()
        self._bytes = self._count = self.next_offset = self.log_start_offset = 0
        self._rewrite_below = None
        self.ready = False

    # Handlers.

    def growth(self, records: Sequence[OffsetRecord]) -> tuple[int, int]:
        """Return how many entries and bytes these records would add."""
        entries = size = 0
        for record in records:
            old = self._groups.get(record.group_id, {}).get(record.partition)
            if old is not None:
                entries -= 1
                size -= _size(record.group_id, old.value)
            if record.value is not None:
                entries += 1
                size += _size(record.group_id, record.value)
        return entries, size

    def check_room(self, group_id: str, entries: int, size_bytes: int) -> None:
        """Check that there is memory for so much more.

        Raises:
            Refusal: LIMIT_EXCEEDED.
        """
        limits = self._limits
        if entries > 0 and self._count + entries > limits.entries_max:
            what = f"{self._count} committed offsets of {limits.entries_max} allowed"
        elif size_bytes > 0 and self._bytes + size_bytes > limits.bytes_max:
            what = f"{self._bytes} bytes of committed offsets of {limits.bytes_max} allowed"
        else:
            return
        raise Refusal(
            Reason.LIMIT_EXCEEDED,
            f"the coordinator of group {group_id!r} holds {what}, for all groups of its partition "
            "of the offsets topic together, and takes no more; use fewer groups, shorter metadata, "
            "or delete topics that are no longer needed",
        )

    def committed(self, group_id: str) -> Mapping[PartitionId, CommittedOffset]:
        """Return what a group has committed; an empty map is a definite answer.

        Raises:
            Refusal: COORDINATOR_LOADING, for then nobody knows.
        """
        self.check_ready(group_id)
        return {key: entry.value for key, entry in self._groups.get(group_id, {}).items()}

    def check_ready(self, group_id: str) -> None:
        """Check that everything in the log is known.

        Raises:
            Refusal: COORDINATOR_LOADING; OffsetsUnreadable where waiting a moment does not help.
        """
        if not self.ready:
            raise self.loading(group_id)

    def loading(self, group_id: str) -> Refusal:
        """Return the refusal for as long as not everything in the log is known."""
        coordinator = f"the coordinator of group {group_id!r}"
        if self.trouble:
            return OffsetsUnreadable(
                Reason.COORDINATOR_LOADING,
                f"{coordinator} cannot read its offsets, and tries again by itself: {self.trouble}",
            )
        return Refusal(
            Reason.COORDINATOR_LOADING,
            f"{coordinator} is still reading its offsets; ask again in a moment",
        )

    # Compaction by rewrite.

    @property
    def rewriting(self) -> bool:
        """Whether a rewrite is under way."""
        return self._rewrite_below is not None

    def rewrite_due(self) -> bool:
        """Return whether the log is much longer than what it says."""
        records = self.next_offset - self.log_start_offset
        limits = self._limits
        return self.ready and records > max(
            limits.rewrite_records_min, limits.rewrite_factor * self._count
        )

    def begin_rewrite(self) -> None:
        """Set the point below which nothing live shall stand."""
        assert self.ready
        self._rewrite_below = self.next_offset

    def rewritten(
        self, limit_bytes: int, exists: Callable[[PartitionId], bool]
    ) -> list[OffsetRecord]:
        """Return live records that stand below the point, to be appended again.

        At least one is returned where there is one, then about as many as fit into `limit_bytes`.
        Nothing else may be on its way into the log meanwhile: a rewritten value behind a newer one
        would bring the old one back. Offsets of partitions that no longer exist are deleted.
        """
        point = self._rewrite_below
        assert point is not None
        out: list[OffsetRecord] = []
        size = 0
        for group_id, group in self._groups.items():
            for partition, entry in group.items():
                if entry.stands_at < point:
                    value = entry.value if exists(partition) else None
                    out.append(OffsetRecord(group_id, partition, value))
                    size += len(group_id) + len(entry.value.metadata) + _RECORD_BYTES
                    if size >= limit_bytes:
                        return out
        return out

    def trimmable(self) -> int | None:
        """Return the point to trim to, or None while a live record stands below it."""
        point = self._rewrite_below
        assert point is not None
        for group in self._groups.values():
            for entry in group.values():
                if entry.stands_at < point:
                    return None
        return point

    def end_rewrite(self, log_start_offset: int) -> None:
        """Note that the log was trimmed, or that the rewrite was given up."""
        self._rewrite_below = None
        self.log_start_offset = max(self.log_start_offset, log_start_offset)


def _size(group_id: str, value: CommittedOffset) -> int:
    return _ENTRY_BYTES + len(group_id) + len(value.metadata)
