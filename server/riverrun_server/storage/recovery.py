"""Opens a store after whatever happened to it, and says whether anything that was synced is gone.

After a stop that was not clean the write-ahead log is looked at without changing anything: up to the
first damage, which is what will be kept; and where it does not end there once more, skipping
damage, for the number of the newest write that can still be read and what it had been promised. A write that had claimed a
durable number beyond what is kept proves a loss; so does a watermark beyond it. A damaged or torn
tail that nothing was promised about proves none: that is what a power cut leaves. The verdict is on
the disk before the store is touched, for opening it destroys the evidence.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.log import CorruptData, StorageError, StorageFailed
from riverrun_server.storage.copying import finish_swap
from riverrun_server.storage.journal import last_claim
from riverrun_server.storage.log import Parse, Scan
from riverrun_server.storage.options import Tuning, WalRecovery
from riverrun_server.storage.rocks import NORMAL, Access, Rocks, open_rocks, stored_families
from riverrun_server.storage.salvage import salvage
from riverrun_server.storage.wal_reader import ends_with, newest_claim
from riverrun_server.storage.wal_screen import screen
from riverrun_server.storage.watermark import Watermark

_log = structlog.stdlib.get_logger(__name__)

# Logs stay tracked: without that a read-only open of a store whose manifest tracks any crashes the
# process (RocksDB 9.8 wants to write the manifest that it has not opened).
_EVIDENCE = Access(WalRecovery.SKIP_DAMAGE, track_wals=True, read_only=True)
_REHEARSAL = Access(WalRecovery.POINT_IN_TIME, track_wals=True, read_only=True)

# What RocksDB says of a write-ahead log that its manifest knows as synced.
_TRACKED_LOG = ("Missing WAL with log number", "Size mismatch: WAL")


class Mode(enum.Enum):
    """How a store came up."""

    CREATED = "created"
    CLEAN = "clean"
    REPLAYED = "replayed"
    SALVAGED = "salvaged"


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What was found when a store was opened.

    Attributes:
        mode: how it came up.
        loss: why something that had been synced is gone, or None.
        clean_shutdown: the last process closed it in order.
        written: the number of the newest write that is left.
        expected: the number that had been on the disk according to the watermark.
        cuts: where partitions end now that had to be cut in a salvage.
    """

    mode: Mode
    loss: str | None
    clean_shutdown: bool
    written: int
    expected: int
    cuts: Mapping[PartitionId, int] = field(default_factory=dict)

    @property
    def intact(self) -> bool:
        """Whether everything that was synced is there."""
        return self.loss is None


def open_recovered(
    store: Path,
    families: Sequence[str],
    tuning: Tuning,
    parse: Parse,
    scan: Scan,
    *,
    watermark: Watermark | None,
    doubt: str | None,
    before_change: Callable[[bool], None],
) -> tuple[Rocks, RecoveryReport]:
    """Open a store as far as it can be brought back.

    Args:
        store: the database's directory.
        families: that it shall have, beside those that it has.
        tuning: sizes.
        parse: reads the place of a batch.
        scan: reads a batch, verified.
        watermark: as found, None where it is missing or unreadable.
        doubt: why the store is not what the watermark speaks of, or None.
        before_change: told whether the store is intact before anything on the disk is changed;
            not called for a store that is new, or was closed in order and is complete.

    Raises:
        StorageError: it cannot be opened at all; nothing was changed.
    """
    finish_swap(store)
    expected = watermark.written if watermark else 0
    if not (store / "CURRENT").exists():
        return _create(store, families, tuning, expected, doubt, before_change)
    screen(store)
    try:
        stored = stored_families(store)
    except StorageError as error:
        raise _beyond_repair(store, error) from error
    names = [*stored, *(name for name in families if name not in stored)]
    if watermark is not None and watermark.clean and doubt is None:
        opened = _open_clean(store, names, tuning, expected, before_change)
        if opened is not None:
            return opened
    clean = watermark is not None and watermark.clean
    loss, damaged = _examine(store, stored, tuning, expected)
    loss = doubt or loss
    cuts: dict[PartitionId, int] = {}
    if damaged:
        _log.warning("write-ahead log cannot be replayed, salvaging", reason=loss)
        try:
            cuts = salvage(store, stored, tuning, parse, scan, lambda: before_change(False))
        except CorruptData as error:
            raise _beyond_repair(store, error) from error
    else:
        before_change(loss is None)
    rocks = open_rocks(store, names, tuning)
    mode = Mode.SALVAGED if damaged else Mode.REPLAYED
    return rocks, RecoveryReport(mode, loss, clean, last_claim(rocks)[0], expected, cuts)


