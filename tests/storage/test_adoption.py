"""A partition whose slot row is lost, with its batches in tables: it has them again, and keeps them."""

from __future__ import annotations

import pytest

from riverrun_server.storage import keys
from riverrun_server.storage.adoption import adopt
from riverrun_server.storage.recovery import Mode
from riverrun_server.storage.rocks import Batch
from tests.storage.world import P0, P1, Writer, flip, killed, read_all, tables, wals


def work_off(store):
    while store.upkeep():
        pass


@pytest.fixture
def slot_row_lost(opened, data_dir):
    """A directory after a kill; the log is damaged where P0 got its slot, its 20 batches are in tables."""

    def make(*, state):
        store = opened()
        store.open(P1)
        store.sync()
        (wal,) = wals(data_dir)
        begin = wal.stat().st_size
        writer = Writer(store.open(P0))
        store.sync()
        end = wal.stat().st_size
        writer.many(20, size=50_000)
        writer.log._slot.flush()
        if state:
            store._journal.index.flush()
            writer.many(2, size=100)
        store.sync()
        store.write_watermark(clean=False)
        folder = killed(data_dir)
        if not state:
            wals(folder)[0].unlink()
        else:
            flip(wals(folder)[0], (begin + end) // 2)
        return folder

    return make


def test_a_partition_whose_slot_row_is_lost_keeps_its_batches(opened, slot_row_lost):
    store = opened(slot_row_lost(state=True), seed=1)
    assert store.recovery.mode is Mode.SALVAGED
    log = store.open(P0)
    length = log.state.log_end_offset
    assert length >= 20
    assert store.recovery.cuts[P0] == length
    work_off(store)
    assert [batch.base_offset for batch in read_all(log)] == list(range(length))


def test_without_its_state_it_is_damaged_and_keeps_its_batches_all_the_same(opened, slot_row_lost):
    store = opened(slot_row_lost(state=False), seed=1)
    assert store.recovery.mode is Mode.SALVAGED
    assert store.recovery.cuts[P0] == 0
    assert store.open(P0).damage
    work_off(store)
    prefix = keys.prefix(P0)
    slot = store._rocks.column(keys.slot_name(store._pool[P0]))
    assert len(slot.scan(prefix, keys.batches_end(prefix))) == 20


def without_row(store):
    """Take P0 out of the slot map behind the store's back."""
    write = Batch()
    write.delete(store._journal.meta, keys.slot_of(keys.prefix(P0)))
    store._journal.commit(write)


def test_what_a_drop_has_left_is_not_adopted(opened):
    store = opened()
    Writer(store.open(P0)).many(3)
    store.drop(P0)
    assert adopt(store._journal) == []
    store.close()
    assert opened().partitions() == []


def test_batches_in_two_slots_are_nobodys_and_stay(opened):
    store = opened()
    Writer(store.open(P0)).many(3)
    without_row(store)
    write = Batch()
    key = keys.batch(keys.prefix(P0), 0)
    write.put(store._rocks.column(keys.slot_name(2)), key, read_all(store.open(P0))[0].data)
    store._journal.commit(write)
    assert adopt(store._journal) == []
    store.close()
    again = opened()
    assert again.partitions() == []
    work_off(again)
    columns = [again._rocks.column(keys.slot_name(slot)) for slot in range(4)]
    assert [len(column.scan(b"", keys.SLOT_END)) for column in columns] == [3, 0, 1, 0]


def test_a_new_partition_never_shows_what_is_left_of_another_of_its_name(opened):
    store = opened(slots=1)
    Writer(store.open(P0)).append(count=5)
    Writer(store.open(P0)).append(count=5)
    without_row(store)
    store.close()
    again = opened(slots=1)
    assert again.partitions() == []
    writer = Writer(again.open(P0))
    new = writer.append(count=9)
    writer.append(count=9)
    (found,) = writer.log.read(7, 9, 1)
    assert (found.base_offset, found.data) == (0, new.data)
    work_off(again)
    assert len(read_all(writer.log)) == 2


# A damaged table in a store that is salvaged.


@pytest.fixture
def damaged_twice(opened, data_dir):
    """Damage a table of P0 where some bytes stand, and the log of its batches; P1 has 120 more."""

    def make(needle_of):
        store = opened()
        writer, other = Writer(store.open(P0)), Writer(store.open(P1))
        for number in range(10):
            writer.append(size=40_000, epoch=7 + number, leader_epoch=7 + number)
        needle, column = needle_of(writer.log)
        column.flush()
        writer.append()  # so that the state can be read, it stands elsewhere
        other.many(60, size=1000)
        store._journal.meta.flush()
        store.sync()
        other.many(60, size=1000)
        store.sync()
        store.write_watermark(clean=False)
        folder = killed(data_dir)
        (table,) = (path for path in tables(folder) if needle in path.read_bytes())
        flip(table, table.read_bytes().find(needle))
        oldest = wals(folder)[0]
        flip(oldest, oldest.stat().st_size - 20_000)
        return folder

    return make


def first_batch(log):
    return read_all(log)[0].data[-200:], log._slot


def first_epoch(log):
    # A key as it stands in a table: what it shares with the key before it is left out.
    return keys.epoch(keys.prefix(log.partition), 7)[-5:], log._index


@pytest.mark.parametrize("needle_of", [first_batch, first_epoch])
def test_a_damaged_table_is_damage_of_its_partition_alone(opened, damaged_twice, needle_of):
    store = opened(damaged_twice(needle_of), seed=1)
    assert store.recovery.mode is Mode.SALVAGED
    assert P0 in store.partitions()
    log = store.open(P1)
    assert len(read_all(log)) == 120
    Writer(log).append()


def fifth_batch(log):
    return read_all(log)[4].data[-200:], log._slot


def test_what_is_left_before_a_damaged_table_moves_out_of_it(opened, damaged_twice):
    store = opened(damaged_twice(fifth_batch), seed=1)
    assert store.recovery.mode is Mode.SALVAGED
    assert store.recovery.cuts == {P0: 4}
    writer = Writer(store.open(P0))
    assert len(read_all(writer.log)) == 4
    for _ in range(6):  # tables enough for RocksDB to compact by itself
        writer.append(leader_epoch=20)
        writer.log._slot.flush()
    for column in store._rocks.columns():
        column.compact(b"", b"\xff" * 40, rewrite=True)
    writer.append(leader_epoch=20)
    assert len(read_all(writer.log)) == 11
    assert len(read_all(store.open(P1))) == 120
