"""Measures what a store has done and how it is, for the metrics page."""

from __future__ import annotations

from typing import Final, NamedTuple

from riverrun_server.observe.store import StoreFigures
from riverrun_server.storage.journal import Journal
from riverrun_server.storage.rocks import Rocks

_WAL: Final = "rocksdb.wal.bytes"
_FLUSHED: Final = "rocksdb.flush.write.bytes"
_COMPACTED: Final = "rocksdb.compact.write.bytes"
_READ_BY_COMPACTION: Final = "rocksdb.compact.read.bytes"
_STALLED: Final = "rocksdb.stall.micros"
_WRITING: Final = "rocksdb.db.write.micros"


class Slots(NamedTuple):
    """How the slots of a store are taken."""

    total: int
    free: int
    partitions_sharing: int


def measure(rocks: Rocks, journal: Journal, slots: Slots) -> StoreFigures:
    """Return how a store is; blocks for some milliseconds.

    Raises:
        StorageError: it is closed.
    """
    counters = rocks.counters()
    tables = rocks.files()
    return StoreFigures(
        wal_bytes=counters.get(_WAL, 0),
        flushed_bytes=counters.get(_FLUSHED, 0),
        compacted_bytes=counters.get(_COMPACTED, 0),
        compaction_read_bytes=counters.get(_READ_BY_COMPACTION, 0),
        memtable_bytes=rocks.memtable_bytes(),
        table_bytes=sum(table.size for table in tables),
        tables=len(tables),
        writes=counters.get(f"{_WRITING}.count", 0),
        write_us=counters.get(f"{_WRITING}.sum", 0),
        stall_us=counters.get(_STALLED, 0),
        write_stopped=rocks.number("rocksdb.is-write-stopped") > 0,
        unsynced_writes=journal.written - journal.durable,
        slots=slots.total,
        slots_free=slots.free,
        partitions_sharing=slots.partitions_sharing,
    )
