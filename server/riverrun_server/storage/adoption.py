"""Batches that the slot map has lost: their partition gets its slot back.

The slot map is written when a partition is made and then rests in a table of its own, which is made
rarely. So a write-ahead log that is damaged may take a partition's row with it though its batches
have long been in tables, acknowledged and whole.
"""

from __future__ import annotations

from collections import defaultdict

import structlog

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.log import CorruptData
from riverrun_server.storage import keys, rows
from riverrun_server.storage.columns import Column
from riverrun_server.storage.journal import Journal
from riverrun_server.storage.moving import marked
from riverrun_server.storage.rocks import Batch

_log = structlog.stdlib.get_logger(__name__)


def adopt(journal: Journal) -> list[PartitionId]:
    """Put back the slot rows of partitions that have batches but no row; return these partitions.

    Batches that a drop or a move has left are not meant. A partition with batches in several slots gets no
    row, for nobody knows which are its own: they stay where they are, and a slot that holds any
    counts as littered.

    Raises:
        CorruptData: the slot map cannot be read.
        StorageError: nothing was written.
    """
    known = {key[1:] for key, _ in journal.meta.scan(*keys.slots())}
    dead = {keys.dead_of(key) for key, _ in journal.meta.scan(*keys.dead_rows())}
    left = set(marked(journal))
    holders: defaultdict[bytes, list[int]] = defaultdict(list)
    for column in journal.rocks.columns():
        slot = keys.slot_of_name(column.name)
        if slot is None or slot in left:
            continue
        for prefix in _prefixes(column):
            if prefix not in known and (slot, prefix) not in dead:
                holders[prefix].append(slot)
    write, adopted = Batch(), []
    for prefix, slots in sorted(holders.items()):
        partition = keys.partition_of(prefix)
        if len(slots) == 1:
            write.put(journal.meta, keys.slot_of(prefix), rows.pack_slot(slots[0]))
            adopted.append(partition)
            _log.warning("partition had lost its slot", partition=str(partition), slot=slots[0])
        else:
            _log.warning("batches of nobody are left alone", partition=str(partition), slots=slots)
    if adopted:
        journal.commit(write)
    return adopted


def _prefixes(column: Column) -> list[bytes]:
    """Return the prefix of every partition with batches in a slot, as far as it can be read."""
    found: list[bytes] = []
    at = b""
    try:
        while rows_there := column.scan(at, keys.SLOT_END, 1):
            found.append(rows_there[0][0][: keys.PREFIX_BYTES])
            at = keys.batches_end(found[-1])
    except CorruptData as error:
        _log.warning("slot cannot be read", slot=column.name, error=str(error))
    return found
