"""Moving a partition out of damaged tables, in steps of which each can be the last before a crash.

A slot that is being filled, or that was left, is marked in the slot map: whatever holds a mark at a
start and has no tenant is emptied before anybody can get it. Emptying drops tables without reading
them, so it has to come before RocksDB compacts them: it runs with compactions off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import structlog

from riverrun_server.core.log.batch import ScannedBatch
from riverrun_server.storage import keys, rows
from riverrun_server.storage.journal import Journal
from riverrun_server.storage.rocks import Batch

# Moved batches are written into tables when so much of them is in memory.
_MOVED_AT_ONCE_BYTES: Final = 16 << 20

_log = structlog.stdlib.get_logger(__name__)


def copy_out(
    journal: Journal, prefix: bytes, batches: Iterable[ScannedBatch], old: int, new: int
) -> None:
    """Fill a clean slot with batches of a partition, and make it the partition's; all durable.

    The slot that it leaves is marked for `empty_marked`.

    Raises:
        StorageError: the partition is in either slot, and what the other one holds is marked.
    """
    column = journal.rocks.column(keys.slot_name(new))
    write = Batch()
    write.put(journal.meta, keys.renew(new), rows.RENEW)
    journal.commit(write)
    journal.sync()  # a table with the first batches may be on the disk before the log is
    for batch in batches:
        write = Batch()
        write.put(column, keys.batch(prefix, batch.stamp.base_offset), batch.data)
        journal.commit(write)
        if column.memory_bytes() > _MOVED_AT_ONCE_BYTES:
            column.flush()
    column.flush()
    write = Batch()
    write.delete(journal.meta, keys.renew(new))
    write.put(journal.meta, keys.renew(old), rows.RENEW)
    write.put(journal.meta, keys.slot_of(prefix), rows.pack_slot(new))
    journal.commit(write)
    journal.sync()


def vacancy(journal: Journal, slot: int) -> int | None:
    """Return a slot with nothing in it, for the only partition in another one; None where there is none.

    Raises:
        CorruptData: the slot map cannot be read.
    """
    occupied = Counter(rows.unpack_slot(row) for _, row in journal.meta.scan(*keys.slots()))
    littered = {keys.dead_of(key)[0] for key, _ in journal.meta.scan(*keys.dead_rows())}
    if occupied[slot] > 1 or slot in littered:
        return None
    taken = {*occupied, *littered, *marked(journal)}
    for column in journal.rocks.columns():
        free = keys.slot_of_name(column.name)
        if free is not None and free not in taken and not column.is_filled:
            return free
    return None


def marked(journal: Journal) -> list[int]:
    """Return the slots that have to be emptied.

    Raises:
        CorruptData: the marks cannot be read.
    """
    return [keys.renewed_of(key) for key, _ in journal.meta.scan(*keys.renewals())]


def empty_marked(journal: Journal) -> None:
    """Empty every marked slot, and take the marks away; compactions are off.

    A slot that somebody occupies is not touched: of its mark only the removal was lost.

    Raises:
        StorageError: call it again at the next start.
    """
    slots = marked(journal)
    if not slots:
        return
    occupied = {rows.unpack_slot(row) for _, row in journal.meta.scan(*keys.slots())}
    names = {column.name for column in journal.rocks.columns()}
    write = Batch()
    for slot in slots:
        # It is missing where a crash came between its end and its beginning.
        if slot not in occupied and (name := keys.slot_name(slot)) in names:
            journal.rocks.renew(name)
            _log.info("slot emptied that a partition has left", slot=slot)
        write.delete(journal.meta, keys.renew(slot))
    journal.commit(write)
    journal.sync()
