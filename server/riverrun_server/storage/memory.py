"""The twin of the store in memory: the same contract, and a crash loses what was not synced.

For simulations and fast tests. It shares no code with the store on disk, so that a test of both
compares two opinions. Every change is a step that is taken at once on the live image and kept until
a sync takes it on the durable one; a crash throws the live image away.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

from riverrun_server.core.log.batch import PartitionId, ScannedBatch, StoredBatch
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.log.state import IndexRow, LogState
from riverrun_server.ports.log import CorruptData, StorageError
from riverrun_server.storage.memory_image import (
    Image,
    Step,
    StoredPartition,
    begin_epoch,
    keep_snapshot,
)

Parse = Callable[[bytes], StoredBatch]
Scan = Callable[[PartitionId, bytes], ScannedBatch]


class MemoryStore:
    """Implements ports.log.LogStore and what a flusher needs of it.

    Args:
        parse: reads the place of a stored batch.
        scan: reads everything of it, verified.
    """

    def __init__(self, parse: Parse, scan: Scan) -> None:
        self._parse = parse
        self._scan = scan
        self._live = Image()
        self._durable = Image()
        self._unsynced: list[Step] = []
        self._logs: dict[PartitionId, MemoryLog] = {}
        self._write_error: StorageError | None = None
        self._sync_error: StorageError | None = None
        self._read_error: Exception | None = None
        self.free = 1 << 40
        self.total = 1 << 41

    # What goes wrong, on demand.

    def crash(self, survivors: int = 0) -> None:
        """Lose every write that was not synced but the first few; logs must be opened again."""
        for step in self._unsynced[:survivors]:
            step(self._durable)
        self._live = self._durable.copy()
        self._unsynced.clear()
        for log in self._logs.values():
            log.mark_dropped()
        self._logs.clear()
        self._write_error = self._sync_error = self._read_error = None

    def refuse_writes(self, error: StorageError | None) -> None:
        """Have every write raise an error, until it is None again."""
        self._write_error = error

    def refuse_syncs(self, error: StorageError | None) -> None:
        """Have every sync raise an error, until it is None again."""
        self._sync_error = error

    def refuse_reads(self, error: Exception | None) -> None:
        """Have every read of batches and of the index raise an error, until it is None again."""
        self._read_error = error

    @property
    def unsynced_writes(self) -> int:
        """How many writes a crash would lose."""
        return len(self._unsynced)

    # The port.

    def partitions(self) -> list[PartitionId]:
        """Return every partition that is stored, in order."""
        return sorted(self._live.partitions)

    def open(self, partition: PartitionId) -> MemoryLog:
        """Return the log of a partition, made empty where it is not stored yet."""
        if partition not in self._live.partitions:
            self.take(lambda image: image.partitions.update({partition: StoredPartition()}))
        if partition not in self._logs:
            self._logs[partition] = MemoryLog(self, partition, self._parse, self._scan)
        return self._logs[partition]

    def renew(self, partition: PartitionId, state: LogState) -> None:
        """Let a log begin again, empty, with a state."""
        assert state.log_start_offset == state.log_end_offset, state
        new = StoredPartition(state=state)
        self.take(lambda image: image.partitions.update({partition: new.copy()}))

    def drop(self, partition: PartitionId) -> None:
        """Delete everything of a partition."""
        if partition not in self._live.partitions:
            return
        self.take(lambda image: image.partitions.__delitem__(partition))
        log = self._logs.pop(partition, None)
        if log is not None:
            log.mark_dropped()

    def move_out(self, partition: PartitionId) -> bool:
        """Leave a partition where it is: damage in memory harms nothing beside it."""
        assert partition in self._live.partitions, partition
        return False

    def sync(self) -> None:
        """Make everything written before this call durable."""
        if self._sync_error:
            raise self._sync_error
        for step in self._unsynced:
            step(self._durable)
        self._unsynced.clear()

    def write_watermark(self, *, clean: bool) -> None:
        """Do nothing: nothing survives that could be compared with it."""

    def free_bytes(self) -> int:
        """Return what `free` says."""
        return self.free

    def total_bytes(self) -> int:
        """Return what `total` says."""
        return self.total

    def upkeep(self) -> bool:
        """Find nothing to do."""
        return False

    def close(self, *, clean: bool = True) -> None:
        """Sync if it is to be clean; logs must be opened again."""
        if clean:
            self.sync()
        self.crash(len(self._unsynced))

    def table(self, name: bytes) -> MemoryTable:
        """Return a table, empty where it has never been written."""
        return MemoryTable(self, name)

    # For logs and tables.

    @property
    def image(self) -> Image:
        """What can be read now."""
        return self._live

    def check_readable(self) -> None:
        """Raise what reads are to raise."""
        if self._read_error:
            raise self._read_error

    def take(self, step: Step) -> None:
        """Change the live image, and the durable one at the next sync."""
        if self._write_error:
            raise self._write_error
        step(self._live)
        self._unsynced.append(step)


class MemoryLog:
    """Implements ports.log.Log."""

    def __init__(
        self, store: MemoryStore, partition: PartitionId, parse: Parse, scan: Scan
    ) -> None:
        self.partition = partition
        self._store = store
        self._parse = parse
        self._scan = scan
        self._dropped = False

    @property
    def state(self) -> LogState:
        """What the newest write left."""
        return self._stored.state

    @property
    def damage(self) -> str | None:
        """None: memory is never damaged."""
        return None

    def append(
        self,
        batch: StoredBatch,
        state: LogState,
        *,
        epoch: EpochEntry | None = None,
        index: IndexRow | None = None,
    ) -> None:
        """Write a stamped batch, and what goes with it, in one atomic step."""
        assert batch.base_offset == self.state.log_end_offset, (batch[:3], self.state)
        assert batch.next_offset == state.log_end_offset > batch.base_offset, (batch[:3], state)

        def step(stored: StoredPartition) -> None:
            stored.bases.append(batch.base_offset)
            stored.batches.append(batch.data)
            if index is not None:
                stored.index.append(index)
            begin_epoch(stored, epoch)
            stored.state = state

        self._take(step)

    def save(
        self,
        state: LogState,
        *,
        epoch: EpochEntry | None = None,
        snapshot: tuple[int, bytes] | None = None,
    ) -> None:
        """Write the state alone, with an epoch entry or a producer snapshot (offset, bytes)."""
        assert state.log_end_offset == self.state.log_end_offset, (state, self.state)
        assert state.log_start_offset == self.state.log_start_offset, (state, self.state)

        def step(stored: StoredPartition) -> None:
            keep_snapshot(stored, snapshot)
            begin_epoch(stored, epoch)
            stored.state = state

        self._take(step)

    def trim(self, state: LogState, *, snapshot: tuple[int, bytes] | None = None) -> None:
        """Delete the batches below `state.log_start_offset`, and write the state."""
        start = state.log_start_offset
        assert self.state.log_start_offset <= start <= self.state.log_end_offset, state

        def step(stored: StoredPartition) -> None:
            keep_snapshot(stored, snapshot)
            for offset in [each for each in stored.snapshots if each < start]:
                del stored.snapshots[offset]
            kept = bisect_right(stored.bases, start) - 1
            if start == stored.state.log_end_offset:
                kept = len(stored.bases)
            del stored.bases[: max(0, kept)], stored.batches[: max(0, kept)]
            entries = sorted(stored.epochs.items())
            for (leader_epoch, _), (_, following) in pairwise(entries):
                if following <= start:
                    del stored.epochs[leader_epoch]
            row = bisect_right(stored.index, start, key=_base_offset) - 1
            del stored.index[: max(0, row)]
            stored.state = state

        self._take(step)

    def truncate(self, state: LogState, epochs: Sequence[EpochEntry]) -> None:
        """Delete the batches from `state.log_end_offset` on, and every snapshot beyond it."""
        end = state.log_end_offset
        assert self.state.log_start_offset <= end <= self.state.log_end_offset, state

        def step(stored: StoredPartition) -> None:
            kept = bisect_left(stored.bases, end)
            del stored.bases[kept:], stored.batches[kept:]
            del stored.index[bisect_left(stored.index, end, key=_base_offset) :]
            for offset in [each for each in stored.snapshots if each > end]:
                del stored.snapshots[offset]
            stored.epochs = dict(epochs)
            stored.state = state

        self._take(step)

    def restart(
        self,
        state: LogState,
        epochs: Sequence[EpochEntry],
        *,
        snapshot: tuple[int, bytes] | None = None,
    ) -> None:
        """Delete everything and begin again, empty, at `state.log_end_offset`."""
        assert state.log_start_offset == state.log_end_offset, state

        def step(stored: StoredPartition) -> None:
            del stored.bases[:], stored.batches[:], stored.index[:]
            stored.snapshots.clear()
            keep_snapshot(stored, snapshot)
            stored.epochs = dict(epochs)
            stored.state = state

        self._take(step)

    def mark_dropped(self) -> None:
        """Refuse everything from now on."""
        self._dropped = True

    def read(self, offset: int, end: int, max_bytes: int) -> list[StoredBatch]:
        """Return the batches from the one that holds `offset`, below `end`."""
        found: list[StoredBatch] = []
        for base, data in self._from(offset, end):
            batch = self._parse(data)
            self._check(base, batch.base_offset)
            if batch.next_offset > end or (found and len(data) > max_bytes):
                break
            found.append(batch)
            max_bytes -= len(data)
            if max_bytes <= 0:
                break
        return found

    def scan(self, offset: int, max_bytes: int) -> list[ScannedBatch]:
        """Return what `read` would up to the log end, every checksum verified."""
        found: list[ScannedBatch] = []
        for base, data in self._from(offset, self.state.log_end_offset):
            if found and len(data) > max_bytes:
                break
            batch = self._scan(self.partition, data)
            self._check(base, batch.stamp.base_offset)
            found.append(batch)
            max_bytes -= len(data)
            if max_bytes <= 0:
                break
        return found

    def epochs(self) -> list[EpochEntry]:
        """Return all epoch entries in order."""
        return [EpochEntry(*each) for each in sorted(self._stored.epochs.items())]

    def index_before(self, offset: int) -> IndexRow | None:
        """Return the last index row at or below `offset`."""
        self._store.check_readable()
        rows = self._stored.index
        at = bisect_right(rows, offset, key=_base_offset)
        return rows[at - 1] if at else None

    def index_rows(self, offset: int, limit: int) -> list[IndexRow]:
        """Return up to `limit` index rows from `offset` on."""
        self._store.check_readable()
        rows = self._stored.index
        at = bisect_left(rows, offset, key=_base_offset)
        return rows[at : at + limit]

    def snapshot(self) -> tuple[int, bytes] | None:
        """Return the newest producer snapshot as (offset, bytes)."""
        snapshots = self._stored.snapshots
        return max(snapshots.items()) if snapshots else None

    @property
    def _stored(self) -> StoredPartition:
        if self._dropped:
            raise StorageError(f"{self.partition} has been deleted")
        return self._store.image.partitions[self.partition]

    def _take(self, step: Callable[[StoredPartition], None]) -> None:
        assert self._stored is not None
        partition = self.partition
        self._store.take(lambda image: step(image.partitions[partition]))

    def _from(self, offset: int, end: int) -> list[tuple[int, bytes]]:
        self._store.check_readable()
        stored = self._stored
        offset = max(offset, stored.state.log_start_offset)
        if offset >= min(end, stored.state.log_end_offset):
            return []
        first = max(0, bisect_right(stored.bases, offset) - 1)
        return list(zip(stored.bases[first:], stored.batches[first:], strict=True))

    def _check(self, base: int, says: int) -> None:
        if base != says:
            raise CorruptData(
                f"{self.partition}: the batch stored at offset {base} says that it begins at {says}"
            )


class MemoryTable:
    """Implements ports.log.Table."""

    def __init__(self, store: MemoryStore, name: bytes) -> None:
        self._store = store
        self._name = name

    def get(self, key: bytes) -> bytes | None:
        """Return a value."""
        return self._store.image.tables.get(self._name, {}).get(key)

    def scan(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """Return all rows whose key begins with `prefix`, in order."""
        rows = self._store.image.tables.get(self._name, {})
        return sorted((key, value) for key, value in rows.items() if key.startswith(prefix))

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes] = ()) -> None:
        """Write and delete rows in one atomic step; of a key in both, the put counts."""
        put, gone, name = dict(puts), list(deletes), self._name

        def step(image: Image) -> None:
            rows = image.tables.setdefault(name, {})
            for key in gone:
                rows.pop(key, None)
            rows.update(put)

        self._store.take(step)


def _base_offset(row: IndexRow) -> int:
    return row.base_offset
