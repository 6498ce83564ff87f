"""What a partition needs from the disk: batches, epochs, a sparse index, snapshots, one sync.

Writes are visible to reads at once and durable only after a `sync` that began behind them. Every
write is one atomic step: it has happened as a whole or it raises and nothing has changed. Methods
that write run on the event loop and never wait for the disk; methods that read may block for one
bounded step and run in a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from riverrun_server.core.log.batch import PartitionId, ScannedBatch, StoredBatch
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.log.state import IndexRow, LogState

__all__ = [
    "CorruptData",
    "EpochEntry",
    "IndexRow",
    "Log",
    "LogState",
    "LogStore",
    "StorageError",
    "StorageFailed",
    "StorageFull",
    "StorageStalled",
    "Table",
]


class StorageError(Exception):
    """The store refused; nothing has changed."""


class StorageStalled(StorageError):
    """The store is behind with its own work; the same write may succeed in a moment."""


class StorageFull(StorageError):
    """There is no room on the disk."""


class StorageFailed(StorageError):
    """The disk failed: nothing that was not synced before can be promised any more."""


class CorruptData(StorageError):
    """Stored bytes fail their checksum."""


class Log(Protocol):
    """The stored half of one partition."""

    @property
    def state(self) -> LogState:
        """What the newest write left, or recovery found."""
        ...

    @property
    def damage(self) -> str | None:
        """Why this partition must stay offline, or None."""
        ...

    def append(
        self,
        batch: StoredBatch,
        state: LogState,
        *,
        epoch: EpochEntry | None = None,
        index: IndexRow | None = None,
    ) -> None:
        """Write a stamped batch, and what goes with it, in one atomic step.

        Raises:
            StorageStalled, StorageFull, StorageFailed: nothing was written.
        """
        ...

    def save(
        self,
        state: LogState,
        *,
        epoch: EpochEntry | None = None,
        snapshot: tuple[int, bytes] | None = None,
    ) -> None:
        """Write the state alone, with an epoch entry or a producer snapshot (offset, bytes)."""
        ...

    def trim(self, state: LogState, *, snapshot: tuple[int, bytes] | None = None) -> None:
        """Delete the batches below `state.log_start_offset` in one range, and write the state.

        The batch in which the log start lies stays whole. Index rows and epoch entries that no
        remaining batch needs go with them.
        """
        ...

    def truncate(self, state: LogState, epochs: Sequence[EpochEntry]) -> None:
        """Delete the batches from `state.log_end_offset` on, and every snapshot beyond it.

        The offset must be the start of a batch; `epochs` are the entries that remain.
        """
        ...

    def restart(
        self,
        state: LogState,
        epochs: Sequence[EpochEntry],
        *,
        snapshot: tuple[int, bytes] | None = None,
    ) -> None:
        """Delete everything and begin again, empty, at `state.log_end_offset`.

        For a replica whose log ends before its leader's begins. The snapshot is of a later offset:
        the batches up to it come from the leader, their producers are known already.
        """
        ...

    def read(self, offset: int, end: int, max_bytes: int) -> list[StoredBatch]:
        """Return the batches from the one that holds `offset`, below `end`.

        At least one batch is returned where there is one, then as many as fit into `max_bytes`.
        Blocks for one bounded step. Checksums are not looked at.

        Raises:
            CorruptData: the store itself found damage.
        """
        ...

    def scan(self, offset: int, max_bytes: int) -> list[ScannedBatch]:
        """Return what `read` would up to the log end, every checksum verified; for recovery.

        Raises:
            CorruptData: a batch is damaged or not where it says it is.
        """
        ...

    def epochs(self) -> list[EpochEntry]:
        """Return all epoch entries in order."""
        ...

    def index_before(self, offset: int) -> IndexRow | None:
        """Return the last index row at or below `offset`; None below the first, -1 included."""
        ...

    def index_rows(self, offset: int, limit: int) -> list[IndexRow]:
        """Return up to `limit` index rows from `offset` on."""
        ...

    def snapshot(self) -> tuple[int, bytes] | None:
        """Return the newest producer snapshot as (offset, bytes)."""
        ...


class LogStore(Protocol):
    """One directory that holds many partitions and the tables beside them."""

    def partitions(self) -> list[PartitionId]:
        """Return every partition that is stored."""
        ...

    def open(self, partition: PartitionId) -> Log:
        """Return the log of a partition, made empty where it is not stored yet."""
        ...

    def renew(self, partition: PartitionId, state: LogState) -> None:
        """Throw away all that an open log holds, damaged or not, and let it begin again, empty.

        In one atomic step, and without reading what goes: the log stays the same object.

        Args:
            partition: whose.
            state: to begin with.

        Raises:
            StorageStalled, StorageFull, StorageFailed: nothing has changed.
        """
        ...

    def drop(self, partition: PartitionId) -> None:
        """Delete everything of a partition in one bounded step; its slot serves another one."""
        ...

    def move_out(self, partition: PartitionId) -> bool:
        """Move what can be read of a damaged partition away from the damage, where that can be done.

        For a repair, while nobody else uses the store.

        Returns:
            Whether it was moved; its log then has to be opened again, and cut.
        """
        ...

    def sync(self) -> None:
        """Make everything written before this call durable. Blocks; runs in a thread.

        Raises:
            StorageFailed: nobody knows what is on the disk; the process must end.
        """
        ...

    def free_bytes(self) -> int:
        """Return how many bytes the file system has left for this store."""
        ...

    def total_bytes(self) -> int:
        """Return how large the file system with this store is."""
        ...


class Table(Protocol):
    """A small ordered map of bytes in the same store, synced by the same `sync`."""

    def get(self, key: bytes) -> bytes | None:
        """Return a value."""
        ...

    def scan(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """Return all rows whose key begins with `prefix`, in order."""
        ...

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes] = ()) -> None:
        """Write and delete rows in one atomic step."""
        ...