def _create(
    store: Path,
    families: Sequence[str],
    tuning: Tuning,
    expected: int,
    doubt: str | None,
    before_change: Callable[[bool], None],
) -> tuple[Rocks, RecoveryReport]:
    if any(store.glob("*.sst")) or any(store.glob("MANIFEST-*")):
        raise _beyond_repair(store, "it holds data but no file CURRENT")
    loss = doubt
    if expected:
        loss = f"{store} is empty, but {expected} writes had been on the disk"
    if loss:
        before_change(False)
    rocks = open_rocks(store, families, tuning)
    return rocks, RecoveryReport(Mode.CREATED, loss, expected == 0, 0, expected)


def _open_clean(
    store: Path,
    names: Sequence[str],
    tuning: Tuning,
    expected: int,
    before_change: Callable[[bool], None],
) -> tuple[Rocks, RecoveryReport] | None:
    """Open a store that was closed in order; None where that does not work."""
    try:
        rocks = open_rocks(store, names, tuning, NORMAL)
    except CorruptData as error:
        _log.warning("store closed in order is damaged", error=str(error))
        return None
    try:
        written = last_claim(rocks)[0]
    except CorruptData as error:
        # It shares a table with the rows of partitions. The watermark says the same of a store that
        # was closed in order, and those partitions are told apart when they are opened.
        _log.warning("the number of the last write cannot be read", error=str(error))
        written = expected
    loss = _shortage(written, expected)
    if loss:
        before_change(False)
    return rocks, RecoveryReport(Mode.CLEAN, loss, True, written, expected)


def _examine(
    store: Path, stored: Sequence[str], tuning: Tuning, expected: int
) -> tuple[str | None, bool]:
    """Return (what is lost, whether the write-ahead log cannot be replayed); changes nothing."""
    try:
        kept, _ = _claim(store, stored, tuning, _REHEARSAL)
    except CorruptData as error:
        if any(text in str(error) for text in _TRACKED_LOG):
            return f"a write-ahead log that had been synced is missing or short: {error}", True
        # RocksDB syncs a log before it lets a table count on it, and only logs that were synced are
        # tracked: damage that stops the replay is damage to what had been synced.
        return f"the write-ahead log is damaged: {error}", True
    except StorageError as error:
        raise _beyond_repair(store, error) from error
    if not ends_with(store, kept):
        seen, promised = _evidence(store, stored, tuning)
        if kept < seen and promised > kept:
            return (
                f"the write-ahead log is damaged behind write {kept}, and up to write {promised} "
                "it had been synced"
            ), False
    return _shortage(kept, expected), False


def _evidence(store: Path, stored: Sequence[str], tuning: Tuning) -> tuple[int, int]:
    """Return (number of the newest write that can be read past damage, its durable number).

    RocksDB does not always come past damage, and where it does it leaves out the rest of a block:
    there may stand the only write that says that the damaged one had been synced. What reads that
    does not see a number that lies across two blocks. So both look.
    """
    try:
        seen = _claim(store, stored, tuning, _EVIDENCE)
    except CorruptData:
        seen = (0, 0)
    return max(seen, newest_claim(store))


def _claim(store: Path, stored: Sequence[str], tuning: Tuning, access: Access) -> tuple[int, int]:
    rocks = open_rocks(store, stored, tuning, access)
    try:
        return last_claim(rocks)
    finally:
        rocks.close()


def _shortage(written: int, expected: int) -> str | None:
    if written >= expected:
        return None
    return f"{expected} writes had been on the disk, {written} are left"


def _beyond_repair(store: Path, why: StorageError | str) -> StorageFailed:
    reason = str(why).removesuffix(".")
    return StorageFailed(
        f"{store} cannot be opened: {reason}; restore it from a backup, or move it away to begin "
        "empty (the broker then counts as new)"
    )
