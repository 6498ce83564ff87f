"""One partition in its slot: batches there, everything else in the index, one write for both.

Reading follows the chain: a batch says where the next one begins, which is its key. So a gap is
noticed where it is, every value is read without holding the interpreter lock, and nothing is ever
searched but the batch in whose middle a reader starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

from riverrun_server.core.log.batch import PartitionId, ScannedBatch, StoredBatch
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.log.state import IndexRow, LogState
from riverrun_server.ports.log import CorruptData, StorageError
from riverrun_server.storage import keys, rows
from riverrun_server.storage.columns import Column
from riverrun_server.storage.journal import Journal
from riverrun_server.storage.rocks import Batch

T = TypeVar("T")
Parse = Callable[[bytes], StoredBatch]
Scan = Callable[[PartitionId, bytes], ScannedBatch]

# More rows than this go in one range, for each range slows lookups down until it is compacted away.
_SINGLE_DELETES_MAX = 64
# The newest, and the one before it for a truncation below the newest.
_SNAPSHOTS_KEPT = 2


class MissingBatch(CorruptData):
    """There is no batch where one should begin; what is there can be read."""


class RocksLog:
    """Implements ports.log.Log.

    Args:
        partition: whose log it is.
        journal: takes the writes.
        slot: where the batches stand.
        state: as stored.
        damage: why it must stay offline, or None.
        parse: reads the place of a stored batch from its header.
        scan: reads everything, with all checksums verified.

    Transitions: open -> dropped, for good.
    """

    def __init__(
        self,
        partition: PartitionId,
        journal: Journal,
        slot: Column,
        state: LogState,
        damage: str | None,
        parse: Parse,
        scan: Scan,
    ) -> None:
        self.partition = partition
        self._prefix = keys.prefix(partition)
        self._journal = journal
        self._index = journal.index
        self._slot = slot
        self._state = state
        self._damage = damage
        self._parse = parse
        self._scan = scan
        self._dropped = False
        # Where a truncation that is being written will end the log.
        self._ending_at: int | None = None
        # (a log start, the batch in which it lies), looked up once for each log start.
        self._first_kept = (0, 0)

    @property
    def state(self) -> LogState:
        """What the newest write left, or recovery found."""
        return self._state

    @property
    def damage(self) -> str | None:
        """Why this partition must stay offline, or None."""
        return self._damage

    # Writing.

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
        assert batch.base_offset == self._state.log_end_offset, (batch[:3], self._state)
        assert batch.next_offset == state.log_end_offset > batch.base_offset, (batch[:3], state)
        write = Batch()
        write.put(self._slot, keys.batch(self._prefix, batch.base_offset), batch.data)
        if index is not None:
            assert index.base_offset == batch.base_offset, (index, batch[:3])
            key = keys.index(self._prefix, index.base_offset)
            write.put(self._index, key, rows.pack_index(index))
        self._commit(write, state, epoch)

    def save(
        self,
        state: LogState,
        *,
        epoch: EpochEntry | None = None,
        snapshot: tuple[int, bytes] | None = None,
    ) -> None:
        """Write the state alone, with an epoch entry or a producer snapshot (offset, bytes).

        Raises:
            StorageStalled, StorageFull, StorageFailed: nothing was written.
        """
        assert state.log_end_offset == self._state.log_end_offset, (state, self._state)
        assert state.log_start_offset == self._state.log_start_offset, (state, self._state)
        write = Batch()
        self._put_snapshot(write, snapshot)
        self._commit(write, state, epoch)

    def trim(self, state: LogState, *, snapshot: tuple[int, bytes] | None = None) -> None:
        """Let the log begin at `state.log_start_offset`, and write the state.

        What lies below cannot be read from now on. Its batches leave the disk file by file, by
        upkeep: a range deleted here would stand in one table with the newest batches, and RocksDB
        would rewrite all that lies between (measured: the whole log for each trim).

        Raises:
            StorageStalled, StorageFull, StorageFailed: nothing was written.
        """
        start = state.log_start_offset
        assert self._state.log_start_offset <= start <= self._state.log_end_offset, state
        assert state.log_end_offset == self._state.log_end_offset, (state, self._state)
        write = Batch()
        self._put_snapshot(write, snapshot)
        # One below the log start could never be continued from.
        for offset in self._snapshot_offsets():
            if offset < start:
                write.delete(self._index, keys.snapshot(self._prefix, offset))
        epochs = self.epochs()
        for entry, following in pairwise(epochs):
            if following.start_offset <= start:
                write.delete(self._index, keys.epoch(self._prefix, entry.leader_epoch))
        # The row that the first batch belongs to stays: sizes and lookups are counted from it.
        first = self.index_before(start)
        if first is not None:
            begin, _ = keys.index_rows(self._prefix)
            self._delete(write, begin, keys.index(self._prefix, first.base_offset))
        self._commit(write, state)

    def truncate(self, state: LogState, epochs: Sequence[EpochEntry]) -> None:
        """Delete the batches from `state.log_end_offset` on, and every snapshot beyond it.

        The offset must be the start of a batch; `epochs` are the entries that remain.

        Raises:
            StorageStalled, StorageFull, StorageFailed: nothing was written.
        """
        end = state.log_end_offset
        assert self._state.log_start_offset <= end <= self._state.log_end_offset, state
        write = Batch()
        write.delete_range(
            self._slot, keys.batch(self._prefix, end), keys.batches_end(self._prefix)
        )
        _, rows_end = keys.index_rows(self._prefix)
        write.delete_range(self._index, keys.index(self._prefix, end), rows_end)
        _, snapshots_end = keys.snapshots(self._prefix)
        write.delete_range(self._index, keys.snapshot(self._prefix, end + 1), snapshots_end)
        write.delete_range(self._index, *keys.epochs(self._prefix))
        for entry in epochs:
            key = keys.epoch(self._prefix, entry.leader_epoch)
            write.put(self._index, key, rows.pack_epoch(entry))
        self._ending_at = end
        try:
            self._commit(write, state)
        finally:
            self._ending_at = None

    def restart(
        self,
        state: LogState,
        epochs: Sequence[EpochEntry],
        *,
        snapshot: tuple[int, bytes] | None = None,
    ) -> None:
        """Delete everything and begin again, empty, at `state.log_end_offset`.

        Raises:
            StorageStalled, StorageFull, StorageFailed: nothing was written.
        """
        assert state.log_start_offset == state.log_end_offset, state
        write = Batch()
        end = keys.batches_end(self._prefix)
        write.delete_range(self._slot, keys.batch(self._prefix, 0), end)
        write.delete_range(self._index, *keys.rows(self._prefix))
        for entry in epochs:
            key = keys.epoch(self._prefix, entry.leader_epoch)
            write.put(self._index, key, rows.pack_epoch(entry))
        if snapshot is not None:
            write.put(self._index, keys.snapshot(self._prefix, snapshot[0]), snapshot[1])
        self._ending_at = 0
        try:
            self._commit(write, state)
        finally:
            self._ending_at = None

    def renewed(self, slot: Column, state: LogState) -> None:
        """Take note that it stands in another slot, empty and undamaged, with a state."""
        # The state first: a thread that reads meanwhile finds nothing, in either slot.
        self._state, self._damage = state, None
        self._slot = slot
        self._first_kept = (0, 0)

    def mark_dropped(self) -> None:
        """Refuse everything from now on: the partition has been deleted."""
        self._dropped = True

    # Reading.

    def read(self, offset: int, end: int, max_bytes: int) -> list[StoredBatch]:
        """Return the batches from the one that holds `offset`, below `end`.

        At least one batch is returned where there is one, then as many as fit into `max_bytes`. An
        offset below the log start reads from the log start. Blocks for one bounded step.

        Raises:
            CorruptData: the store itself found damage, or a batch is missing.
        """

        def view(data: bytes) -> tuple[int, int, StoredBatch]:
            batch = self._parse(data)
            return batch.base_offset, batch.next_offset, batch

        return self._collect(offset, end, max_bytes, view)

    def scan(self, offset: int, max_bytes: int) -> list[ScannedBatch]:
        """Return what `read` would up to the log end, every checksum verified; for recovery.

        Raises:
            CorruptData: a batch is damaged, missing, or not where it says it is.
        """

        def view(data: bytes) -> tuple[int, int, ScannedBatch]:
            batch = self._scan(self.partition, data)
            return batch.stamp.base_offset, batch.stamp.next_offset, batch

        return self._collect(offset, self._state.log_end_offset, max_bytes, view)

    def epochs(self) -> list[EpochEntry]:
        """Return all epoch entries in order."""
        return [
            rows.unpack_epoch(keys.epoch_of(key), row)
            for key, row in self._index.scan(*keys.epochs(self._prefix))
        ]

    def index_before(self, offset: int) -> IndexRow | None:
        """Return the last index row at or below `offset`."""
        if offset < 0:
            return None  # no key stands for what lies before the first offset
        begin, _ = keys.index_rows(self._prefix)
        found = self._index.last(begin, keys.index(self._prefix, offset))
        return rows.unpack_index(keys.offset_of(found[0]), found[1]) if found else None

    def index_rows(self, offset: int, limit: int) -> list[IndexRow]:
        """Return up to `limit` index rows from `offset` on."""
        _, end = keys.index_rows(self._prefix)
        return [
            rows.unpack_index(keys.offset_of(key), row)
            for key, row in self._index.scan(keys.index(self._prefix, offset), end, limit)
        ]

    def snapshot(self) -> tuple[int, bytes] | None:
        """Return the newest producer snapshot as (offset, bytes)."""
        found = self._index.last(*keys.snapshots(self._prefix))
        return (keys.offset_of(found[0]), found[1]) if found else None

    def first_kept_offset(self) -> int:
        """Return where the batch begins in which the log start lies: that one is still needed.

        Blocks; for upkeep.

        Raises:
            CorruptData: the store itself found damage.
        """
        start = self._state.log_start_offset
        if self._first_kept[0] != start:
            offset, data = self._holding(start)
            self._first_kept = (start, start if data is None else offset)
        return self._first_kept[1]

    def is_followed(self) -> bool:
        """Return whether anything stands behind the end, or cannot be told; blocks, for repairs."""
        end = keys.batch(self._prefix, self._state.log_end_offset)
        return self._slot.may_hold(end, keys.batches_end(self._prefix))

    # How.

    def _commit(self, write: Batch, state: LogState, epoch: EpochEntry | None = None) -> None:
        if self._dropped:
            raise StorageError(f"{self.partition} has been deleted")
        assert self._damage is None, self._damage
        if epoch is not None:
            key = keys.epoch(self._prefix, epoch.leader_epoch)
            write.put(self._index, key, rows.pack_epoch(epoch))
        write.put(self._index, keys.state(self._prefix), rows.pack_state(state))
        self._journal.commit(write)
        self._state = state

    def _put_snapshot(self, write: Batch, snapshot: tuple[int, bytes] | None) -> None:
        if snapshot is None:
            return
        offset, data = snapshot
        older = [known for known in self._snapshot_offsets() if known < offset]
        for each in older[: max(0, len(older) + 1 - _SNAPSHOTS_KEPT)]:
            write.delete(self._index, keys.snapshot(self._prefix, each))
        write.put(self._index, keys.snapshot(self._prefix, offset), data)

    def _snapshot_offsets(self) -> list[int]:
        return [keys.offset_of(key) for key, _ in self._index.scan(*keys.snapshots(self._prefix))]

    def _delete(self, write: Batch, begin: bytes, end: bytes) -> None:
        """Delete a range of index rows, one by one where they are few."""
        found = self._index.scan(begin, end, _SINGLE_DELETES_MAX + 1)
        if len(found) > _SINGLE_DELETES_MAX:
            write.delete_range(self._index, begin, end)
            return
        for key, _ in found:
            write.delete(self._index, key)

    def _collect(
        self, offset: int, end: int, max_bytes: int, view: Callable[[bytes], tuple[int, int, T]]
    ) -> list[T]:
        """Follow the chain of batches; `view` returns (base offset, next offset, what to keep)."""
        if self._dropped:
            raise StorageError(f"{self.partition} has been deleted")
        offset = max(offset, self._state.log_start_offset)
        end = min(end, self._state.log_end_offset)
        found: list[T] = []
        with self._slot.lookups() as lookup:
            while offset < end:
                data = lookup(keys.batch(self._prefix, offset))
                if data is None and not found:
                    offset, data = self._holding(offset)
                if data is None:
                    self._check_gone(offset)
                    break
                base_offset, next_offset, item = view(data)
                if base_offset != offset or next_offset <= offset:
                    raise CorruptData(
                        f"{self.partition}: the batch stored at offset {offset} says that it spans "
                        f"{base_offset} to {next_offset}"
                    )
                if next_offset > end or (found and len(data) > max_bytes):
                    break
                found.append(item)
                max_bytes -= len(data)
                offset = next_offset
                if max_bytes <= 0:
                    break
        return found

    def _holding(self, offset: int) -> tuple[int, bytes | None]:
        """Return the batch in whose middle an offset is, with the offset it begins at."""
        found = self._slot.last(self._prefix, keys.batch(self._prefix, offset))
        if found is None:
            return offset, None
        key, data = found
        batch = self._parse(data)
        return (keys.offset_of(key), data) if batch.next_offset > offset else (offset, None)

    def _check_gone(self, offset: int) -> None:
        """Raise unless a batch that was not found has been deleted meanwhile."""
        state, ending_at = self._state, self._ending_at
        if self._dropped or not state.log_start_offset <= offset < state.log_end_offset:
            return
        if ending_at is None or offset < ending_at:
            raise MissingBatch(f"{self.partition} has no batch at offset {offset}")
