"""What is left of a partition with damaged tables leaves them, so that nobody ever reads them again."""

from __future__ import annotations

import pytest

from riverrun_server.storage.options import Tuning
from riverrun_server.storage.salvage import cut_log, is_damaged
from tests.storage.world import P0, P1, SMALL, Writer, flip, read_all, tables

CALM = Tuning(SMALL.memtable_bytes, SMALL.memtable_each_bytes, SMALL.cache_bytes, compactions=False)


@pytest.fixture
def damaged(opened, data_dir):
    """A stopped store; the sixth of ten batches of P0 has a flipped bit, P1 is whole."""
    store = opened()
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
