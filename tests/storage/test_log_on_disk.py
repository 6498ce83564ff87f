"""A log in its slot while others write, and when what it counts on is not there."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from riverrun_server.ports.log import CorruptData, StorageError
from riverrun_server.storage import keys
from riverrun_server.storage.rocks import Batch
from tests.storage.world import P0, Writer, flip, read_all, tables


@pytest.fixture
def store(opened):
    return opened(slots=1)


@pytest.fixture
def writer(store):
    writer = Writer(store.open(P0))
    writer.many(10, count=2)
    return writer


@pytest.fixture
def log(writer):
    return writer.log


def forget(store, log, offset):
    write = Batch()
    write.delete(log._slot, keys.batch(keys.prefix(log.partition), offset))
    store._journal.commit(write)


def test_a_hole_is_damage_wherever_a_read_meets_it(store, log):
    forget(store, log, 8)
    assert [each.base_offset for each in log.read(0, 20, 100)] == [0, 2]
    for offset in (0, 6, 8, 9):
        missing = f"no batch at offset {max(offset, 8)}"
        with pytest.raises(CorruptData, match=missing):
            log.read(offset, 20, 9999)
        with pytest.raises(CorruptData, match=missing):
            log.scan(offset, 9999)
    assert [each.base_offset for each in log.read(10, 20, 9999)] == [10, 12, 14, 16, 18]


def test_a_missing_first_batch_is_damage(store, log):
    forget(store, log, 0)
    with pytest.raises(CorruptData, match="no batch at offset 0"):
        log.read(0, 20, 100)


class Meanwhile:
    """A slot in which something happens between two lookups of a read."""

    def __init__(self, slot, after, act):
        self._slot = slot
        self._left = after
        self._act = act

    def __getattr__(self, name):
        return getattr(self._slot, name)

    @contextmanager
    def lookups(self):
        with self._slot.lookups() as lookup:

            def interrupted(key):
                self._left -= 1
                if self._left == 0:
                    self._act()
                return lookup(key)

            yield interrupted


def interrupt(log, after, act):
    slot = log._slot

    def once():
        log._slot = slot
        act()

    log._slot = Meanwhile(slot, after, once)


def test_what_is_truncated_while_it_is_read_is_no_damage(log, writer):
    interrupt(log, 4, lambda: writer.truncate(6))
    assert [each.base_offset for each in log.read(0, 20, 9999)] == [0, 2, 4]


def test_what_is_truncated_but_not_yet_known_to_be_is_no_damage(log, writer):
    """The rows are gone for other threads before the writer has taken the new state."""
    commit = log._journal.commit

    def commit_and_read(write):
        commit(write)
        seen.append([each.base_offset for each in log.read(0, 20, 9999)])

    seen = []
    log._journal.commit = commit_and_read
    try:
        writer.truncate(6)
    finally:
        log._journal.commit = commit
    assert seen == [[0, 2, 4]]


def test_what_is_trimmed_and_deleted_while_it_is_read_is_no_damage(store, log, writer):
    def trim():
        writer.trim(16)
        for at in range(0, 16, 2):
            forget(store, log, at)

    interrupt(log, 2, trim)
    assert [each.base_offset for each in log.read(0, 20, 9999)] == [0]


def test_what_is_dropped_while_it_is_read_is_no_damage(store, log):
    def drop():
        store.drop(P0)
        for at in range(0, 20, 2):
            forget(store, log, at)

    interrupt(log, 3, drop)
    assert len(log.read(0, 20, 9999)) == 2
    with pytest.raises(StorageError, match="deleted"):
        log.read(0, 20, 9999)


def test_a_truncation_that_was_refused_changes_nothing(log, writer, monkeypatch):
    def refuse(_write):
        raise StorageError("no")

    before = read_all(log)
    monkeypatch.setattr(log._journal, "commit", refuse)
    for write in (lambda: writer.truncate(6), lambda: writer.trim(6), writer.append):
        with pytest.raises(StorageError, match="no"):
            write()
    monkeypatch.undo()
    assert read_all(log) == before
    assert log.state.log_end_offset == 20
    assert log.state.log_start_offset == 0


def test_a_flipped_bit_in_a_table_is_damage_of_the_batches_there_and_no_others(opened, data_dir):
    store = opened(slots=1)
    writer = Writer(store.open(P0))
    writer.many(20, size=100_000)
    writer.log._slot.flush()
    (table,) = [each for each in tables(data_dir) if each.stat().st_size > 10**6]
    flip(table, table.stat().st_size // 2)
    readable = []
    for offset in range(20):
        try:
            (found,) = writer.log.read(offset, 20, 1)
        except CorruptData:
            continue
        assert found.base_offset == offset
        readable.append(offset)
    assert len(readable) == 19
    with pytest.raises(CorruptData):
        read_all(writer.log, 1 << 30)
    with pytest.raises(CorruptData):
        writer.log.scan(0, 1 << 30)
    writer.append()
    store.sync()


def test_a_batch_is_looked_for_only_in_ones_own_partition(store, log, writer):
    """A neighbour's last batch stands right before one's own first."""
    neighbour = Writer(store.open(P0._replace(partition=1)))
    neighbour.append()
    forget(store, neighbour.log, 0)
    with pytest.raises(CorruptData):
        neighbour.log.read(0, 1, 100)
    assert neighbour.log.index_before(5) is None
    assert neighbour.log.snapshot() is None
