"""What is left of a partition with damaged tables leaves them, so that nobody ever reads them again."""

from __future__ import annotations

import pytest

from riverrun_server.storage import keys, moving, rows
from riverrun_server.storage.adoption import adopt
from riverrun_server.storage.options import Tuning
from riverrun_server.storage.rocks import Batch
from riverrun_server.storage.salvage import cut_log, is_damaged, readable
from tests.storage.world import P0, P1, SMALL, Writer, flip, killed, read_all, tables

CALM = Tuning(SMALL.memtable_bytes, SMALL.memtable_each_bytes, SMALL.cache_bytes, compactions=False)


@pytest.fixture
def damaged(opened, data_dir):
    """A stopped store; the sixth of ten batches of P0 has a flipped bit, P1 is whole."""
    store = opened()
    store.open(P1)  # has slot 0, which every start makes where it is missing
    writer = Writer(store.open(P0))
    for number in range(10):
        writer.append(size=40_000, epoch=number, leader_epoch=number)
    needle = read_all(writer.log)[5].data[-200:]
    Writer(store.open(P1)).many(3)
    store.close()
    (table,) = (path for path in tables(data_dir) if needle in path.read_bytes())
    flip(table, table.read_bytes().find(needle))
    return table


def test_a_partition_that_was_moved_out_is_cut_and_can_be_compacted(opened, damaged):
    store = opened(tuning=CALM)
    log = store.open(P0)
    assert is_damaged(log)
    assert store.move_out(P0)
    log = store.open(P0)
    assert cut_log(log)
    assert [batch.base_offset for batch in read_all(log)] == [0, 1, 2, 3, 4]
    store.close()
    assert not damaged.exists()
    again = opened()
    for round_ in range(6):  # tables enough for RocksDB to compact by itself
        for partition in (P0, P1):
            Writer(again.open(partition)).append(epoch=20 + round_, leader_epoch=20 + round_)
            again.open(partition)._slot.flush()
    again.open(P0)._slot.compact(b"", b"\xff" * 40, rewrite=True)
    Writer(again.open(P0)).append(leader_epoch=25)
    assert len(read_all(again.open(P0))) == 12
    assert len(read_all(again.open(P1))) == 9


def test_the_slot_that_was_left_serves_the_next_partition(opened, damaged):
    store = opened(tuning=CALM, slots=3)
    assert store.move_out(P0)
    for partition in range(5, 9):
        writer = Writer(store.open(P0._replace(partition=partition)))
        writer.append()
        assert len(read_all(writer.log)) == 1


def test_a_shared_slot_is_left_as_it_is(opened, data_dir):
    store = opened(slots=1, tuning=CALM)
    for partition in (P0, P1):
        Writer(store.open(partition)).append()
    assert not store.move_out(P0)
    assert len(read_all(store.open(P0))) == 1


class Died(Exception):
    """What a test has a process end with."""


def die(*_args):
    raise Died


def filled(store):
    """Return the slots with anything in them."""
    names = (column.name for column in store._rocks.columns() if column.is_filled)
    return {slot for name in names if (slot := keys.slot_of_name(name)) is not None}


def check_moved(store):
    """Check that P0 begins anew in a slot of its own, and that nothing damaged is ever compacted."""
    assert moving.marked(store._journal) == []
    assert filled(store) == {store._pool[P0], store._pool[P1]}
    cut_log(store.open(P0))
    assert len(read_all(store.open(P0))) == 5
    for number in range(5, 9):
        writer = Writer(store.open(P0._replace(partition=number)))
        for _ in range(6):
            writer.append()
            writer.log._slot.flush()
        writer.log._slot.compact(b"", b"\xff" * 40, rewrite=True)
        writer.append()
        assert len(read_all(writer.log)) == 7


def test_a_crash_before_the_old_slot_is_empty_leaves_that_to_the_next_start(
    opened, damaged, data_dir
):
    store = opened(tuning=CALM)
    store._rocks.renew = die
    with pytest.raises(Died):
        store.move_out(P0)
    folder = killed(data_dir)
    again = opened(folder)
    check_moved(again)
    again.close()
    assert opened(folder).recovery.intact


def test_a_crash_within_the_emptying_leaves_a_slot_fewer_until_it_is_made_again(
    opened, damaged, data_dir
):
    store = opened(tuning=CALM)
    old = store._pool[P0]

    def half(name):
        store._rocks._columns.pop(name).let_go()
        store._rocks._open.drop_column_family(name)
        die()

    store._rocks.renew = half
    with pytest.raises(Died):
        store.move_out(P0)
    folder = killed(data_dir)
    few = opened(folder, slots=1, tuning=CALM)
    for number in range(5, 11):
        assert len(Writer(few.open(P0._replace(partition=number))).many(1)) == 1
        assert few._pool[P0._replace(partition=number)] != old
    few.close()
    assert opened(folder).open(P1).state.log_end_offset == 3


def test_a_crash_while_batches_are_copied_leaves_none_in_a_clean_slot(
    opened, damaged, data_dir, monkeypatch
):
    store = opened(tuning=CALM)
    old, new = store._pool[P0], store._pool.choose()

    def three(log):
        for number, batch in enumerate(readable(log)):
            if number == 3:
                store._rocks.column(keys.slot_name(new)).flush()
                die()
            yield batch

    monkeypatch.setattr("riverrun_server.storage.rocks_store.readable", three)
    with pytest.raises(Died):
        store.move_out(P0)
    monkeypatch.undo()
    folder = killed(data_dir)
    again = opened(folder, tuning=CALM)
    assert again._pool[P0] == old
    assert new not in filled(again)
    assert again.move_out(P0)
    again.close()
    check_moved(opened(folder))


def test_a_slot_that_somebody_occupies_is_never_emptied(opened, data_dir):
    store = opened()
    Writer(store.open(P0)).many(3)
    write = Batch()
    write.put(store._journal.meta, keys.renew(store._pool[P0]), rows.RENEW)
    store._journal.commit(write)
    store.close()
    again = opened()
    assert moving.marked(again._journal) == []
    assert len(read_all(again.open(P0))) == 3


def test_a_copy_that_was_not_finished_is_not_adopted(opened):
    store = opened()
    Writer(store.open(P0)).many(3)
    Writer(store.open(P1)).many(1)
    old, new = store._pool[P0], store._pool.choose()
    write = Batch()
    write.delete(store._journal.meta, keys.slot_of(keys.prefix(P0)))
    write.put(store._journal.meta, keys.renew(new), rows.RENEW)
    first = keys.batch(keys.prefix(P0), 0)
    write.put(store._rocks.column(keys.slot_name(new)), first, read_all(store.open(P0))[0].data)
    store._journal.commit(write)
    assert adopt(store._journal) == [P0]
    store.close()
    again = opened()
    assert again._pool[P0] == old
    assert len(read_all(again.open(P0))) == 3
