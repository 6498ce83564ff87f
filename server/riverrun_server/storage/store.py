"""Opens a data directory: whose it is, what is left of it, and the store in it.

Files in the directory: `lock`, `identity.json`, `watermark`, and the database in `store`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

import structlog

from riverrun_server.ports.clock import Dice
from riverrun_server.ports.log import CorruptData, StorageFailed
from riverrun_server.storage import keys
from riverrun_server.storage.identity import NAME as IDENTITY
from riverrun_server.storage.identity import (
    DirectoryLock,
    Identity,
    read_identity,
    write_identity,
)
from riverrun_server.storage.journal import Journal, last_claim
from riverrun_server.storage.log import Parse, Scan
from riverrun_server.storage.moving import empty_marked, marked
from riverrun_server.storage.options import Tuning
from riverrun_server.storage.recovery import RecoveryReport, open_recovered
from riverrun_server.storage.reindexing import reindex
from riverrun_server.storage.rocks import Rocks, open_rocks, stored_families
from riverrun_server.storage.rocks_errors import translated
from riverrun_server.storage.rocks_store import Codec, RocksStore
from riverrun_server.storage.watermark import Watermark, read_watermark, write_watermark

__all__ = ["RecoveryReport", "RocksStore", "open_store", "renew_index"]

_log = structlog.stdlib.get_logger(__name__)

STORE: Final = "store"
DEFAULT_SLOTS: Final = 256
_TUNING: Final = Tuning()


def open_store(
    folder: str | Path,
    *,
    broker_id: int,
    parse: Parse,
    scan: Scan,
    dice: Dice,
    slots: int = DEFAULT_SLOTS,
    cluster_id: str = "",
    tuning: Tuning = _TUNING,
) -> RocksStore:
    """Open a data directory, made where there is none; blocks, run it in a thread.

    What is found in it counts as on the disk from then on.

    Args:
        folder: the data directory.
        broker_id: who opens it; a directory belongs to one broker for good.
        parse: reads the place of a stored batch from its header.
        scan: reads everything of a stored batch, with all checksums verified.
        dice: for incarnations.
        slots: column families for partitions; a directory that has more keeps them.
        cluster_id: the cluster that the broker belongs to, where it is known.
        tuning: sizes.

    Raises:
        StorageFailed: in use, of a newer format, somebody else's, or beyond repair.
        StorageError: it could not be opened now.
    """
    folder = Path(folder)
    with translated(f"making {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    lock = DirectoryLock(folder)
    try:
        return _open(folder, lock, broker_id, cluster_id, slots, tuning, Codec(parse, scan), dice)
    except BaseException:
        lock.release()
        raise


def renew_index(folder: str | Path, tuning: Tuning = _TUNING) -> None:
    """Give a store that was closed in order an index without damage; rows that cannot be read go.

    Raises:
        StorageError: it is as it was.
    """
    lock = DirectoryLock(Path(folder))
    try:
        store, watermark = Path(folder) / STORE, read_watermark(Path(folder))
        if watermark is None or not watermark.clean:
            raise StorageFailed(f"{store} was not closed in order; nothing was done to its index")
        reindex(store, stored_families(store), tuning, watermark.written)
    finally:
        lock.release()


def _open(
    folder: Path,
    lock: DirectoryLock,
    broker_id: int,
    cluster_id: str,
    slots: int,
    tuning: Tuning,
    codec: Codec,
    dice: Dice,
) -> RocksStore:
    identity = read_identity(folder, broker_id, cluster_id)
    if identity is None:
        identity = _begin(folder, broker_id, cluster_id, dice)
    watermark, doubt = _trusted_watermark(folder, identity)

    def reborn(intact: bool) -> None:
        nonlocal identity
        assert identity is not None
        identity = identity.reborn(dice, intact=intact)
        write_identity(folder, identity)

    rocks, report = open_recovered(
        folder / STORE,
        [keys.META, keys.INDEX, *map(keys.slot_name, range(slots))],
        tuning,
        codec.parse,
        codec.scan,
        watermark=watermark,
        doubt=doubt,
        before_change=reborn,
    )
    try:
        rocks, report = _settled(folder / STORE, rocks, report, tuning)
        store = RocksStore(folder, lock, rocks, identity, report, codec)
        store.begin()
    except BaseException:
        rocks.close()
        raise
    tell = _log.info if report.intact else _log.error
    tell(
        "store opened",
        mode=report.mode.value,
        intact=report.intact,
        loss=report.loss,
        clean_shutdown=report.clean_shutdown,
        partitions=len(store.partitions()),
    )
    return store


def _settled(
    store: Path, rocks: Rocks, report: RecoveryReport, tuning: Tuning
) -> tuple[Rocks, RecoveryReport]:
    """Finish what a crash has left of a partition's move out of damaged tables."""
    if not marked(Journal(rocks, report.written)):
        return rocks, report
    names = [column.name for column in rocks.columns()]
    rocks.close()
    rocks = open_rocks(store, names, dataclasses.replace(tuning, compactions=False))
    try:
        journal = Journal(rocks, last_claim(rocks)[0])
        empty_marked(journal)
    finally:
        rocks.close()
    return open_rocks(store, names, tuning), dataclasses.replace(report, written=journal.written)


def _begin(folder: Path, broker_id: int, cluster_id: str, dice: Dice) -> Identity:
    """Make a new data directory; the identity comes last, so that half a directory is none."""
    if (folder / STORE).exists():
        raise StorageFailed(
            f"{folder} holds a store but no {IDENTITY}, so nobody knows whose it is; restore "
            "the file from a backup, or move the directory away to begin empty"
        )
    identity = Identity.new(broker_id, cluster_id, dice)
    write_watermark(folder, Watermark(identity.fsync, 0, clean=False))
    write_identity(folder, identity)
    return identity


def _trusted_watermark(folder: Path, identity: Identity) -> tuple[Watermark | None, str | None]:
    """Return the watermark, and why it says nothing about this store, or None."""
    try:
        watermark = read_watermark(folder)
    except CorruptData as error:
        return None, f"the watermark is damaged: {error}"
    if watermark is None:
        return None, f"the watermark is missing from {folder}"
    if watermark.incarnation != identity.fsync:
        return watermark, "the watermark is of another life of the data"
    return watermark, None
