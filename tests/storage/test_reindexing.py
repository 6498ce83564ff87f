"""Rows of the index that damage has taken are made anew from the batches they speak of."""

from __future__ import annotations

import dataclasses

import pytest

from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.log.state import LogState
from riverrun_server.core.producers import ProducerTable
from riverrun_server.ports.log import StorageFailed
from riverrun_server.storage import keys
from riverrun_server.storage.store import renew_index
from tests.storage.world import P0, P1, SMALL, Writer, batch, flip, read_all, scan, tables

CALM = dataclasses.replace(SMALL, compactions=False)
BATCHES = 12


def write_as_a_leader_does(log):
    """Append batches of 300 KB in three leader epochs, with the rows that a broker writes."""
    machine = PartitionMachine(LogState(), ProducerTable(1), leader_epoch=1)
    for number in range(BATCHES):
        epoch = 1 + number // 4
        new = batch(machine.log_end, 2, 300_000, leader_epoch=epoch, time_ms=1000 + number)
        scanned = scan(log.partition, new.data)
        beside = machine.rows(scanned.header, scanned.stamp, len(new.data))
        entry = None if number % 4 else EpochEntry(epoch, new.base_offset)
        log.append(new, beside.state, epoch=entry, index=beside.index)
        machine.state = beside.state


def everything_of(log):
    return log.state, log.epochs(), log.index_rows(0, 100), read_all(log)


def index_tables(folder):
    """Return the tables with the state of P0, and not the slot map's, which looks much the same."""
    prefix = keys.prefix(P0)
    return [
        path
        for path in tables(folder)
        if keys.state(prefix) in (data := path.read_bytes()) and keys.slot_of(prefix) not in data
    ]


@pytest.fixture
def was(opened, data_dir):
    """What P0 held before the only table of the index was damaged; P1 stands in the same block."""
    store = opened()
    write_as_a_leader_does(store.open(P0))
    Writer(store.open(P1)).many(3)
    held = everything_of(store.open(P0))
    store.close()
    (table,) = index_tables(data_dir)
    flip(table, table.read_bytes().find(keys.state(keys.prefix(P0))))
    return held


def test_an_index_without_damage_is_whole(opened):
    store = opened()
    write_as_a_leader_does(store.open(P0))
    store.open(P0)._index.flush()
    assert store.has_whole_index()


def test_rows_that_are_lost_keep_their_partition_offline_until_they_are_rebuilt(
    opened, data_dir, was
):
    store = opened(tuning=CALM)
    assert not store.has_whole_index()
    store.close()
    renew_index(data_dir, CALM)
    store = opened(tuning=CALM)
    assert store.has_whole_index()
    assert "no state" in store.open(P0).damage
    assert "no state" in store.open(P1).damage
    assert store.rebuild(P0)
    state, epochs, signposts, batches = everything_of(store.open(P0))
    end = was[0].log_end_offset
    assert state == dataclasses.replace(was[0], high_watermark=end, accepted_epoch=3)
    assert (epochs, signposts, batches) == was[1:]
    assert store.open(P1).damage, "nobody has accepted its loss"


def test_a_renewed_index_can_be_compacted_and_a_damaged_one_stops_every_write(
    opened, data_dir, was
):
    def compact(store):
        for number in range(6):
            store.table(b"other").write([(b"%d" % number, b"x")])
            store._journal.index.flush()
        store._journal.index.compact(b"", b"\xff" * 40, rewrite=True)
        store.table(b"other").write([(b"z", b"x")])

    store = opened()
    with pytest.raises(StorageFailed):
        compact(store)
    store.close(clean=False)
    opened(tuning=CALM).close()
    renew_index(data_dir, CALM)
    compact(opened())


def test_the_index_of_a_store_that_was_not_closed_in_order_is_left_alone(opened, data_dir):
    store = opened()
    Writer(store.open(P0)).append()
    store.close(clean=False)
    with pytest.raises(StorageFailed, match="not closed in order"):
        renew_index(data_dir, CALM)


def test_the_number_of_the_last_write_is_known_although_its_row_is_damaged(opened, was):
    store = opened(tuning=CALM)
    assert store.recovery.intact
    assert store.recovery.written == store.recovery.expected > BATCHES


def test_rows_that_can_be_read_are_kept_as_they_are(opened, data_dir):
    store = opened()
    write_as_a_leader_does(store.open(P0))
    store.open(P0).save(store.open(P0).state, snapshot=(4, b"producers"))
    held = everything_of(store.open(P0)), store.open(P0).snapshot()
    store.close()
    renew_index(data_dir, CALM)
    log = opened().open(P0)
    assert (everything_of(log), log.snapshot()) == held
    Writer(log).append(leader_epoch=4)


def test_a_rebuilt_log_ends_where_its_batches_no_longer_continue(opened, data_dir, was):
    needle = was[3][7].data[-200:]
    (table,) = (path for path in tables(data_dir) if needle in path.read_bytes())
    flip(table, table.read_bytes().find(needle))
    renew_index(data_dir, CALM)
    store = opened(tuning=CALM)
    assert store.open(P0).damage
    assert store.rebuild(P0)
    log = store.open(P0)
    assert read_all(log) == was[3][:7]
    assert log.is_followed()
    assert log.epochs() == was[1][:2]


def test_a_partition_without_a_batch_has_nothing_to_be_rebuilt_from(opened, data_dir):
    store = opened()
    store.open(P0)
    store.close()
    (table,) = index_tables(data_dir)
    flip(table, table.read_bytes().find(keys.state(keys.prefix(P0))))
    renew_index(data_dir, CALM)
    store = opened(tuning=CALM)
    assert store.open(P0).damage
    assert not store.rebuild(P0)


def test_a_store_is_as_it_was_where_its_index_cannot_be_renewed(opened, data_dir, was, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    before = sorted(path.name for path in tables(data_dir))
    monkeypatch.setattr("riverrun_server.storage.reindexing.swap", die)
    with pytest.raises(KeyboardInterrupt):
        renew_index(data_dir, CALM)
    assert sorted(path.name for path in tables(data_dir)) == before
    monkeypatch.undo()
    renew_index(data_dir, CALM)
    assert opened(tuning=CALM).has_whole_index()
