"""What every log store promises; the store on disk and its twin in memory take the same tests."""

from __future__ import annotations

import dataclasses

import pytest

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.log.state import IndexRow, LogState
from riverrun_server.ports.log import CorruptData, StorageError
from riverrun_server.runtime.replication.cutting import state_below
from tests.storage.world import P0, P1, Writer, batch, encode, parse, read_all


@pytest.fixture
def store(any_world):
    return any_world.store


@pytest.fixture
def log(store):
    return store.open(P0)


@pytest.fixture
def writer(log):
    return Writer(log)


def test_a_new_log_is_empty(log):
    assert log.state == LogState()
    assert log.damage is None
    assert log.read(0, 100, 1000) == []
    assert log.scan(0, 1000) == []
    assert log.epochs() == []
    assert log.index_before(100) is None
    assert log.index_rows(0, 10) == []
    assert log.snapshot() is None


def test_a_log_is_the_same_however_often_it_is_opened(store, log, writer):
    writer.append()
    assert store.open(P0) is log


def test_what_was_appended_is_read_at_once_byte_for_byte(log, writer):
    written = [writer.append(count, size) for count, size in ((1, 0), (5, 100), (2, 70_000))]
    assert read_all(log) == written
    assert log.state.log_end_offset == 8


@pytest.mark.parametrize(
    ("offset", "first"), [(0, 0), (1, 0), (4, 0), (5, 5), (9, 5), (10, 10), (14, 10)]
)
def test_reading_begins_with_the_batch_that_holds_the_offset(log, writer, offset, first):
    writer.many(3, count=5)
    assert log.read(offset, 15, 1 << 20)[0].base_offset == first


def test_nothing_is_read_at_or_behind_the_end(log, writer):
    writer.many(3, count=5)
    assert log.read(15, 100, 1000) == []
    assert log.read(99, 100, 1000) == []
    assert log.read(10, 10, 1000) == []


def test_no_batch_that_reaches_beyond_the_end_is_read(log, writer):
    writer.many(3, count=5)
    assert [each.base_offset for each in log.read(0, 10, 1 << 20)] == [0, 5]
    assert [each.base_offset for each in log.read(0, 9, 1 << 20)] == [0]
    assert log.read(0, 4, 1 << 20) == []


def test_as_many_batches_are_read_as_fit_but_at_least_one(log, writer):
    size = len(writer.append(size=100).data)
    writer.many(9, size=100)
    for room, expected in ((1, 1), (size, 1), (2 * size - 1, 1), (2 * size, 2), (5 * size, 5)):
        assert len(log.read(0, 100, room)) == expected, room
        assert len(log.scan(0, room)) == expected, room


def test_a_scan_tells_all_and_verifies(log, writer):
    written = writer.many(4, count=3)
    found = log.scan(4, 1 << 20)
    assert [each.data for each in found] == [each.data for each in written[1:]]
    assert [each.stamp.next_offset for each in found] == [6, 9, 12]


def test_a_scan_finds_a_batch_that_fails_its_checksum_where_a_read_does_not(log):
    bad = parse(encode(0, 1, payload=b"damaged")[:-1] + b"!")
    log.append(bad, LogState(log_end_offset=1))
    assert log.read(0, 1, 100) == [bad]
    with pytest.raises(CorruptData, match="checksum"):
        log.scan(0, 100)


def test_a_batch_that_says_it_is_elsewhere_is_damage(log):
    lying = batch(0)._replace(data=encode(7, 8))
    log.append(lying, LogState(log_end_offset=1))
    for look in (lambda: log.read(0, 1, 100), lambda: log.scan(0, 100)):
        with pytest.raises(CorruptData, match="offset 0"):
            look()


def test_the_state_is_what_the_newest_write_left(log, writer):
    writer.append()
    state = dataclasses.replace(
        log.state,
        high_watermark=1,
        max_timestamp_ms=-5,
        last_append_time_ms=2**60,
        trimmed_bytes=7,
        indexed_bytes=8,
        interval_max_timestamp_ms=9,
        accepted_epoch=2**31 - 1,
    )
    log.save(state)
    assert log.state == state


