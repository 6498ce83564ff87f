"""A batch is written twice, to the log and to a table: compaction of a slot only moves files."""

from __future__ import annotations

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.storage.options import Tuning
from tests.storage.world import P0, Writer

MIB = 1 << 20
SMALL = Tuning(memtable_bytes=32 * MIB, memtable_each_bytes=MIB, cache_bytes=MIB)


def load(store, partitions, mib, size=64 * 1024):
    writers = [Writer(store.open(PartitionId(b"w" * 16, n))) for n in range(partitions)]
    for round_ in range(mib * MIB // size // partitions):
        for writer in writers:
            # As often as in the product, where about one batch a MiB has an index row.
            writer.append(size=size, index=round_ % (MIB // size) == 0)
        if round_ % 16 == 0:
            store.sync()
    for column in store._rocks.columns():
        if column.is_dirty:
            column.flush()
    store.sync()


def test_compaction_of_slots_only_moves_files(opened):
    store = opened(slots=4, tuning=SMALL)
    load(store, partitions=4, mib=96)
    for column in store._rocks.columns():
        if column.name.startswith("slot_"):
            column.compact(b"", b"\xff" * 28)
    metrics = store.metrics()
    assert metrics.wal_bytes > 96 * MIB
    assert metrics.write_amplification <= 2.2
    # What is rewritten are rows of the index, never batches.
    assert metrics.compacted_bytes < MIB


def test_the_measure_can_fail(opened):
    """Partitions that share a slot make every file overlap the others."""
    store = opened(slots=1, tuning=SMALL)
    load(store, partitions=4, mib=32)
    store._rocks.column("slot_0000").compact(b"", b"\xff" * 28)
    assert store.metrics().write_amplification > 2.2


def test_what_is_read_back_went_through_tables(opened):
    store = opened(slots=1, tuning=SMALL)
    load(store, partitions=1, mib=4)
    writer = Writer(store.open(PartitionId(b"w" * 16, 0)))
    assert len(writer.log.read(0, 10**9, 4 * MIB)) == 63
    assert store.open(P0).state.log_end_offset == 0
