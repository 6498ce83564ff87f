"""A log that is thrown away on the disk leaves its tables, damaged ones too, and begins in another slot."""

from __future__ import annotations

import os

import pytest

from riverrun_server.core.log.state import LogState
from riverrun_server.ports.log import CorruptData, StorageStalled
from riverrun_server.storage import keys
from riverrun_server.storage.rocks import Batch
from tests.storage.world import P0, P1, Writer, flip, killed, read_all, tables, wals

ANEW = LogState(accepted_epoch=7)


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
    return data_dir


def upkeep(store):
    for _ in range(100):
        if not store.upkeep():
            return
    raise AssertionError("upkeep never ends")


def test_a_log_with_a_damaged_table_begins_anew_and_the_table_is_never_compacted(opened, damaged):
    store = opened()
    log = store.open(P0)
    with pytest.raises(CorruptData):
        read_all(log)
    store.renew(P0, ANEW)
    written = Writer(log).many(5, size=40_000)
    upkeep(store)
    for _ in range(6):
        written += Writer(log).many(1)
        log._slot.flush()
    log._slot.compact(b"", b"\xff" * 40, rewrite=True)
    assert read_all(log) == written
    store.close()
    again = opened()
    upkeep(again)
    assert read_all(again.open(P0)) == written
    assert again.open(P0).state.accepted_epoch == 7
    assert len(read_all(again.open(P1))) == 3


def test_a_log_without_a_state_that_can_be_read_begins_anew(opened):
    store = opened()
    log = store.open(P0)
    Writer(log).many(3)
    store.close()
    store = opened()
    column, key = store._journal.index, keys.state(keys.prefix(P0))
    lost = Batch()
    lost.delete(column, key)
    store._journal.commit(lost)
    log = store.open(P0)
    assert log.damage is not None
    store.renew(P0, ANEW)
    assert (log.damage, log.state) == (None, ANEW)
    assert len(Writer(log).many(2)) == 2


def test_old_batches_leave_the_disk(opened):
    store = opened()
    log = store.open(P0)
    old = store._rocks.column(keys.slot_name(store._pool[P0]))
    Writer(log).many(5)
    old.flush()
    store.renew(P0, ANEW)
    written = Writer(log).many(3)
    upkeep(store)
    assert old.scan(b"", b"\xff" * 40) == []
    assert not store._dead
    assert read_all(log) == written


def test_where_there_is_no_other_slot_it_stays_in_its_own(opened):
    store = opened(slots=1)
    for partition in (P0, P1):
        Writer(store.open(partition)).many(3)
    store.renew(P0, ANEW)
    written = Writer(store.open(P0)).many(2)
    assert read_all(store.open(P0)) == written
    assert len(read_all(store.open(P1))) == 3
    upkeep(store)
    assert read_all(store.open(P0)) == written


def test_a_kill_finds_it_before_or_behind_and_never_in_between(opened, data_dir):
    store = opened()
    log = store.open(P0)
    before = Writer(log).many(3)
    store.sync()
    synced = {wal.name: wal.stat().st_size for wal in wals(data_dir)}
    store.renew(P0, ANEW)
    store.sync()
    behind = killed(data_dir, "behind")
    lost = killed(data_dir, "lost")
    for wal in wals(lost):
        os.truncate(wal, synced[wal.name])
    assert opened(behind).open(P0).state == ANEW
    assert read_all(opened(lost).open(P0)) == before


def test_while_upkeep_buries_what_it_left_it_waits(store_with_dead):
    store = store_with_dead
    store._burying = keys.prefix(P0)
    with pytest.raises(StorageStalled):
        store.renew(P0, ANEW)
    store._burying = None
    store.renew(P0, ANEW)
    assert store.open(P0).state == ANEW


@pytest.fixture
def store_with_dead(opened):
    store = opened()
    Writer(store.open(P0)).many(3)
    store.renew(P0, LogState())
    return store