def test_everything_is_there_after_a_restart(any_world, log, writer):
    writer.many(3, count=4, epoch=None, index=True)
    writer.append(epoch=9)
    log.save(log.state, snapshot=(13, b"producers"))
    state, written = log.state, read_all(log)
    again = any_world.restart().open(P0)
    assert again.state == state
    assert read_all(again) == written
    assert again.epochs() == [EpochEntry(9, 12)]
    assert [row.base_offset for row in again.index_rows(0, 9)] == [0, 4, 8]
    assert again.snapshot() == (13, b"producers")


def test_partitions_are_listed_in_order_and_after_a_restart(any_world, store):
    other = PartitionId(b"z" * 16, 3)
    for partition in (other, P1, P0):
        store.open(partition)
    assert store.partitions() == [P0, P1, other]
    assert any_world.restart().partitions() == [P0, P1, other]


def test_partitions_do_not_see_each_other(store):
    writers = [
        Writer(store.open(PartitionId(topic, number)))
        for topic in (b"a" * 16, b"a" * 15 + b"b")
        for number in range(5)
    ]
    written = [[each.append(epoch=n, index=True) for n in range(3)] for each in writers]
    for each, own in zip(writers, written, strict=True):
        assert read_all(each.log) == own
        assert len(each.log.epochs()) == len(each.log.index_rows(0, 99)) == 3
    writers[3].trim(2)
    writers[4].truncate(1)
    store.drop(PartitionId(b"a" * 16, 2))
    for at, each in enumerate(writers):
        if at not in (2, 3, 4):
            assert read_all(each.log) == written[at]
            assert len(each.log.epochs()) == 3


# Epochs, index, snapshots.


def test_epochs_come_in_order_with_appends_and_saves(log, writer):
    writer.append(epoch=1)
    log.save(log.state, epoch=EpochEntry(300, 1))
    writer.append(epoch=70_000)
    assert log.epochs() == [EpochEntry(1, 0), EpochEntry(300, 1), EpochEntry(70_000, 1)]


def test_the_state_below_the_first_offset_is_that_of_nothing(log, writer):
    """A follower may lack all that its leader has, and then cuts all that it has."""
    writer.append(epoch=1)
    writer.append(epoch=1)
    found = state_below(log, log.state, 0)
    assert (found.log_end_offset, found.appended_bytes) == (0, 0)


def test_index_rows_are_found_by_offset(log):
    rows = []
    for at in range(4):
        row = IndexRow(at * 10, 100 + at, 2**40 + at, -1, 5)
        rows.append(row)
        log.append(batch(at * 10, 10), LogState(log_end_offset=at * 10 + 10), index=row)
    assert log.index_before(-1) is None
    assert log.index_before(0) == rows[0]
    assert log.index_before(9) == rows[0]
    assert log.index_before(10) == rows[1]
    assert log.index_before(10**9) == rows[3]
    assert log.index_rows(0, 2) == rows[:2]
    assert log.index_rows(1, 9) == rows[1:]
    assert log.index_rows(31, 9) == []


def test_the_newest_snapshot_is_the_one_that_is_found(log, writer):
    writer.many(9)
    for offset in (2, 5, 9):
        log.save(log.state, snapshot=(offset, b"at %d" % offset))
    assert log.snapshot() == (9, b"at 9")


def test_a_snapshot_at_the_same_offset_is_replaced(log, writer):
    writer.append()
    log.save(log.state, snapshot=(1, b"old"))
    log.save(log.state, snapshot=(1, b"new"))
    assert log.snapshot() == (1, b"new")


# Trimming.


def test_a_trim_keeps_the_batch_in_which_the_log_begins(log, writer):
    writer.many(4, count=5)
    writer.trim(7)
    assert log.state.log_start_offset == 7
    assert [each.base_offset for each in read_all(log)] == [5, 10, 15]
    assert log.read(0, 20, 1)[0].base_offset == 5
    assert log.scan(0, 1)[0].stamp.base_offset == 5


def test_a_trim_at_a_boundary_and_one_of_everything(any_world, log, writer):
    writer.many(4, count=5)
    writer.trim(10)
    assert [each.base_offset for each in read_all(log)] == [10, 15]
    writer.trim(20)
    assert read_all(log) == []
    assert log.read(0, 20, 100) == []
    again = Writer(any_world.restart().open(P0))
    assert again.append().base_offset == 20
    assert len(read_all(again.log)) == 1


