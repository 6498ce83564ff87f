"""Many partitions and tables in one database: who has which slot, and what is durable."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import structlog

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.state import LogState
from riverrun_server.observe.store import StoreFigures
from riverrun_server.ports.log import CorruptData, StorageError, StorageStalled
from riverrun_server.storage import keys, rows
from riverrun_server.storage.housework import Job, Purpose, Tenancy
from riverrun_server.storage.identity import (
    DirectoryLock,
    Identity,
)
from riverrun_server.storage.journal import Journal
from riverrun_server.storage.log import Parse, RocksLog, Scan
from riverrun_server.storage.metrics import Slots, measure
from riverrun_server.storage.moving import copy_out, empty_marked
from riverrun_server.storage.recovery import RecoveryReport
from riverrun_server.storage.reindexing import is_readable, rebuild
from riverrun_server.storage.rocks import Batch, Rocks
from riverrun_server.storage.rocks_errors import translated
from riverrun_server.storage.salvage import readable
from riverrun_server.storage.slots import SlotPool
from riverrun_server.storage.table import RocksTable
from riverrun_server.storage.upkeep import Upkeep
from riverrun_server.storage.watermark import Watermark, write_watermark

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Codec:
    """How stored batches are read, so that storage does not depend on their encoding.

    Attributes:
        parse: reads the place of a batch from its header.
        scan: reads everything, with all checksums verified.
    """

    parse: Parse
    scan: Scan


class RocksStore:
    """Implements ports.log.LogStore; `open_store` makes it.

    Transitions: open -> failed (a sync failed); either -> closed.
    """

    def __init__(
        self,
        folder: Path,
        lock: DirectoryLock,
        rocks: Rocks,
        identity: Identity,
        recovery: RecoveryReport,
        codec: Codec,
    ) -> None:
        self.identity = identity
        self.recovery = recovery
        self._folder = folder
        self._lock = lock
        self._rocks = rocks
        self._codec = codec
        self._journal = Journal(rocks, recovery.written)
        self._logs: dict[PartitionId, RocksLog] = {}
        occupied, self._dead = _slot_map(self._journal)
        filled = _slots(rocks)
        # What nobody owns stays on the disk, and such a slot is the last to be taken.
        owned = {*occupied.values(), *(slot for slot, _ in self._dead)}
        strays = [slot for slot, is_filled in filled.items() if is_filled and slot not in owned]
        littered = [*(slot for slot, _ in self._dead), *strays]
        self._pool = SlotPool(filled, occupied, littered)
        self._told_of_sharing = False
        self._upkeep = Upkeep(rocks, folder / "deletes.sst", codec.parse)
        # Threads take part in these maps, of upkeep and of metrics: who is where, what is being buried.
        self._maps = threading.Lock()
        self._burying: bytes | None = None
        self._marked: Watermark | None = None
        self._closed = False

    def begin(self) -> None:
        """Let what was found count as on the disk, and say that the store is in use.

        Raises:
            StorageError: it cannot be used.
        """
        self.write_watermark(clean=False)

    # Partitions and tables.

    def partitions(self) -> list[PartitionId]:
        """Return every partition that is stored, in order."""
        return self._pool.partitions()

    def open(self, partition: PartitionId) -> RocksLog:
        """Return the log of a partition, made empty where it is not stored yet.

        Raises:
            StorageStalled, StorageFull, StorageFailed: it was not stored and is not now.
        """
        log = self._logs.get(partition)
        if log is None:
            with self._maps:
                known = partition in self._pool
                log = self._stored(partition) if known else self._made(partition)
                self._logs[partition] = log
        return log

    def renew(self, partition: PartitionId, state: LogState) -> None:
        """Throw away all that an open log holds, damaged or not, and let it begin again, empty.

        It goes to another slot if there is one, for RocksDB compacts damaged tables out of which it
        deletes, and that stops every write. Upkeep takes the old batches away that it can read.

        Raises:
            StorageStalled, StorageFull, StorageFailed: nothing has changed.
        """
        prefix, old = keys.prefix(partition), self._pool[partition]
        with self._maps:
            new, write = self._pool.choose(), Batch()
            write.delete_range(self._journal.index, *keys.rows(prefix))
            if new != old:
                write.put(self._journal.meta, keys.dead(old, prefix), rows.DEAD)
            self._settle(write, prefix, new, state)
            if new != old:
                self._dead.add((old, prefix))
                self._pool.leave(partition)
                self._pool.take(partition, new)
            self._logs[partition].renewed(self._rocks.column(keys.slot_name(new)), state)

    def drop(self, partition: PartitionId) -> None:
        """Delete everything of a partition in one bounded step; its slot serves another one.

        Its batches can no longer be read; they leave the disk by upkeep. A partition that is not
        stored is none of our business.

        Raises:
            StorageStalled, StorageFull, StorageFailed: it is still there.
        """
        if partition not in self._pool:
            return
        prefix, slot = keys.prefix(partition), self._pool[partition]
        with self._maps:
            write = Batch()
            write.delete(self._journal.meta, keys.slot_of(prefix))
            write.put(self._journal.meta, keys.dead(slot, prefix), rows.DEAD)
            write.delete_range(self._journal.index, *keys.rows(prefix))
            self._journal.commit(write)
            self._pool.leave(partition)
            self._dead.add((slot, prefix))
            log = self._logs.pop(partition, None)
        if log is not None:
            log.mark_dropped()

    def move_out(self, partition: PartitionId) -> bool:
        """Move what can be read of a damaged partition into a clean slot; drop the old tables.

        Deleting from damaged tables would have RocksDB compact them, and what it meets there stops
        every write to the store, at each start anew. Only for a store that nobody else uses, with
        compactions off. A slot that is shared, or a store without a clean one, is left as it is.

        Returns:
            Whether it was moved; its log then has to be opened again, and cut.

        Raises:
            StorageError: it stands where it stood.
        """
        if not (self._pool.is_alone(partition) and self._pool.has_clean()):
            return False
        old, new = self._pool[partition], self._pool.choose()
        copy_out(self._journal, keys.prefix(partition), readable(self.open(partition)), old, new)
        self._pool.leave(partition)
        self._pool.take(partition, new)
        self._logs.pop(partition).mark_dropped()
        empty_marked(self._journal)
        self._pool.cleaned(old)
        return True

    def has_whole_index(self) -> bool:
        """Return whether all rows beside the batches can be read; blocks while it looks."""
        return is_readable(self._journal)

    def rebuild(self, partition: PartitionId) -> bool:
        """Make the rows of a damaged partition from its batches; return whether there is any.

        Raises:
            StorageError: it is as damaged as it was.
        """
        slot, codec = self._rocks.column(keys.slot_name(self._pool[partition])), self._codec
        self._logs.pop(partition).mark_dropped()
        return rebuild(self._journal, partition, slot, codec.parse, codec.scan)

    def table(self, name: bytes) -> RocksTable:
        """Return a table, empty where it has never been written; names are 1 to 255 bytes."""
        return RocksTable(self._journal, name)

    # The disk.

    def sync(self) -> None:
        """Make everything written before this call durable. Blocks; runs in a thread.

        Raises:
            StorageFailed: nobody knows what is on the disk; the process must end.
        """
        self._journal.sync()

    def write_watermark(self, *, clean: bool) -> None:
        """Note outside of the database how far it is durable; blocks for two syncs of a small file.

        Args:
            clean: nothing will be written after it.

        Raises:
            StorageError: the old note is still there.
        """
        mark = Watermark(self.identity.fsync, self._journal.durable, clean)
        if mark != self._marked:
            write_watermark(self._folder, mark)
            self._marked = mark

    def free_bytes(self) -> int:
        """Return how many bytes the file system has left for this store."""
        with translated(f"looking at {self._folder}"):
            room = os.statvfs(self._folder)
        return room.f_bavail * room.f_frsize

    def total_bytes(self) -> int:
        """Return how large the file system with this store is."""
        with translated(f"looking at {self._folder}"):
            room = os.statvfs(self._folder)
        return room.f_blocks * room.f_frsize

    def upkeep(self) -> bool:
        """Do one bounded step of what keeps the store small; return whether more is to be done.

        Blocks for up to about a second. Call it from one thread at a time, every few seconds, and
        again at once while it returns True.

        Raises:
            StorageError: it was not done; reads and writes are not affected.
        """
        self._upkeep.settle(self._journal.written)
        # The batch in which a log start lies begins below it and is still read.
        kept = {log: log.first_kept_offset() for log in list(self._logs.values())}
        with self._maps:
            live = {
                keys.prefix(log.partition): Tenancy(self._pool[log.partition], kept[log])
                for log in self._logs.values()
                if log in kept
            }
            dropped = sorted(self._dead)
        job = self._upkeep.next_job(live, dropped)
        if job is None:
            return False
        # What leaves the tables is gone at once, so the reason for it has to be durable first.
        self._journal.sync()
        with self._maps:
            if not self._still_wanted(job):
                return True
            self._burying = job.prefix
        try:
            complete = self._upkeep.work(job)
            if complete and job.ends_drop:
                self._forget(job.slot, job.prefix)
        finally:
            self._burying = None
        return True

    def metrics(self) -> StoreFigures:
        """Return what the store has done and how it is; blocks for some milliseconds.

        Raises:
            StorageError: it is closed.
        """
        with self._maps:
            slots = Slots(self._pool.size, self._pool.free, self._pool.sharing)
        return measure(self._rocks, self._journal, slots)

    def close(self, *, clean: bool = True) -> None:
        """Wait for who reads, and close for good; the directory can be opened again at once.

        Args:
            clean: write everything into tables and say so in the watermark, so that the next start
                has nothing to replay. Where that fails, the next start replays.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if clean:
                self._journal.flush()
            self._rocks.close()
            if clean:
                self.write_watermark(clean=True)
        except StorageError as error:
            _log.error("store could not be closed in order", error=str(error))
        finally:
            self._rocks.close()
            self._lock.release()

    # How.

    def _stored(self, partition: PartitionId) -> RocksLog:
        """Return the log of a stored partition; an unreadable state is damage of it alone."""
        state, damage = LogState(), None
        try:
            row = self._journal.index.one(keys.state(keys.prefix(partition)))
            if row is None:
                damage = f"the index holds no state of {partition}"
            else:
                state = rows.unpack_state(row)
        except CorruptData as error:
            damage = str(error)
        return self._log_of(partition, self._pool[partition], state, damage)

    def _made(self, partition: PartitionId) -> RocksLog:
        slot = self._pool.choose()
        self._settle(Batch(), keys.prefix(partition), slot, LogState())
        if self._pool.take(partition, slot) and not self._told_of_sharing:
            # Once: a client that makes topics must not fill the log.
            self._told_of_sharing = True
            _log.warning(
                "slots are used up, partitions share them and cost more disk writes",
                slots=self._pool.size,
                partitions=len(self._pool.partitions()),
                setting="storage.slots",
            )
        return self._log_of(partition, slot, LogState(), None)

    def _settle(self, write: Batch, prefix: bytes, slot: int, state: LogState) -> None:
        """Give a slot to a partition that is to begin with a state, in one write with what is in it."""
        if self._burying == prefix:
            raise StorageStalled(f"{keys.partition_of(prefix)} is being deleted, try again soon")
        write.put(self._journal.meta, keys.slot_of(prefix), rows.pack_slot(slot))
        write.put(self._journal.index, keys.state(prefix), rows.pack_state(state))
        again = (slot, prefix) in self._dead
        column, end = self._rocks.column(keys.slot_name(slot)), keys.batches_end(prefix)
        if again or column.may_hold(prefix, end):
            # Dropped from this slot, or left there by a salvage: they would be the new partition's.
            write.delete_range(column, prefix, end)
        if again:
            write.delete(self._journal.meta, keys.dead(slot, prefix))
        self._journal.commit(write)
        if again:
            self._dead.discard((slot, prefix))
            self._pool.cleaned(slot)

    def _still_wanted(self, job: Job) -> bool:
        """Return whether what a job deletes is still dead: its keys could be in use again."""
        partition = keys.partition_of(job.prefix)
        if job.purpose is Purpose.DROPPED:
            return (job.slot, job.prefix) in self._dead
        return partition in self._pool and self._pool[partition] == job.slot

    def _log_of(
        self, partition: PartitionId, slot: int, state: LogState, damage: str | None
    ) -> RocksLog:
        column = self._rocks.column(keys.slot_name(slot))
        codec = self._codec
        return RocksLog(partition, self._journal, column, state, damage, codec.parse, codec.scan)

    def _forget(self, slot: int, prefix: bytes) -> None:
        """Note that nothing is left of a dropped partition."""
        with self._maps:
            write = Batch()
            write.delete(self._journal.meta, keys.dead(slot, prefix))
            self._journal.commit(write)
            self._dead.discard((slot, prefix))
            self._pool.cleaned(slot)


def _slots(rocks: Rocks) -> dict[int, bool]:
    """Return all slots, and whether there is anything in them."""
    slots = ((keys.slot_of_name(column.name), column) for column in rocks.columns())
    return {slot: column.is_filled for slot, column in slots if slot is not None}


def _slot_map(
    journal: Journal,
) -> tuple[dict[PartitionId, int], set[tuple[int, bytes]]]:
    """Return the slot of every partition, and (slot, prefix) of every dropped one.

    Raises:
        CorruptData: a row cannot be read.
    """
    occupied = {
        keys.partition_of(key[1:]): rows.unpack_slot(row)
        for key, row in journal.meta.scan(*keys.slots())
    }
    dead = {keys.dead_of(key) for key, _ in journal.meta.scan(*keys.dead_rows())}
    return occupied, dead
