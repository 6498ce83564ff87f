"""RocksDB behind the few operations that are safe; rocksdict is known here and in `columns` only."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rocksdict import (
    AccessType,
    Cache,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from riverrun_server.ports.log import StorageFailed, StorageFull, StorageStalled
from riverrun_server.storage.columns import Column
from riverrun_server.storage.options import Tuning, WalRecovery, open_files, options_file
from riverrun_server.storage.rocks_errors import meaning, translated


class File(NamedTuple):
    """One table on the disk."""

    name: str
    level: int
    size: int
    first_key: bytes
    last_key: bytes


@dataclass(frozen=True, slots=True)
class Access:
    """How a database is opened.

    Attributes:
        wal: what to do about a damaged write-ahead log.
        track_wals: refuse to open when a synced write-ahead log is missing or short.
        read_only: replay the write-ahead log into memory and change nothing on the disk.
    """

    wal: WalRecovery = WalRecovery.POINT_IN_TIME
    track_wals: bool = True
    read_only: bool = False


NORMAL = Access()


class Batch:
    """Writes that happen together or not at all."""

    __slots__ = ("writes",)

    def __init__(self) -> None:
        self.writes = WriteBatch(raw_mode=True)

    def put(self, column: Column, key: bytes, value: bytes) -> None:
        """Set a row."""
        self.writes.put(key, value, column.handle)

    def delete(self, column: Column, key: bytes) -> None:
        """Delete a row."""
        self.writes.delete(key, column.handle)

    def delete_range(self, column: Column, begin: bytes, end: bytes) -> None:
        """Delete all rows from `begin` up to but not `end`."""
        self.writes.delete_range(begin, end, column.handle)


class Rocks:
    """An open database; `open_rocks` makes it."""

    def __init__(
        self,
        path: Path,
        database: Rdict,
        options: Options,
        family_options: Options,
        families: Sequence[str],
    ) -> None:
        self.path = path
        self._database: Rdict | None = database
        self._options = options
        self._family_options = family_options
        self._columns = {name: self._column(database, name) for name in families}
        self._write_options = WriteOptions()
        self._write_options.sync = False
        # A write that waits does so with the interpreter lock held, for seconds; this is refused.
        self._write_options.no_slowdown = True
        self._calm = threading.Condition()
        self._readers = 0
        self._closing = False

    def column(self, name: str) -> Column:
        """Return a column family."""
        return self._columns[name]

    def columns(self) -> list[Column]:
        """Return all column families."""
        return list(self._columns.values())

    def write(self, batch: Batch) -> None:
        """Write a batch as a whole; it is not durable before a `sync`.

        Raises:
            StorageStalled, StorageFull, StorageFailed: nothing was written.
        """
        if self._database is None:
            raise StorageFailed("writing: the store is closed")
        try:
            self._database.write(batch.writes, self._write_options)
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            refusal = meaning(error, "writing")
            if not isinstance(refusal, StorageStalled | StorageFull):
                # Also where background work has met damage: RocksDB takes no write any more.
                refusal = StorageFailed(str(refusal))
            raise refusal from None

    def sync(self) -> None:
        """Make everything written before this call durable; blocks, others run meanwhile.

        Raises:
            StorageFailed: nobody knows what is on the disk.
        """
        with self.reading():
            try:
                self._open.flush_wal(True)
            except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
                raise StorageFailed(f"syncing: {error}") from None

    def renew(self, name: str) -> None:
        """Empty a column family: its tables are dropped without being read.

        For repairs: RocksDB writes the options of all families anew, twice.

        Raises:
            StorageError: it is as it was, or gone, and then made at the next start.
        """
        with self.reading(), translated(f"emptying {name}"):
            self._columns.pop(name).let_go()
            self._open.drop_column_family(name)
            self._open.create_column_family(name, self._family_options)
            self._columns[name] = self._column(self._open, name)

    def files(self) -> list[File]:
        """Return all tables."""
        with self.reading(), translated("listing tables"):
            return [
                File(
                    each["name"].lstrip("/"),
                    each["level"],
                    each["size"],
                    each["start_key"] or b"",
                    each["end_key"] or b"",
                )
                for each in self._open.live_files()
            ]

    def counters(self) -> dict[str, int]:
        """Return RocksDB's tickers since this database was opened, named as RocksDB does.

        What RocksDB keeps a histogram of is here twice, as NAME.count and NAME.sum.
        """
        with self.reading():
            text = self._options.get_statistics() or ""
        tickers = {}
        for line in text.splitlines():
            name, *rest = line.split()
            if rest[:2] == ["COUNT", ":"]:
                tickers[name] = int(rest[2])
            elif rest[-6:-4] == ["COUNT", ":"] and rest[-3:-1] == ["SUM", ":"]:
                tickers[f"{name}.count"] = int(rest[-4])
                tickers[f"{name}.sum"] = int(rest[-1])
        return tickers

    def number(self, name: str) -> int:
        """Return one of RocksDB's properties, 0 where there is none."""
        with self.reading():
            return self._open.property_int_value(name) or 0

    def memtable_bytes(self) -> int:
        """Return how much memory holds what is not in tables yet."""
        return sum(column.number("rocksdb.cur-size-all-mem-tables") for column in self.columns())

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep the database open until the end of the block.

        Raises:
            StorageFailed: it is closed.
        """
        with self._calm:
            if self._closing:
                raise StorageFailed("the store is closed")
            self._readers += 1
        try:
            yield
        finally:
            with self._calm:
                self._readers -= 1
                if self._closing:
                    self._calm.notify_all()

    def close(self) -> None:
        """Wait for what reads, then close for good: the directory can be opened again at once."""
        with self._calm:
            self._closing = True
            self._calm.wait_for(lambda: self._readers == 0)
        database, self._database = self._database, None
        if database is None:
            return
        for column in self._columns.values():
            column.let_go()
        # What it raises is what stopped background work, as writes have told since.
        with suppress(Exception):
            database.close()

    def _column(self, database: Rdict, name: str) -> Column:
        return Column(
            name,
            database.get_column_family(name),
            database.get_column_family_handle(name),
            self.reading,
        )

    @property
    def _open(self) -> Rdict:
        """The database, for one expression: a name for it would live on in an error's traceback."""
        assert self._database is not None
        return self._database