def test_a_trim_takes_index_rows_and_epochs_that_nothing_needs(any_world, log, writer):
    for epoch in range(6):
        writer.append(count=10, epoch=epoch, index=True)
    writer.trim(35)
    log = any_world.restart().open(P0)
    assert [row.base_offset for row in log.index_rows(0, 9)] == [30, 40, 50]
    assert log.epochs() == [EpochEntry(3, 30), EpochEntry(4, 40), EpochEntry(5, 50)]
    assert log.index_before(35).base_offset == 30


def test_a_trim_takes_hundreds_of_index_rows(log, writer):
    writer.many(300, index=True)
    writer.trim(299)
    assert [row.base_offset for row in log.index_rows(0, 999)] == [299]


def test_a_trim_writes_its_snapshot_and_takes_those_below(any_world, log, writer):
    writer.many(9)
    log.save(log.state, snapshot=(3, b"old"))
    writer.trim(6, b"new")
    assert log.snapshot() == (6, b"new")
    writer.truncate(6)
    assert any_world.restart().open(P0).snapshot() == (6, b"new")


def test_trims_go_on_after_a_restart(any_world, writer):
    writer.many(20)
    writer.trim(5)
    writer = Writer(any_world.restart().open(P0))
    writer.trim(15)
    assert [each.base_offset for each in read_all(writer.log)] == list(range(15, 20))


# Truncating.


def test_a_truncation_deletes_the_end_and_what_it_is_written_with(any_world, log, writer):
    for epoch in range(4):
        writer.append(count=5, epoch=epoch, index=True)
    log.save(log.state, snapshot=(10, b"kept"))
    log.save(log.state, snapshot=(11, b"beyond"))
    writer.truncate(10)

    def check(each):
        assert each.state.log_end_offset == 10
        assert [one.base_offset for one in read_all(each)] == [0, 5]
        assert each.epochs() == [EpochEntry(0, 0), EpochEntry(1, 5)]
        assert [row.base_offset for row in each.index_rows(0, 9)] == [0, 5]
        assert each.snapshot() == (10, b"kept")

    check(log)
    check(any_world.restart().open(P0))


def test_an_older_snapshot_is_there_when_the_newest_is_truncated(log, writer):
    writer.many(9)
    for offset in (3, 6, 9):
        log.save(log.state, snapshot=(offset, b"at %d" % offset))
    writer.truncate(7)
    assert log.snapshot() == (6, b"at 6")


def test_offsets_that_were_truncated_are_written_anew(any_world, log, writer):
    writer.many(6, count=5, index=True)
    writer.truncate(15)
    new = [writer.append(count=3, size=50, index=True) for _ in range(4)]
    assert read_all(log)[3:] == new
    log = any_world.restart().open(P0)
    assert read_all(log)[3:] == new
    assert [row.base_offset for row in log.index_rows(15, 9)] == [15, 18, 21, 24]


def test_a_truncation_of_everything_leaves_an_empty_log(log, writer):
    writer.many(3)
    writer.truncate(0)
    assert read_all(log) == []
    assert writer.append().base_offset == 0


# Beginning again.


@pytest.mark.parametrize("at", [0, 9, 30])
def test_a_log_that_begins_again_has_nothing_of_before(any_world, log, writer, at):
    for epoch in range(4):
        writer.append(count=5, epoch=epoch, index=True)
    writer.trim(7)
    state = LogState(at, at, at, accepted_epoch=9)
    log.restart(state, [EpochEntry(1, 0), EpochEntry(6, 3)], snapshot=(40, b"ahead"))

    def check(each):
        assert each.state == state
        assert read_all(each) == []
        assert each.read(at, 99, 1000) == []
        assert each.epochs() == [EpochEntry(1, 0), EpochEntry(6, 3)]
        assert each.index_rows(0, 9) == []
        assert each.snapshot() == (40, b"ahead")

    check(log)
    log = any_world.restart().open(P0)
    check(log)
    new = Writer(log).many(3, count=4, index=True)
    assert new[0].base_offset == at
    log = any_world.restart().open(P0)
    assert read_all(log) == new
    assert [row.base_offset for row in log.index_rows(0, 9)] == [at, at + 4, at + 8]


