"""What is left of a store whose write-ahead log cannot be replayed: of each partition a prefix.

Everything happens on a copy (tables are linked, not copied), which takes the place of the original
only when it is complete, so a crash in between begins again. Damaged writes are skipped, which
leaves holes, so each partition is read from its log start and cut where its offsets no longer
continue or a checksum fails.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog

from riverrun_server.core.log.batch import PartitionId, ScannedBatch
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.log.state import LogState
from riverrun_server.ports.log import CorruptData
from riverrun_server.storage import keys, rows
from riverrun_server.storage.adoption import adopt
from riverrun_server.storage.copying import copy_of, copy_store, swap
from riverrun_server.storage.journal import Journal, last_claim
from riverrun_server.storage.log import MissingBatch, Parse, RocksLog, Scan
from riverrun_server.storage.moving import copy_out, vacancy
from riverrun_server.storage.options import Tuning, WalRecovery
from riverrun_server.storage.rocks import Access, Rocks, open_rocks
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

    Those that had lost their slot and have it again are among them, whole or not. The old
    write-ahead logs stay beside the store for whoever wants to look; they are used no more.

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
    copy = copy_of(store)
    # RocksDB must not meet damaged tables before what is left has moved out of them.
    calm = dataclasses.replace(tuning, compactions=False)
    rocks = _opened_copy(store, copy, families, calm)
    try:
        journal = Journal(rocks, last_claim(rocks)[0])
        cuts = dict.fromkeys(adopt(journal), 0)
        for log in _logs(journal, parse, scan):
            was = log.state.log_end_offset
            try:
                end = _cut_apart(log, journal, parse, scan)
            except CorruptData as error:
                # Its rows are damaged in a table: it alone waits for an operator.
                _tell_unreadable(log.partition, error)
                continue
            if end < was or log.partition in cuts:
                cuts[log.partition] = end
            if end < was:
                _log.warning(
                    "partition cut where its batches no longer continue",
                    partition=str(log.partition),
                    log_end_offset=end,
                    was=was,
                )
        journal.flush()
    finally:
        rocks.close()
    before_change()
    with translated(f"replacing {store}"):
        swap(store, copy)
    return cuts


def _opened_copy(store: Path, copy: Path, families: Sequence[str], tuning: Tuning) -> Rocks:
    """Copy a store and open the copy with damage skipped, or cut off where that does not work."""
    with translated(f"copying {store}"):
        copy_store(store, copy)
    try:
        return open_rocks(copy, families, tuning, _SKIP_DAMAGE)
    except CorruptData as error:
        _log.warning("damage cannot be skipped, cutting the logs there", error=str(error))
    with translated(f"copying {store}"):
        copy_store(store, copy)
    for log in logs_of(copy):
        cut_at_damage(log)
    try:
        return open_rocks(copy, families, tuning, _SKIP_DAMAGE)
    except CorruptData as error:
        shutil.rmtree(copy, ignore_errors=True)
        # The copy is gone, and the same is damaged in the original.
        raise CorruptData(str(error).replace(str(copy), str(store))) from error


def _logs(journal: Journal, parse: Parse, scan: Scan) -> Iterator[RocksLog]:
    """Yield the log of every partition whose state can be read; the others stay damaged."""
    for key, row in journal.meta.scan(*keys.slots()):
        partition = keys.partition_of(key[1:])
        try:
            stored = journal.index.one(keys.state(key[1:]))
            state = rows.unpack_state(stored or b"")
        except CorruptData as error:
            _tell_unreadable(partition, error)
            continue
        slot = journal.rocks.column(keys.slot_name(rows.unpack_slot(row)))
        yield RocksLog(partition, journal, slot, state, None, parse, scan)


def _tell_unreadable(partition: PartitionId, error: CorruptData) -> None:
    _log.warning("partition cannot be read", partition=str(partition), error=str(error))


def _cut_apart(log: RocksLog, journal: Journal, parse: Parse, scan: Scan) -> int:
    """Cut a log, away from damaged tables where there is a slot for it; return where it ends."""
    try:
        cut_log(log, in_place=False)
    except _DamagedTable:
        moved = _moved_out(log, journal, parse, scan)
        cut_log(moved)
        return moved.state.log_end_offset
    return log.state.log_end_offset


def _moved_out(log: RocksLog, journal: Journal, parse: Parse, scan: Scan) -> RocksLog:
    """Move a log into a slot of its own; as long as compactions are off nobody meets the damage."""
    prefix = keys.prefix(log.partition)
    old = rows.unpack_slot(journal.meta.one(keys.slot_of(prefix)) or b"")
    new = vacancy(journal, old)
    if new is None:
        return log
    copy_out(journal, prefix, readable(log), old, new)
    column = journal.rocks.column(keys.slot_name(new))
    return RocksLog(log.partition, journal, column, log.state, None, parse, scan)


class _DamagedTable(Exception):
    """A log cannot be read because of damage in a table."""


def cut_log(log: RocksLog, *, in_place: bool = True) -> bool:
    """Cut a log where it no longer continues; return whether that was before its end.

    What stands behind the end, of writes whose state is lost, is deleted, or it would show from
    within batches that are written there later. The epochs are those that the batches name: an
    entry that is lost would have readers told that what they read has been truncated.

    Args:
        log: in a store that nobody else uses.
        in_place: also where what ends it is a damaged table. RocksDB joins that table with what is
            deleted from it one day, and takes no write any more when it meets the damage.

    Raises:
        CorruptData: its rows cannot be read; nothing was changed.
        _DamagedTable: it would have to be cut in a damaged table, and shall not.
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
    if cut and not in_place and _is_unreadable(log, offset):
        raise _DamagedTable
    if cut:
        state = _state_at(log, offset, last, from_start)
    log.truncate(state, epochs)
    return cut


def _is_unreadable(log: RocksLog, offset: int) -> bool:
    try:
        log.scan(offset, 1)
    except MissingBatch:
        return False
    except CorruptData:
        return True
    return False


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