def stored_families(path: Path) -> list[str]:
    """Return the names of the column families of a stored database, without `default`.

    Raises:
        StorageError: the directory holds no database that can be read.
    """
    with translated(f"looking into {path}"):
        found = Rdict.list_cf(str(path), Options(raw_mode=True))
    return [name for name in found if name != "default"]


def open_rocks(
    path: Path, families: Sequence[str], tuning: Tuning, access: Access = NORMAL
) -> Rocks:
    """Open a database; families that are missing are made.

    Args:
        path: of its directory.
        families: all that there are, or it cannot be opened; and those that there shall be.
        tuning: sizes.
        access: what to do about damage.

    Raises:
        CorruptData: RocksDB refuses what it found.
        StorageError: it cannot be opened for another reason.
    """
    options, family = _options(path, len(families), tuning, access)
    mode = AccessType.read_only(False) if access.read_only else AccessType.read_write()
    with translated(f"opening {path}"):
        database = Rdict(str(path), options, dict.fromkeys(families, family), mode)
    return Rocks(path, database, options, family, families)


def _options(path: Path, families: int, tuning: Tuning, access: Access) -> tuple[Options, Options]:
    """Return the options of the database and of each family."""
    text = options_file(
        tuning, access.wal, track_wals=access.track_wals, max_open_files=open_files(families)
    )
    # Beside the database, for that may be the only place where this process can write.
    folder = path.with_name(path.name + ".options")
    with translated("setting the options"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "OPTIONS-000001").write_text(text)
            (folder / "rocksdict-config.json").write_text(
                '{"raw_mode":true,"prefix_extractors":{}}'
            )
            options, each = Options.load_latest(str(folder), cache=Cache(tuning.cache_bytes))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    options.enable_statistics()
    # With `True`, what would need more memory is refused instead of growing the process.
    options.set_write_buffer_manager(WriteBufferManager(tuning.memtable_bytes, True))
    if tuning.flush_bytes_per_s:
        options.set_ratelimiter(tuning.flush_bytes_per_s, 100_000, 10)
    return options, each["default"]
