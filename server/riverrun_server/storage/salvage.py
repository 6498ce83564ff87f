"""What is left of a store whose write-ahead log cannot be replayed: of each partition a prefix.

Everything happens on a copy (tables are linked, not copied), which takes the place of the original
only when it is complete, so a crash in between begins again. Damaged writes are skipped, which
leaves holes, so each partition is read from its log start and cut where its offsets no longer
continue or a checksum fails.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog

from riverrun_server.core.log.batch import PartitionId, ScannedBatch
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.log.state import LogState
from riverrun_server.ports.log import CorruptData
from riverrun_server.storage import keys, rows
from riverrun_server.storage.durable_file import sync_directory
from riverrun_server.storage.journal import Journal, last_claim
from riverrun_server.storage.log import Parse, RocksLog, Scan
from riverrun_server.storage.options import Tuning, WalRecovery
from riverrun_server.storage.rocks import Access, Batch, Rocks, open_rocks
from riverrun_server.storage.rocks_errors import translated
from riverrun_server.storage.wal_reader import cut_at_damage, logs_of

_log = structlog.stdlib.get_logger(__name__)

_SKIP_DAMAGE = Access(WalRecovery.SKIP_DAMAGE, track_wals=False)


def salvage(
    store: Path,
    families: Sequence[str],
    tuning: Tuning,
    parse: Parse,
    scan: Scan,
    before_change: Callable[[], None],
) -> dict[PartitionId, int]:
    """Replace a store by what can be read of it; return where partitions had to be cut.

    The old write-ahead logs stay beside it for whoever wants to look; they are used no more.

    Args:
        store: the database's directory.
        families: all that it has.
        tuning: sizes.
        parse: reads the place of a batch.
        scan: reads a batch, verified.
        before_change: called when the copy is complete and the store is still as it was.

    Raises:
        StorageError: the store is as it was.
        CorruptData: not even its tables can be read.
    """
    copy = _copy_of(store)
    rocks = _opened_copy(store, copy, families, tuning)
    cuts: dict[PartitionId, int] = {}
    try:
        journal = Journal(rocks, last_claim(rocks)[0])
        _disown(journal)
        for log in _logs(journal, parse, scan):
            was = log.state.log_end_offset
            if cut_log(log):
                cuts[log.partition] = log.state.log_end_offset
                _log.warning(
                    "partition cut where its batches no longer continue",
                    partition=str(log.partition),
                    log_end_offset=log.state.log_end_offset,
                    was=was,
                )
        journal.sync()
        for column in rocks.columns():
            if column.is_dirty:
                column.flush()
    finally:
        rocks.close()
    before_change()
    with translated(f"replacing {store}"):
        _swap(store, copy)
    return cuts


def finish_salvage(store: Path) -> None:
    """Complete or undo what a crash has left of a salvage.

    Raises:
        StorageError: it could be neither.
    """
    copy = _copy_of(store)
    with translated(f"cleaning up beside {store}"):
        if copy.exists() and not store.exists():
            copy.rename(store)
            sync_directory(store.parent)
        shutil.rmtree(copy, ignore_errors=True)


def _copy_of(store: Path) -> Path:
    return store.with_name(store.name + ".salvaged")


def _opened_copy(store: Path, copy: Path, families: Sequence[str], tuning: Tuning) -> Rocks:
    """Copy a store and open the copy with damage skipped, or cut off where that does not work."""
    with translated(f"copying {store}"):
        _copy(store, copy)
    try:
        return open_rocks(copy, families, tuning, _SKIP_DAMAGE)
    except CorruptData as error:
        _log.warning("damage cannot be skipped, cutting the logs there", error=str(error))
    with translated(f"copying {store}"):
        _copy(store, copy)
    for log in logs_of(copy):
        cut_at_damage(log)
    try:
        return open_rocks(copy, families, tuning, _SKIP_DAMAGE)
    except CorruptData as error:
        shutil.rmtree(copy, ignore_errors=True)
        # The copy is gone, and the same is damaged in the original.
        raise CorruptData(str(error).replace(str(copy), str(store))) from error


def _copy(store: Path, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for file in store.iterdir():
        if file.suffix == ".sst":
            os.link(file, copy / file.name)  # tables are never changed, only deleted
        elif file.is_file() and not file.name.startswith(("LOCK", "LOG")):
            shutil.copyfile(file, copy / file.name)


def _swap(store: Path, copy: Path) -> None:
    old = store.with_name(store.name + ".damaged")
    shutil.rmtree(old, ignore_errors=True)
    store.rename(old)
    copy.rename(store)
    sync_directory(store.parent)
    for table in old.glob("*.sst"):
        table.unlink()


def _disown(journal: Journal) -> None:
    """Have upkeep delete batches of partitions that the slot map has lost.

    A partition that is made anew under the same id and in the same slot would have them else.
    """
    slot_of = {key[1:]: rows.unpack_slot(row) for key, row in journal.meta.scan(*keys.slots())}
    write = Batch()
    for column in journal.rocks.columns():
        slot = keys.slot_of_name(column.name)
        at = b""
        while slot is not None and (found := column.scan(at, keys.SLOT_END, 1)):
            prefix = found[0][0][: keys.PREFIX_BYTES]
            if slot_of.get(prefix) != slot:
                write.put(journal.meta, keys.dead(slot, prefix), rows.DEAD)
            at = keys.batches_end(prefix)
    journal.commit(write)


def _logs(journal: Journal, parse: Parse, scan: Scan) -> Iterator[RocksLog]:
    """Yield the log of every partition whose state can be read; the others stay damaged."""
    for key, row in journal.meta.scan(*keys.slots()):
        partition = keys.partition_of(key[1:])
        try:
            stored = journal.index.one(keys.state(key[1:]))
            state = rows.unpack_state(stored or b"")
        except CorruptData as error:
            _log.warning("partition cannot be read", partition=str(partition), error=str(error))
            continue
        slot = journal.rocks.column(keys.slot_name(rows.unpack_slot(row)))
        yield RocksLog(partition, journal, slot, state, None, parse, scan)


def cut_log(log: RocksLog) -> bool:
    """Cut a log where it no longer continues; return whether that was before its end.

    What stands behind the end, of writes whose state is lost, is deleted, or it would show from
    within batches that are written there later. The epochs are those that the batches name: an
    entry that is lost would have readers told that what they read has been truncated.
    """
    state = log.state
    offset, last, from_start = state.log_start_offset, None, 0
    epochs: list[EpochEntry] = []
    known = {entry.leader_epoch: entry for entry in log.epochs()}
    for last in readable(log):
        stamp = last.stamp
        if not epochs or epochs[-1].leader_epoch < stamp.leader_epoch:
            entry = EpochEntry(stamp.leader_epoch, stamp.base_offset)
            # Of a log that was trimmed the first epoch begins below its first batch.
            epochs.append(known.get(stamp.leader_epoch, entry) if not epochs else entry)
        offset = stamp.next_offset
        from_start += len(last.data)
    cut = offset < state.log_end_offset
    offset = max(offset, state.log_start_offset)
    if cut:
        state = _state_at(log, offset, last, from_start)
    log.truncate(state, epochs)
    return cut


def is_damaged(log: RocksLog) -> bool:
    """Return whether a log cannot be read to its end."""
    offset = log.state.log_start_offset
    for batch in readable(log):
        offset = batch.stamp.next_offset
    return offset < log.state.log_end_offset


def readable(log: RocksLog) -> Iterator[ScannedBatch]:
    """Yield the batches of a log up to its end, or to the first that is damaged or missing."""
    offset = log.state.log_start_offset
    while offset < log.state.log_end_offset:
        try:
            found = log.scan(offset, 1)
        except CorruptData:
            return
        if not found:
            return
        yield found[0]
        offset = found[0].stamp.next_offset


def _state_at(log: RocksLog, end: int, last: ScannedBatch | None, from_start: int) -> LogState:
    """Return the state of a log that ends at an offset behind its batch `last`."""
    old = log.state
    row = log.index_before(end - 1) if last is not None else None
    behind_row: list[ScannedBatch] = []
    offset = end if row is None else row.base_offset
    while offset < end:
        behind_row += log.scan(offset, 1)
        offset = behind_row[-1].stamp.next_offset
    indexed = old.trimmed_bytes if row is None else row.bytes_before
    appended = old.trimmed_bytes + from_start
    if row is not None:
        appended = indexed + sum(len(batch.data) for batch in behind_row)
    times = [each.header.max_timestamp_ms or each.stamp.append_time_ms for each in behind_row]
    stamp = None if last is None else last.stamp
    return dataclasses.replace(
        old,
        log_end_offset=end,
        high_watermark=min(old.high_watermark, end),
        max_timestamp_ms=stamp.partition_max_timestamp_ms if stamp else old.max_timestamp_ms,
        last_append_time_ms=stamp.append_time_ms if stamp else old.last_append_time_ms,
        appended_bytes=appended,
        indexed_bytes=indexed,
        indexed_append_time_ms=old.indexed_append_time_ms if row is None else row.append_time_ms,
        interval_max_timestamp_ms=max(times, default=0),
    )