def test_a_log_begins_again_without_a_snapshot(log, writer):
    writer.append()
    log.save(log.state, snapshot=(1, b"old"))
    log.restart(LogState(5, 5, 5), [])
    assert log.snapshot() is None
    assert log.epochs() == []


# Throwing away.


def test_a_log_that_was_renewed_is_empty_and_goes_on_as_the_same_one(any_world, store, log, writer):
    writer.many(3, count=2, epoch=1, index=True)
    log.save(log.state, snapshot=(2, b"x"))
    store.renew(P0, LogState(accepted_epoch=7))
    assert log.state == LogState(accepted_epoch=7)
    assert (log.damage, log.read(0, 100, 100), log.scan(0, 100)) == (None, [], [])
    assert (log.epochs(), log.snapshot(), log.index_before(100)) == ([], None, None)
    assert store.open(P0) is log
    assert store.partitions() == [P0]
    written = writer.many(4, epoch=8)
    assert read_all(log) == written
    again = any_world.restart().open(P0)
    assert read_all(again) == written
    assert again.state.accepted_epoch == 7


def test_a_log_is_renewed_again_and_again(store, log, writer):
    for round_ in range(6):
        store.renew(P0, LogState(accepted_epoch=round_))
        written = writer.many(2 + round_)
        assert read_all(log) == written


# Dropping.


def test_a_dropped_partition_is_gone_and_its_log_refuses(any_world, store, log, writer):
    writer.many(3)
    store.drop(P0)
    assert store.partitions() == []
    for use in (
        lambda: log.read(0, 3, 100),
        lambda: log.scan(0, 100),
        lambda: log.save(LogState(log_end_offset=3)),
    ):
        with pytest.raises(StorageError, match="deleted"):
            use()
    assert any_world.restart().partitions() == []


def test_a_partition_that_comes_again_shows_nothing_old(any_world, store):
    for round_ in range(3):
        writer = Writer(store.open(P0))
        assert writer.state == LogState()
        assert writer.log.epochs() == []
        assert writer.log.snapshot() is None
        written = writer.many(3 + round_, count=2, epoch=round_, index=True)
        writer.log.save(writer.state, snapshot=(2, b"x"))
        assert read_all(writer.log) == written
        store.drop(P0)
    writer = Writer(any_world.restart().open(P0))
    assert writer.log.read(0, 100, 100) == []
    writer.append(size=500)
    assert len(read_all(writer.log)) == 1


def test_dropping_what_is_not_stored_does_nothing(store):
    store.drop(P1)
    assert store.partitions() == []


# Tables.


def test_a_table_gives_back_what_was_written_in_order(any_world, store):
    table = store.table(b"names")
    table.write([(b"b", b"2"), (b"a", b"1"), (b"a\xff\xff", b"3"), (b"", b"0")])

    def check(each):
        assert each.get(b"a") == b"1"
        assert each.get(b"c") is None
        assert each.scan(b"") == [(b"", b"0"), (b"a", b"1"), (b"a\xff\xff", b"3"), (b"b", b"2")]
        assert each.scan(b"a") == [(b"a", b"1"), (b"a\xff\xff", b"3")]
        assert each.scan(b"a\xff") == [(b"a\xff\xff", b"3")]
        assert each.scan(b"z") == []

    check(table)
    check(any_world.restart().table(b"names"))


def test_a_table_deletes_and_writes_in_one_step(store):
    table = store.table(b"t")
    table.write([(b"a", b"1"), (b"b", b"2")])
    table.write([(b"b", b"3"), (b"c", b"4")], [b"a", b"b", b"nothing"])
    assert table.scan(b"") == [(b"b", b"3"), (b"c", b"4")]


def test_tables_do_not_see_each_other(store):
    names = [b"a", b"ab", b"b", b"\xff", b"\xff" * 255]
    for name in names:
        store.table(name).write([(b"key", name), (b"\xff\xff", b"end")])
    for name in names:
        assert store.table(name).scan(b"") == [(b"key", name), (b"\xff\xff", b"end")]


# The store.


def test_the_disk_has_room(store):
    assert 0 < store.free_bytes() <= store.total_bytes()


def test_a_sync_of_nothing_is_fine(store):
    store.sync()
    store.open(P0)
    store.sync()
    store.sync()
    store.write_watermark(clean=False)
