"""What a store in memory holds at a moment: partitions and tables, changed step by step, copied whole."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass, field

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.log.state import IndexRow, LogState

_SNAPSHOTS_KEPT = 2


@dataclass(slots=True)
class StoredPartition:
    """What is stored of one partition; lists are in order of offsets."""

    state: LogState = field(default_factory=LogState)
    bases: list[int] = field(default_factory=list)
    batches: list[bytes] = field(default_factory=list)
    epochs: dict[int, int] = field(default_factory=dict)
    index: list[IndexRow] = field(default_factory=list)
    snapshots: dict[int, bytes] = field(default_factory=dict)

    def copy(self) -> StoredPartition:
        """Return one that can be changed without changing this one."""
        return StoredPartition(*(copy(getattr(self, name)) for name in self.__slots__))


@dataclass(slots=True)
class Image:
    """Everything that is stored."""

    partitions: dict[PartitionId, StoredPartition] = field(default_factory=dict)
    tables: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)

    def copy(self) -> Image:
        """Return one that can be changed without changing this one."""
        return Image(
            {partition: each.copy() for partition, each in self.partitions.items()},
            deepcopy(self.tables),
        )


Step = Callable[[Image], None]


def begin_epoch(stored: StoredPartition, epoch: EpochEntry | None) -> None:
    """Take an epoch entry in, if there is one."""
    if epoch is not None:
        stored.epochs[epoch.leader_epoch] = epoch.start_offset


def keep_snapshot(stored: StoredPartition, snapshot: tuple[int, bytes] | None) -> None:
    """Take a producer snapshot in, if there is one; only the newest ones stay."""
    if snapshot is None:
        return
    offset, data = snapshot
    older = sorted(each for each in stored.snapshots if each < offset)
    for each in older[: max(0, len(older) + 1 - _SNAPSHOTS_KEPT)]:
        del stored.snapshots[each]
    stored.snapshots[offset] = data
