"""One column family, with the few operations that rocksdict does right.

It holds the interpreter lock in iterators and in `get(key)` but lets go of it in `get([keys])`, so
values are read that way: a thread that reads with an iterator delays the event loop by 5 ms at a
time (measured; the list form by 0.1 ms, at the same speed). Iteration forms other than RdictIter
end silently at damage, so only that one is used and asked for its status. Iterator bounds dangle,
so keys are compared. The database stays open as long as an iterator or handle lives, so none
leaves here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from rocksdict import (
    BottommostLevelCompaction,
    ColumnFamily,
    CompactOptions,
    IngestExternalFileOptions,
    Options,
    Rdict,
    SstFileWriter,
)

from riverrun_server.ports.log import CorruptData
from riverrun_server.storage.rocks_errors import translated

_ENTRIES: Final = "rocksdb.num-entries-active-mem-table"
_WAITING: Final = "rocksdb.num-immutable-mem-table"


class Column:
    """One column family of an open database.

    Args:
        name: of the family.
        rows: rocksdict's view of it.
        handle: what names it in a batch.
        reading: keeps the database open until the end of a block.
    """

    def __init__(
        self,
        name: str,
        rows: Rdict,
        handle: ColumnFamily,
        reading: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.name = name
        self._rows: Rdict | None = rows
        self._handle: ColumnFamily | None = handle
        self._reading = reading

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of some keys, None where there is none; others run meanwhile.

        Raises:
            CorruptData: a block fails its checksum.
        """
        with self._reading(), translated(f"reading {self.name}"):
            found: list[bytes | None] = self._open.get(list(keys))  # type: ignore[assignment]
        return found

    def one(self, key: bytes) -> bytes | None:
        """Return the value of a key, as `get`."""
        return self.get([key])[0]

    @contextmanager
    def lookups(self) -> Iterator[Callable[[bytes], bytes | None]]:
        """Give a way to get many values one after the other, as `one` but cheaper.

        Raises:
            CorruptData: a block fails its checksum.
        """
        with self._reading(), translated(f"reading {self.name}"):
            yield lambda key: self._open.get([key])[0]  # type: ignore[index]

    def scan(self, begin: bytes, end: bytes, limit: int | None = None) -> list[tuple[bytes, bytes]]:
        """Return rows from `begin` up to but not `end`, as of one moment.

        Raises:
            CorruptData: a block fails its checksum; nothing is left out silently.
        """
        found: list[tuple[bytes, bytes]] = []
        with self._reading(), translated(f"reading {self.name}"):
            rows = self._open.iter()
            try:
                rows.seek(begin)
                while rows.valid() and (limit is None or len(found) < limit):
                    key = rows.key()
                    if key >= end:
                        break
                    found.append((key, rows.value()))
                    rows.next()
                rows.status()
            finally:
                del rows  # as long as it lives, the database stays open
        return found

    def may_hold(self, begin: bytes, end: bytes) -> bool:
        """Return whether there is a row from `begin` up to but not `end`, or damage hides it."""
        try:
            return bool(self.scan(begin, end, 1))
        except CorruptData:
            return True

    def last(self, begin: bytes, at: bytes) -> tuple[bytes, bytes] | None:
        """Return the last row from `begin` up to and including `at`.

        Raises:
            CorruptData: a block fails its checksum.
        """
        with self._reading(), translated(f"reading {self.name}"):
            rows = self._open.iter()
            try:
                rows.seek_for_prev(at)
                if rows.valid() and (key := rows.key()) >= begin:
                    return key, rows.value()
                rows.status()
            finally:
                del rows
        return None

    def flush(self, *, wait: bool = True) -> None:
        """Write what is in memory into a table; blocks, others run meanwhile.

        Args:
            wait: until it is on the disk; else it is only begun.

        Raises:
            StorageError: it may have been written all the same.
        """
        with self._reading(), translated(f"flushing {self.name}"):
            self._open.flush(wait)

    @property
    def is_dirty(self) -> bool:
        """Whether something is in memory only (and in the write-ahead log)."""
        return self.number(_ENTRIES) > 0 or self.number(_WAITING) > 0

    @property
    def is_filled(self) -> bool:
        """Whether there are tables, or something that will become one."""
        return self.is_dirty or self.number("rocksdb.live-sst-files-size") > 0

    def memory_bytes(self) -> int:
        """Return how much memory holds what is not in tables yet."""
        return self.number("rocksdb.cur-size-all-mem-tables")

    def number(self, name: str) -> int:
        """Return one of RocksDB's properties of this family, 0 where there is none."""
        with self._reading():
            return self._open.property_int_value(name) or 0

    def compact(self, first: bytes, last: bytes, *, rewrite: bool = False) -> None:
        """Compact what lies between two keys, both included; blocks, others run meanwhile.

        rocksdict reports no failure of it, and a damaged block in the range stops all writes to the
        database for good: read the range before.

        Args:
            first: key.
            last: key.
            rewrite: join files that have nothing to be compacted with, too.
        """
        options = CompactOptions()
        options.set_exclusive_manual_compaction(False)
        if rewrite:
            options.set_bottommost_level_compaction(BottommostLevelCompaction.force())
        with self._reading(), translated(f"compacting {self.name}"):
            self._open.compact_range(first, last, options)

    def ingest_deletes(self, keys: Sequence[bytes], scratch: Path) -> None:
        """Delete rows through a table of their own, made at `scratch`, which then disappears.

        Unlike a delete that is written it shares no table with rows written meanwhile, so
        compaction has nothing to rewrite. Durable at once.

        Args:
            keys: in order.
            scratch: a path on the same file system.

        Raises:
            StorageError: nothing has changed.
        """
        with self._reading(), translated(f"deleting from {self.name}"):
            scratch.unlink(missing_ok=True)
            table = SstFileWriter(Options(raw_mode=True))
            table.open(str(scratch))
            for key in keys:
                del table[key]
            table.finish()
            options = IngestExternalFileOptions()
            options.set_move_files(True)
            options.set_allow_blocking_flush(False)
            self._open.ingest_external_file([str(scratch)], options)

    @property
    def handle(self) -> ColumnFamily:
        """What names the family in a batch."""
        assert self._handle is not None, "the database is closed"
        return self._handle

    def let_go(self) -> None:
        """Give up what keeps the database open; nothing works any more."""
        self._rows = self._handle = None

    @property
    def _open(self) -> Rdict:
        """The family, for one expression: a name for it would live on in an error's traceback."""
        assert self._rows is not None
        return self._rows
