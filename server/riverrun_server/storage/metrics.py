"""What a store has done and how it is, for the metrics page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from riverrun_server.storage.journal import Journal
from riverrun_server.storage.rocks import Rocks
from riverrun_server.storage.slots import SlotPool

_WAL: Final = "rocksdb.wal.bytes"
_FLUSHED: Final = "rocksdb.flush.write.bytes"
_COMPACTED: Final = "rocksdb.compact.write.bytes"
_READ_BY_COMPACTION: Final = "rocksdb.compact.read.bytes"


@dataclass(frozen=True, slots=True)
class StoreMetrics:
    """A moment of a store; counters run from its opening.

    Attributes:
        wal_bytes: written to write-ahead logs.
        flushed_bytes: written into tables from memory.
        compacted_bytes: written into tables from other tables.
        compaction_read_bytes: read for that.
        memtable_bytes: in memory, not yet in tables.
        table_bytes: of all tables.
        tables: how many there are.
        write_stopped: RocksDB refuses writes until it has caught up.
        unsynced_writes: written, but not known to be on the disk.
        slots: how many there are.
        slots_free: those that no partition occupies.
        partitions_sharing: partitions whose slot is not theirs alone.
    """

    wal_bytes: int
    flushed_bytes: int
    compacted_bytes: int
    compaction_read_bytes: int
    memtable_bytes: int
    table_bytes: int
    tables: int
    write_stopped: bool
    unsynced_writes: int
    slots: int
    slots_free: int
    partitions_sharing: int

    @property
    def write_amplification(self) -> float:
        """Bytes written to the disk for each byte written to the store; 0 before any."""
        written = self.wal_bytes + self.flushed_bytes + self.compacted_bytes
        return written / self.wal_bytes if self.wal_bytes else 0.0


def measure(rocks: Rocks, journal: Journal, pool: SlotPool) -> StoreMetrics:
    """Return how a store is; blocks for some milliseconds.

    Raises:
        StorageError: it is closed.
    """
    counters = rocks.counters()
    tables = rocks.files()
    return StoreMetrics(
        wal_bytes=counters.get(_WAL, 0),
        flushed_bytes=counters.get(_FLUSHED, 0),
        compacted_bytes=counters.get(_COMPACTED, 0),
        compaction_read_bytes=counters.get(_READ_BY_COMPACTION, 0),
        memtable_bytes=rocks.memtable_bytes(),
        table_bytes=sum(table.size for table in tables),
        tables=len(tables),
        write_stopped=rocks.number("rocksdb.is-write-stopped") > 0,
        unsynced_writes=journal.written - journal.durable,
        slots=pool.size,
        slots_free=pool.free,
        partitions_sharing=pool.sharing,
    )
