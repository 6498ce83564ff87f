"""RocksDB's options, as a file in RocksDB's own format: one place, each with its reason.

Some of what matters here has no setter in rocksdict, above all the tracking of write-ahead logs,
without which a lost one goes unnoticed. Everything can be said in an OPTIONS file, so that is how
all of it is said.
"""

from __future__ import annotations

import enum
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MIB: Final = 1 << 20
# Directories that RocksDB holds open for its families are counted by the caller; the rest of the
# process (connections, its own files) keeps at least this many descriptors.
_DESCRIPTORS_FOR_OTHERS: Final = 256
_UNLIMITED: Final = 1 << 20
_OPEN_FILES_MIN: Final = 64
_OPEN_FILES_MAX: Final = 16384


class WalRecovery(enum.Enum):
    """What is done about damage in the write-ahead log."""

    POINT_IN_TIME = "kPointInTimeRecovery"
    SKIP_DAMAGE = "kSkipAnyCorruptedRecords"


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a store may use, and how it lays out its files.

    Attributes:
        memtable_bytes: for everything not yet in tables, of all families together; a write that
            would need more is refused as stalled. Half of it may wait in the write-ahead log, which
            bounds how much a start after a crash has to read.
        memtable_each_bytes: of one family before it becomes a table.
        cache_bytes: for blocks of tables. Large batches gain nothing from it (the page cache has
            them), small ones and index rows much.
        flush_threads: tables written side by side. Measured with 256 partitions written in turn:
            one thread stalls the writers, four do not.
        flush_bytes_per_s: slows down the writing of tables; 0 is no limit.
        compactions: whether RocksDB compacts by itself. Where tables are damaged it must not: what
            it meets then stops every write.
    """

    memtable_bytes: int = 256 * _MIB
    memtable_each_bytes: int = 32 * _MIB
    cache_bytes: int = 16 * _MIB
    flush_threads: int = 4
    flush_bytes_per_s: int = 0
    compactions: bool = True

    @property
    def wal_bytes(self) -> int:
        """How much may wait in write-ahead logs."""
        return self.memtable_bytes // 2


def open_files(families: int) -> int:
    """Return how many tables may be open at once under this process's limit of descriptors.

    A third, for connections need them too; a store that has more opens them anew as it reads.
    """
    return max(_OPEN_FILES_MIN, min(_OPEN_FILES_MAX, _spare(families) // 3))


def connections(families: int) -> int:
    """Return how many connections leave enough descriptors: a store that cannot open a table fails.

    Those of all listeners together, for descriptors are the process's.
    """
    return max(1, _spare(families) - open_files(families))


def _spare(families: int) -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        soft = _UNLIMITED
    return soft - families - _DESCRIPTORS_FOR_OTHERS


def options_file(tuning: Tuning, wal: WalRecovery, *, track_wals: bool, max_open_files: int) -> str:
    """Return the text of an OPTIONS file for every family.

    Args:
        tuning: sizes.
        wal: what to do about a damaged write-ahead log.
        track_wals: refuse to open when a write-ahead log that was synced is missing or short.
        max_open_files: tables kept open.
    """
    database = {
        "create_if_missing": "true",
        "create_missing_column_families": "true",
        "paranoid_checks": "true",
        "wal_recovery_mode": wal.value,
        # No other way tells that a whole log is gone: the store opens and what it held is missing.
        "track_and_verify_wals_in_manifest": str(track_wals).lower(),
        "max_total_wal_size": tuning.wal_bytes,
        "max_background_flushes": tuning.flush_threads,
        "max_background_compactions": 2,
        # Smooths the writing of tables; the log is synced by the flusher alone, and doing it within
        # a write would block the event loop.
        "bytes_per_sync": _MIB,
        "wal_bytes_per_sync": 0,
        "max_open_files": max_open_files,
        # Deleting files is work for a background thread, not for whoever lets go of them last.
        "avoid_unnecessary_blocking_io": "true",
        "skip_stats_update_on_db_open": "true",
        "max_manifest_file_size": 64 * _MIB,
        # An idle broker does nothing: no statistics written by a timer.
        "stats_dump_period_sec": 0,
        "stats_persist_period_sec": 0,
        # RocksDB describes all of its families in its own log at every start.
        "keep_log_file_num": 4,
        "max_log_file_size": 4 * _MIB,
        "info_log_level": "WARN_LEVEL",
        # A recycled log hides where its newest contents end.
        "recycle_log_file_num": 0,
    }
    family = {
        "compaction_style": "kCompactionStyleLevel",
        # Batches come compressed; whatever is not would cost the writer's core.
        "compression": "kNoCompression",
        "write_buffer_size": tuning.memtable_each_bytes,
        "max_write_buffer_number": 6,
        # A slot's first row costs one block; the default of 1 MiB would fill the memory with the
        # first rows of 256 partitions.
        "arena_block_size": 64 * 1024,
        "target_file_size_base": 64 * _MIB,
        "disable_auto_compactions": str(not tuning.compactions).lower(),
        "level0_file_num_compaction_trigger": 4,
        "level0_slowdown_writes_trigger": 32,
        "level0_stop_writes_trigger": 64,
        # Files of a slot are moved between levels, not rewritten: a debt in bytes says nothing.
        "soft_pending_compaction_bytes_limit": 0,
        "hard_pending_compaction_bytes_limit": 0,
        # The default rewrites everything once it is 30 days old.
        "ttl": 0,
        "periodic_compaction_seconds": 0,
    }
    table = {"block_size": 32 * 1024, "checksum": "kXXH3"}
    return "\n".join(
        [
            "[Version]",
            "  rocksdb_version=9.8.4",
            "  options_file_version=1.1",
            _section("DBOptions", database),
            _section('CFOptions "default"', family),
            _section('TableOptions/BlockBasedTable "default"', table),
            "",
        ]
    )


def _section(name: str, values: Mapping[str, object]) -> str:
    return "\n".join([f"[{name}]", *(f"  {key}={value}" for key, value in values.items())])
