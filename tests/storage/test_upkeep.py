"""Dead batches leave the disk without anything being rewritten, small tables are joined."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.storage import housework, keys
from riverrun_server.storage.housework import Purpose, Tenancy, jobs
from riverrun_server.storage.options import Tuning
from riverrun_server.storage.rocks import File
from tests.storage.world import P0, P1, Writer, flip, killed, read_all, tables, wals

MIB = 1 << 20
TINY = Tuning(memtable_bytes=64 * MIB, memtable_each_bytes=MIB, cache_bytes=MIB)


@pytest.fixture
def store(opened):
    return opened(tuning=TINY)


def upkeep(store):
    """Do all there is to do."""
    steps = 0
    while store.upkeep():
        steps += 1
        assert steps < 100
    return steps


def fill(store, partition, mib, size=32 * 1024):
    writer = Writer(store.open(partition))
    writer.many(mib * MIB // size, size=size)
    store._rocks.column(keys.slot_name(store._pool[partition])).flush()
    return writer


def test_an_empty_store_needs_nothing(store):
    assert upkeep(store) == 0
    Writer(store.open(P0)).many(3)
    assert upkeep(store) == 0


def test_trimmed_batches_leave_the_disk_and_nothing_is_rewritten(store):
    writer = fill(store, P0, 8)
    before = store.metrics()
    end = writer.state.log_end_offset
    expected = read_all(writer.log)[3 * end // 4 :]
    writer.trim(3 * end // 4)
    upkeep(store)
    after = store.metrics()
    assert after.compacted_bytes == before.compacted_bytes
    assert after.table_bytes < before.table_bytes * 0.4
    assert read_all(writer.log) == expected


def test_the_batch_in_which_a_log_begins_is_kept(store):
    writer = Writer(store.open(P0))
    writer.append(100, size=1000)
    writer.commit()
    store._rocks.column(keys.slot_name(store._pool[P0])).flush()
    writer.trim(50)
    upkeep(store)
    assert [batch.base_offset for batch in writer.log.read(50, 100, 1 << 20)] == [0]


def test_a_log_that_is_trimmed_while_it_grows_is_never_rewritten(store):
    """Range deletes among the batches would rewrite the whole log for each trim."""
    writer = Writer(store.open(P0))
    for _ in range(12):
        writer.many(64, size=32 * 1024)
        store.sync()
        writer.trim(max(0, writer.state.log_end_offset - 128))
        upkeep(store)
    metrics = store.metrics()
    assert metrics.compacted_bytes == 0
    assert metrics.write_amplification < 2.2
    assert metrics.table_bytes < 9 * MIB
    assert len(read_all(writer.log)) == 128


def test_batches_that_may_come_back_after_a_power_cut_are_not_deleted(store, opened, data_dir):
    """The new log start is on the disk before anything below it leaves."""
    synced = {}
    sync = store._rocks.sync

    def sync_and_note():
        sync()
        synced.update({wal.name: wal.stat().st_size for wal in wals(data_dir)})

    store._rocks.sync = sync_and_note
    writer = fill(store, P0, 4)
    store.sync()
    writer.trim(writer.state.log_end_offset)
    upkeep(store)
    assert store.metrics().table_bytes < MIB
    folder = killed(data_dir)
    for wal in wals(folder):
        os.truncate(wal, synced[wal.name])
    again = opened(folder, tuning=TINY)
    assert again.recovery.intact
    log = again.open(P0)
    assert read_all(log) == []
    assert log.state.log_start_offset == writer.state.log_end_offset


def test_a_dropped_partition_leaves_the_disk_and_frees_its_slot(store):
    fill(store, P0, 6)
    writer = fill(store, P1, 2)
    writer.many(3)
    before = store.metrics()
    store.drop(P0)
    assert store.metrics().slots_free == before.slots_free + 1
    upkeep(store)
    after = store.metrics()
    assert after.table_bytes < 3 * MIB
    assert after.compacted_bytes - before.compacted_bytes < MIB
    assert not store._dead
    assert len(read_all(writer.log)) == 2 * 32 + 3


def test_dropped_batches_that_are_only_in_memory_are_gone_too(store, opened, data_dir):
    Writer(store.open(P0)).many(5)
    slot = store._rocks.column(keys.slot_name(store._pool[P0]))
    store.drop(P0)
    upkeep(store)
    assert slot.scan(b"", b"\xff" * 30) == []


@pytest.mark.parametrize("batches", [(1,), (2,), (1, 1), (1, 1, 1), (2, 1), (1, 2)], ids=str)
@pytest.mark.parametrize("dropped", [True, False], ids=["dropped", "trimmed"])
def test_the_fewest_batches_leave_the_disk_too(store, batches, dropped):
    writer = Writer(store.open(P0))
    slot = store._rocks.column(keys.slot_name(store._pool[P0]))
    for count in batches:
        writer.many(count)
        slot.flush()
    if dropped:
        store.drop(P0)
    else:
        writer.trim(writer.state.log_end_offset)
    upkeep(store)
    batch_key = len(keys.batch(keys.prefix(P0), 0))
    assert not [file for file in store._rocks.files() if len(file.first_key) == batch_key]


def test_a_drop_that_a_crash_interrupted_is_completed(store, opened, data_dir):
    fill(store, P0, 4)
    store.drop(P0)
    store.sync()
    assert store.upkeep()
    again = opened(killed(data_dir), tuning=TINY)
    assert again.partitions() == []
    upkeep(again)
    assert again.metrics().table_bytes < MIB
    assert not again._dead


def test_a_drop_among_partitions_that_share_a_slot_leaves_the_others(opened):
    store = opened(slots=1, tuning=TINY)
    partitions = [PartitionId(bytes([n + 1]) * 16, 0) for n in range(3)]
    writers = [Writer(store.open(each)) for each in partitions]
    for _ in range(64):
        for writer in writers:
            writer.append(size=16 * 1024)
    store.drop(partitions[1])
    upkeep(store)
    for at in (0, 2):
        assert len(read_all(writers[at].log)) == 64


def test_each_step_is_bounded(store, monkeypatch):
    monkeypatch.setattr(housework, "STEP_BYTES", MIB)
    fill(store, P0, 6)
    store.drop(P0)
    sizes = [store.metrics().table_bytes]
    while store.upkeep():
        sizes.append(store.metrics().table_bytes)
    assert len(sizes) > 5
    assert all(before - after < 3 * MIB for before, after in pairwise(sizes))
    assert sizes[-1] < MIB


def test_damage_in_dead_batches_is_told_and_left_alone_and_stops_nothing(store, data_dir):
    writer = fill(store, P0, 4)
    oldest = tables(data_dir)[0]
    flip(oldest, oldest.stat().st_size // 2)
    writer.trim(writer.state.log_end_offset)
    with capture_logs() as logs:
        upkeep(store)
    assert [line["event"] for line in logs] == ["damaged table is left as it is"]
    writer.append()
    store.drop(P0)
    upkeep(store)
    Writer(store.open(P1)).append()
    store.sync()


def test_many_small_tables_become_few(store, data_dir):
    store._upkeep._many_tables = 10
    writer = Writer(store.open(P0))
    column = store._rocks.column(keys.slot_name(store._pool[P0]))
    for _ in range(40):
        writer.many(4, size=16 * 1024)
        column.flush()
    expected = read_all(writer.log)
    before = len(tables(data_dir))
    upkeep(store)
    # RocksDB may have put some together by itself meanwhile.
    assert before > 20
    assert store.metrics().tables < before / 2
    assert read_all(writer.log) == expected


def test_work_that_was_in_vain_is_not_begun_again(store, monkeypatch):
    store._upkeep._many_tables = 10
    writer = Writer(store.open(P0))
    column = store._rocks.column(keys.slot_name(store._pool[P0]))
    for _ in range(40):
        writer.many(4, size=16 * 1024)
        column.flush()
    monkeypatch.setattr("riverrun_server.storage.columns.Column.compact", lambda *_a, **_k: None)
    upkeep(store)
    writer.trim(80)
    upkeep(store)
    assert len(read_all(writer.log)) == 80


def test_an_idle_store_gives_its_memory_back_and_a_busy_or_small_one_does_not(opened):
    store = opened(tuning=Tuning(memtable_bytes=256 * MIB, memtable_each_bytes=64 * MIB))
    writer = Writer(store.open(P0))
    writer.many(10)
    store.upkeep()
    store.upkeep()
    assert store.metrics().flushed_bytes == 0
    writer.many(40, size=MIB)
    store.upkeep()
    writer.append()
    store.upkeep()
    assert store.metrics().flushed_bytes == 0
    store.upkeep()
    assert store.metrics().flushed_bytes > 40 * MIB
    assert store.metrics().memtable_bytes < 2 * MIB


# The choice.

OF = keys.prefix(P0)


def table(name, first, last, size=MIB, level=6, of=OF):
    return File(name, level, size, keys.batch(of, first), keys.batch(of, last))


def chosen(found, start=0, dropped=(), tried=(), many=10**9):
    live = {OF: Tenancy(3, start)}
    return [
        (job.purpose, sorted(job.tables))
        for job in jobs(found, live, dropped, set(tried), many=many)
    ]


def test_only_tables_that_are_dead_as_a_whole_are_chosen():
    found = [table("b", 10, 19), table("a", 0, 9), table("c", 20, 29)]
    assert chosen(found, start=9) == []
    assert chosen(found, start=10) == [(Purpose.TRIMMED, ["a"])]
    assert chosen(found, start=25) == [(Purpose.TRIMMED, ["a", "b"])]
    assert chosen(found, start=25, tried=["a"]) == [(Purpose.TRIMMED, ["b"])]


def test_tables_of_several_partitions_are_never_dead_as_a_whole():
    mixed = File("m", 6, MIB, keys.batch(OF, 0), keys.batch(keys.prefix(P1), 5))
    assert chosen([mixed], start=100) == []


def test_as_many_are_chosen_as_one_step_may_read():
    found = [table(str(at), at, at, size=30 * MIB) for at in range(5)]
    assert chosen(found, start=100) == [(Purpose.TRIMMED, ["0", "1"])]


def test_a_dropped_partition_goes_table_by_table_and_then_as_a_whole():
    other = keys.prefix(P1)
    found = [table("a", 0, 9, of=other), table("b", 10, 19, size=64 * MIB, of=other)]
    assert chosen(found, dropped=[(1, other)]) == [
        (Purpose.DROPPED, ["a"]),
        (Purpose.DROPPED, []),
    ]


def test_of_what_a_renewed_log_has_left_no_table_is_chosen():
    found = [table("a", 0, 9), table("b", 10, 19)]
    assert chosen(found, dropped=[(1, OF)]) == [(Purpose.DROPPED, [])]


def test_small_tables_are_joined_only_when_there_are_very_many():
    small = [table(f"{at:03}", at, at) for at in range(20)]
    assert chosen(small, many=21) == []
    assert chosen(small, many=20) == [(Purpose.JOIN, [f"{at:03}" for at in range(20)])]
    assert chosen(small[:15], many=1) == []


def test_runs_end_at_a_large_table_and_leave_out_what_flushes_have_just_written():
    found = [table(f"{at:03}", at, at) for at in range(40)]
    found[20] = table("big", 20, 20, size=32 * MIB)
    found[39] = table("new", 39, 39, level=0)
    assert chosen(found, many=1) == [
        (Purpose.JOIN, [f"{at:03}" for at in range(20)]),
        (Purpose.JOIN, [f"{at:03}" for at in range(21, 39)]),
    ]
