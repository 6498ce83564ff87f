"""Rows of the index made anew from the batches that they speak of, where damage has taken them.

All partitions share the index, so a damaged table of it concerns several of them; and what is deleted
from such a table has RocksDB join it with others one day, meet the damage, and take no write any
more. So a copy of the store gets a new index with all that can be read of the old one, and takes the
store's place. What is missing then of a partition keeps it offline until an operator accepts that its
rows are made from its batches: these do not tell how far the log had gone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.epochs import EpochEntry, EpochMap
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.log.state import IndexRow, LogState
from riverrun_server.core.producers import ProducerTable
from riverrun_server.ports.log import CorruptData
from riverrun_server.storage import keys, rows
from riverrun_server.storage.columns import Column
from riverrun_server.storage.copying import copy_of, copy_store, swap
from riverrun_server.storage.journal import Journal
from riverrun_server.storage.log import Parse, RocksLog, Scan
from riverrun_server.storage.options import Tuning
from riverrun_server.storage.rocks import Batch, open_rocks
from riverrun_server.storage.rocks_errors import translated
from riverrun_server.storage.salvage import readable

_log = structlog.stdlib.get_logger(__name__)

_ROWS_AT_ONCE: Final = 1000
# No log gets this far.
_FAR: Final = 1 << 62

Row = tuple[bytes, bytes]


def is_readable(journal: Journal) -> bool:
    """Return whether every row of the index can be read; blocks for as long as that takes."""
    at = b""
    try:
        while found := journal.index.scan(at, keys.SLOT_END, _ROWS_AT_ONCE):
            at = found[-1][0] + b"\x00"
    except CorruptData:
        return False
    return True


def reindex(store: Path, families: Sequence[str], tuning: Tuning, written: int) -> None:
    """Replace a store by one whose index has what can be read of the old one; all durable.

    Args:
        store: the database's directory; nobody has it open, and its write-ahead log is empty.
        families: all that it has.
        tuning: sizes.
        written: the number of the last write in it, for that may be what cannot be read.

    Raises:
        StorageError: the store is as it was.
    """
    copy = copy_of(store)
    with translated(f"copying {store}"):
        copy_store(store, copy)
    rocks = open_rocks(copy, families, dataclasses.replace(tuning, compactions=False))
    try:
        kept = list(_readable_rows(Journal(rocks, written)))
        rocks.renew(keys.INDEX)
        journal = Journal(rocks, written)
        _put_all(journal, kept)
        journal.flush()
    finally:
        rocks.close()
    with translated(f"replacing {store}"):
        swap(store, copy)


def rebuild(
    journal: Journal, partition: PartitionId, slot: Column, parse: Parse, scan: Scan
) -> bool:
    """Write the rows of a partition as its batches have them; False where it has no readable batch.

    The log begins with the first batch that is there and ends with the last that continues without a
    gap; what it holds of deleted records may be among it. All of it counts as committed. Nothing is
    known of its producers.

    Raises:
        StorageError: it has no state; call it again.
    """
    prefix = keys.prefix(partition)
    try:
        first = slot.scan(prefix, keys.batches_end(prefix), 1)
    except CorruptData:
        return False
    start = keys.offset_of(first[0][0]) if first else 0
    told = LogState(start, _FAR, start)
    found = _fold(RocksLog(partition, journal, slot, told, None, parse, scan), start)
    if found.state.log_end_offset == start:
        return False
    write = Batch()
    write.delete_range(journal.index, *keys.rows(prefix))
    journal.commit(write)
    _put_all(journal, _index_rows(prefix, found))
    _put_all(journal, [(keys.state(prefix), rows.pack_state(found.state))])
    journal.sync()
    return True


class _Found(NamedTuple):
    """What the batches of a partition say of it."""

    state: LogState
    epochs: list[EpochEntry]
    signposts: list[IndexRow]


def _fold(log: RocksLog, start: int) -> _Found:
    """Let the batches of a log pass through the machine that had written them."""
    machine = PartitionMachine(LogState(start, start, start), ProducerTable(1), leader_epoch=0)
    epochs = EpochMap()
    signposts: list[IndexRow] = []
    for batch in readable(log):
        stamp = batch.stamp
        epochs.begin(stamp.leader_epoch, stamp.base_offset)
        beside = machine.rows(batch.header, stamp, len(batch.data))
        if beside.index is not None:
            signposts.append(beside.index)
        machine.state = beside.state
    state = machine.state.committed_to(machine.log_end)
    accepted = epochs.latest.leader_epoch if epochs.latest else 0
    state = dataclasses.replace(state, accepted_epoch=accepted)
    return _Found(state, epochs.entries(), signposts)


def _index_rows(prefix: bytes, found: _Found) -> Iterator[Row]:
    for entry in found.epochs:
        yield keys.epoch(prefix, entry.leader_epoch), rows.pack_epoch(entry)
    for row in found.signposts:
        yield keys.index(prefix, row.base_offset), rows.pack_index(row)


def _readable_rows(journal: Journal) -> Iterator[Row]:
    """Yield the rows of each partition of which all can be read."""
    for key, _ in journal.meta.scan(*keys.slots()):
        prefix = key[1:]
        try:
            yield from journal.index.scan(*keys.rows(prefix))
        except CorruptData as error:
            partition = str(keys.partition_of(prefix))
            _log.warning("rows of a partition are lost", partition=partition, error=str(error))


def _put_all(journal: Journal, found: Sequence[Row] | Iterator[Row]) -> None:
    """Write rows into the index, some at a time; the store's own row goes with each of these."""
    left = iter(found)
    while some := list(islice(left, _ROWS_AT_ONCE)):
        write = Batch()
        for key, row in some:
            write.put(journal.index, key, row)
        journal.commit(write)
