"""Keeps a store small without disturbing it: dead batches leave, small tables are joined.

A batch is deleted by a tombstone in a table that holds nothing else, made beside the database and
taken in as a whole. Written the ordinary way it would share a table with the newest batches, and
compaction would rewrite all that lies between: the whole log, for every trim. Each range is read
before RocksDB compacts it, since damage that compaction meets stops every write to the store.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from riverrun_server.core.log.batch import StoredBatch
from riverrun_server.ports.log import CorruptData
from riverrun_server.storage import housework, keys
from riverrun_server.storage.columns import Column
from riverrun_server.storage.housework import Job, Purpose, Tenancy
from riverrun_server.storage.rocks import Rocks

_log = structlog.stdlib.get_logger(__name__)

# Below this an idle store keeps what it has in memory: a table for every few KiB costs more.
_WORTH_FLUSHING_BYTES: Final = 32 << 20
_FLUSHED: Final = "rocksdb.flush.write.bytes"


class Upkeep:
    """One step of housework at a time.

    Args:
        rocks: the database.
        scratch: a path on the same file system for one small file.
        parse: reads the place of a batch.
        many_tables: from which on small tables are joined.
    """

    def __init__(
        self,
        rocks: Rocks,
        scratch: Path,
        parse: Callable[[bytes], StoredBatch],
        *,
        many_tables: int = housework.TABLES_MANY,
    ) -> None:
        self._rocks = rocks
        self._scratch = scratch
        self._parse = parse
        self._many_tables = many_tables
        self._tried: set[str] = set()
        self._stuck: set[tuple[int, bytes]] = set()
        self._written = -1
        self._flushed = 0

    def next_job(
        self, live: Mapping[bytes, Tenancy], dropped: Sequence[tuple[int, bytes]]
    ) -> Job | None:
        """Return what should be done next, None where nothing is."""
        waiting = [each for each in dropped if each not in self._stuck]
        tables = self._rocks.files()
        self._tried &= {table.name for table in tables}
        return next(
            housework.jobs(tables, live, waiting, self._tried, many=self._many_tables), None
        )

    def work(self, job: Job) -> bool:
        """Do one bounded step of a job; return whether nothing of it is left.

        Raises:
            StorageError: nothing was lost, and what was done stays done.
        """
        column = self._rocks.column(keys.slot_name(job.slot))
        if job.purpose is Purpose.DROPPED and column.is_dirty:
            column.flush()
        try:
            found, complete = self._walk(column, job)
        except CorruptData as damage:
            _log.error(
                "damaged table is left as it is",
                slot=column.name,
                purpose=job.purpose.value,
                error=str(damage),
            )
            self._tried |= job.tables
            self._stuck.add((job.slot, job.prefix))
            return False
        if job.purpose is Purpose.JOIN:
            column.compact(job.first, job.last, rewrite=True)
            self._tried |= job.tables
            return True
        if found:
            column.ingest_deletes(found, self._scratch)
            # One key alone overlaps nothing in RocksDB's eyes: its tombstone would be moved beside it.
            column.compact(found[0], found[-1], rewrite=len(found) == 1)
        if complete:
            column.compact(job.first, job.last)
            self._tried |= job.tables
        return complete

    def settle(self, written: int) -> None:
        """Take what memory is worth taking back from an idle store, and give it to the system.

        Args:
            written: the number of the last write; the same as last time means idle.
        """
        idle, self._written = written == self._written, written
        if idle and self._rocks.memtable_bytes() > _WORTH_FLUSHING_BYTES:
            for column in self._rocks.columns():
                if column.is_dirty:
                    column.flush()
        flushed = self._rocks.counters().get(_FLUSHED, 0)
        if flushed - self._flushed > _WORTH_FLUSHING_BYTES:
            self._flushed = flushed
            _give_memory_back()

    def _walk(self, column: Column, job: Job) -> tuple[list[bytes], bool]:
        """Read the batches of a job up to a bound; return their keys, and whether that was all."""
        beyond = job.last + b"\x00"
        found: list[bytes] = []
        room = housework.STEP_BYTES
        with column.lookups() as lookup:
            key = job.first
            while key < beyond:
                data = lookup(key)
                if data is None:
                    next_rows = column.scan(key, beyond, 1)
                    if not next_rows:
                        break
                    key, data = next_rows[0]
                if room <= 0:
                    return found, False
                found.append(key)
                room -= len(data)
                key = self._following(key, data, job.prefix)
        return found, True

    def _following(self, key: bytes, data: bytes, prefix: bytes) -> bytes:
        """Return where the next batch should begin, or any place before it."""
        try:
            following = keys.batch(prefix, self._parse(data).next_offset)
        except CorruptData:
            following = key
        return following if following > key else key + b"\x00"


def _give_memory_back() -> None:
    """Have the C library return freed memory: of 620 MB after a load, 570 were no longer in use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
