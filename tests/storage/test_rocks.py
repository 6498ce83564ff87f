"""What RocksDB and rocksdict do that the store relies on or steers around, pinned one by one."""

from __future__ import annotations

import gc
import inspect
import re
import sys
import threading
from pathlib import Path

import pytest

import riverrun_server.storage as package
from riverrun_server.ports.log import (
    CorruptData,
    StorageError,
    StorageFailed,
    StorageFull,
    StorageStalled,
)
from riverrun_server.storage.options import Tuning, WalRecovery
from riverrun_server.storage.rocks import Access, Batch, Rocks, open_rocks, stored_families
from riverrun_server.storage.rocks_errors import meaning, translated
from tests.storage.world import SMALL, flip

FAMILIES = ["a", "b"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "db"


@pytest.fixture
def opened(path):
    made = []

    def open_one(names=FAMILIES, tuning=SMALL, access=Access()):  # noqa: B008 - frozen
        made.append(open_rocks(path, names, tuning, access))
        return made[-1]

    yield open_one
    for each in made:
        each.close()


@pytest.fixture
def rocks(opened):
    return opened()


@pytest.fixture
def a(rocks):
    return rocks.column("a")


def put(rocks, column, rows):
    write = Batch()
    for key, value in rows:
        write.put(column, key, value)
    rocks.write(write)


def key(at):
    return b"k%06d" % at


def filled(rocks, column, count, size=1000):
    put(rocks, column, [(key(at), bytes([at % 251]) * size) for at in range(count)])


def only_table(rocks):
    (table,) = rocks.files()
    return rocks.path / table.name


# Rows.


def test_keys_and_values_are_bytes_as_given(rocks, a):
    rows = [(b"\x00", b""), (b"\x02\x00", b"\x00"), (b"\xff\xff", b"v")]
    put(rocks, a, rows)
    assert a.scan(b"", b"\xff\xff\xff") == rows
    assert a.get([b"\x00", b"\x01", b"\xff\xff"]) == [b"", None, b"v"]


def test_a_scan_ends_where_it_is_told(rocks, a):
    filled(rocks, a, 10)
    assert [k for k, _ in a.scan(key(3), key(6))] == [key(3), key(4), key(5)]
    assert [k for k, _ in a.scan(key(3), key(9), 2)] == [key(3), key(4)]
    assert a.scan(key(6), key(6)) == []


def test_the_last_row_is_found_backwards_and_not_before_the_beginning(rocks, a):
    put(rocks, a, [(b"b1", b""), (b"b3", b""), (b"d", b"")])
    assert a.last(b"b", b"b2") == (b"b1", b"")
    assert a.last(b"b", b"b3") == (b"b3", b"")
    assert a.last(b"c", b"c9") is None
    assert a.last(b"a", b"a9") is None


def test_a_batch_over_two_families_is_one(rocks):
    a, b = rocks.column("a"), rocks.column("b")
    write = Batch()
    write.put(a, b"k", b"1")
    write.put(b, b"k", b"2")
    write.delete(a, b"none")
    rocks.write(write)
    assert (a.one(b"k"), b.one(b"k")) == (b"1", b"2")


def test_rows_deleted_as_a_range_come_back_only_when_they_are_written_again(rocks, a):
    filled(rocks, a, 10)
    write = Batch()
    write.delete_range(a, key(3), key(7))
    write.put(a, key(5), b"later in the same batch")
    rocks.write(write)
    put(rocks, a, [(key(3), b"again")])
    assert [k for k, _ in a.scan(key(0), key(9))] == [key(n) for n in (0, 1, 2, 3, 5, 7, 8)]


# The interpreter lock.


def ticks_during(work):
    """Count how often another thread runs while this one never gives way on its own."""
    count, stop = [0], threading.Event()

    def tick():
        while not stop.is_set():
            count[0] += 1
            stop.wait(0.0001)

    thread = threading.Thread(target=tick)
    before = sys.getswitchinterval()
    thread.start()
    try:
        sys.setswitchinterval(30)
        first = count[0]
        work()
        return count[0] - first
    finally:
        sys.setswitchinterval(before)
        stop.set()
        thread.join()


def test_others_run_during_lookups_flushes_syncs_and_compactions(rocks, a):
    filled(rocks, a, 500)
    assert ticks_during(lambda: [a.one(key(at % 500)) for at in range(5000)]) > 5
    assert ticks_during(a.flush) > 0
    filled(rocks, a, 500)
    a.flush()
    assert ticks_during(lambda: a.compact(key(0), key(500), rewrite=True)) > 0
    filled(rocks, a, 10)
    assert ticks_during(rocks.sync) >= 0


# Damage.


def test_a_flipped_bit_in_a_table_is_never_served_and_never_skipped(rocks, a):
    filled(rocks, a, 1000)
    a.flush()
    table = only_table(rocks)
    flip(table, table.stat().st_size // 2)
    with pytest.raises(CorruptData, match="checksum mismatch"):
        a.scan(key(0), key(9999))
    readable = damaged = 0
    for at in range(1000):
        try:
            assert a.one(key(at)) == bytes([at % 251]) * 1000
            readable += 1
        except CorruptData:
            damaged += 1
            with pytest.raises(CorruptData):
                a.last(b"", key(at))
    assert readable > 900
    assert damaged > 0


def test_compaction_tells_nobody_of_damage_but_stops_every_write(rocks, a):
    """So whatever is compacted on our own account is read before."""
    filled(rocks, a, 1000)
    a.flush()
    table = only_table(rocks)
    flip(table, table.stat().st_size // 2)
    a.compact(key(0), key(9999), rewrite=True)
    with pytest.raises(StorageFailed, match="checksum mismatch"):
        put(rocks, rocks.column("b"), [(b"k", b"v")])


def test_a_store_that_stopped_can_be_closed_and_opened_again(rocks, a, opened):
    test_compaction_tells_nobody_of_damage_but_stops_every_write(rocks, a)
    rocks.close()
    again = opened()
    put(again, again.column("b"), [(b"k", b"v")])


# Closing.


def test_a_directory_can_be_opened_right_after_it_was_closed(opened):
    for round_ in range(5):
        rocks = opened()
        column = rocks.column("a")
        filled(rocks, column, 10)
        column.scan(b"", b"z")
        column.last(b"", b"z")
        rocks.close()
        rocks.close()
        assert round_ >= 0


def test_an_error_that_somebody_keeps_does_not_keep_the_store_open(opened):
    rocks = opened()
    column = rocks.column("a")
    filled(rocks, column, 1000)
    column.flush()
    table = only_table(rocks)
    flip(table, table.stat().st_size // 2)
    kept = []
    for look in (lambda: column.scan(b"", b"z"), lambda: [column.one(key(n)) for n in range(1000)]):
        with pytest.raises(CorruptData) as raised:
            look()
        kept.append(raised.value)
    rocks.close()
    opened()
    assert kept


def test_closing_waits_for_who_reads(rocks):
    entered, closed = threading.Event(), threading.Event()

    def close():
        entered.wait(10)
        rocks.close()
        closed.set()

    thread = threading.Thread(target=close)
    thread.start()
    with rocks.reading():
        entered.set()
        assert not closed.wait(0.05)
    thread.join(10)
    assert closed.is_set()


def test_a_closed_store_refuses(rocks, a):
    rocks.close()
    for use in (
        lambda: a.one(b"k"),
        lambda: a.scan(b"", b"z"),
        lambda: a.last(b"", b"z"),
        a.flush,
        rocks.sync,
        rocks.files,
        lambda: rocks.write(Batch()),
    ):
        with pytest.raises(StorageFailed, match="closed"):
            use()


def test_a_second_opening_is_refused(rocks, opened):
    with pytest.raises(StorageError, match="lock"):
        opened()
    assert rocks.files() == []


# Families and options.


def test_families_that_are_not_asked_for_are_an_error_so_all_are_listed(path, opened):
    opened(["a", "b", "c"]).close()
    assert sorted(stored_families(path)) == ["a", "b", "c"]
    with pytest.raises(StorageError, match="Column families not opened"):
        opened(["a"])
    assert [each.name for each in opened(["a", "b", "c", "d"]).columns()] == ["a", "b", "c", "d"]


def stored_options(path):
    newest = max(path.glob("OPTIONS-*"))
    sections = re.split(r"^\[", newest.read_text(), flags=re.MULTILINE)
    found = {}
    for section in sections[1:]:
        name, _, body = section.partition("]")
        found[name] = dict(re.findall(r"^  (\w+)=(.*)$", body, flags=re.MULTILINE))
    return found


def test_every_option_is_taken_as_it_is_written_also_by_an_existing_store(path, opened):
    opened(tuning=Tuning(memtable_each_bytes=1 << 20)).close()
    opened(tuning=Tuning(memtable_bytes=40 << 20, memtable_each_bytes=5 << 20))
    found = stored_options(path)
    database = found["DBOptions"]
    assert database["track_and_verify_wals_in_manifest"] == "true"
    assert database["wal_recovery_mode"] == "kPointInTimeRecovery"
    assert database["max_total_wal_size"] == str(20 << 20)
    assert database["paranoid_checks"] == "true"
    assert database["stats_dump_period_sec"] == database["stats_persist_period_sec"] == "0"
    assert database["max_background_flushes"] == "4"
    assert database["recycle_log_file_num"] == "0"
    for name in FAMILIES:
        family = found[f'CFOptions "{name}"']
        assert family["write_buffer_size"] == str(5 << 20)
        assert family["ttl"] == "0"
        assert family["compression"] == "kNoCompression"
        assert family["compaction_style"] == "kCompactionStyleLevel"
        assert family["soft_pending_compaction_bytes_limit"] == "0"
        assert found[f'TableOptions/BlockBasedTable "{name}"']["block_size"] == "32768"


def test_nothing_is_left_beside_the_database(path, rocks):
    assert rocks.files() == []
    assert [each.name for each in path.parent.iterdir()] == ["db"]


def test_reading_only_changes_nothing_on_the_disk(path, opened):
    rocks = opened()
    filled(rocks, rocks.column("a"), 100)
    rocks.sync()

    def files():
        # rocksdict writes its own little file again whenever it opens, with the same content.
        return {
            each.name: each.stat().st_mtime_ns
            for each in path.iterdir()
            if each.name != "rocksdict-config.json"
        }

    before = files()
    for wal in WalRecovery:
        reader = opened(access=Access(wal, read_only=True))
        assert len(reader.column("a").scan(b"", b"z")) == 100
        reader.close()
    assert files() == before


def test_a_database_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StorageError):
        stored_families(tmp_path / "nothing")


# Bounds.


def test_a_stalled_write_is_refused_at_once_and_nothing_of_it_is_written(opened):
    slow = Tuning(memtable_bytes=4 << 20, memtable_each_bytes=1 << 20, flush_bytes_per_s=2 << 20)
    rocks = opened(tuning=slow)
    column = rocks.column("a")
    refused = []
    for at in range(400):
        try:
            put(rocks, column, [(key(at), b"x" * 60_000), (key(at) + b"+", b"x")])
        except StorageStalled:
            refused.append(at)
            if len(refused) == 20:
                break
    assert refused
    for at in range(refused[-1] + 1):
        there = at not in refused
        assert [each is not None for each in column.get([key(at), key(at) + b"+"])] == [there] * 2
    assert rocks.memtable_bytes() < 8 << 20


def test_memory_is_bounded_over_all_families(opened):
    names = [f"f{at}" for at in range(8)]
    slow = Tuning(memtable_bytes=4 << 20, memtable_each_bytes=4 << 20, flush_bytes_per_s=4 << 20)
    rocks = opened(names, slow)
    for at in range(300):
        try:
            put(rocks, rocks.column(names[at % 8]), [(key(at), b"x" * 60_000)])
        except StorageStalled:
            break
    assert rocks.memtable_bytes() < 6 << 20


def test_counters_are_exact(rocks, a):
    before = rocks.counters()
    filled(rocks, a, 100, size=10_000)
    after = rocks.counters()
    assert 1_000_000 < after["rocksdb.wal.bytes"] - before["rocksdb.wal.bytes"] < 1_010_000
    a.flush()
    assert 1_000_000 < rocks.counters()["rocksdb.flush.write.bytes"] < 1_020_000


# Deletes in a table of their own.


def test_ingested_deletes_are_there_after_a_crash_without_a_sync(rocks, a, tmp_path):
    filled(rocks, a, 10)
    a.flush()
    a.ingest_deletes([key(2), key(5)], tmp_path / "deletes.sst")
    assert not (tmp_path / "deletes.sst").exists()
    put(rocks, a, [(key(5), b"newer")])
    assert [k for k, _ in a.scan(b"", b"z")] == [key(n) for n in (0, 1, 3, 4, 5, 6, 7, 8, 9)]


def test_ingested_deletes_wait_for_nothing_that_is_in_memory(rocks, a, tmp_path):
    filled(rocks, a, 10)
    a.flush()
    put(rocks, a, [(key(99), b"in memory")])
    a.ingest_deletes([key(2)], tmp_path / "deletes.sst")
    assert a.is_dirty


# Errors.


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Result incomplete: Write stall", StorageStalled),
        ("IO error: No space left on device: While appending to file", StorageFull),
        ("IO error: Disk quota exceeded: x", StorageFull),
        ("Corruption: block checksum mismatch", CorruptData),
        ("IO error: Input/output error", StorageError),
        ("Invalid argument: whatever", StorageError),
    ],
)
def test_texts_mean(text, kind):
    told = meaning(Exception(text), "writing")
    assert type(told) is kind
    assert text in str(told)
    assert str(told).startswith("writing: ")


def test_our_own_mistakes_are_not_taken_for_the_disks():
    with pytest.raises(AssertionError), translated("testing"):
        raise AssertionError
    with pytest.raises(StorageFull), translated("testing"):
        raise OSError(28, "No space left on device")


def test_what_rocksdict_gets_wrong_is_not_used():
    """Bounds of iterators dangle, the other iterators hide damage, snapshots are ignored."""
    folder = Path(package.__file__).parent
    source = (folder / "columns.py").read_text() + (folder / "rocks.py").read_text()
    for name in (
        "set_iterate_",
        "_open.items(",
        "_open.keys(",
        "_open.values(",
        ".snapshot(",
        "seek_to_first",
        "seek_to_last",
        "disable_wal",
    ):
        assert name not in source, name
    # Slow, and quadratic where many are made: for repairs alone.
    renewing = inspect.getsource(Rocks.renew)
    for name in ("create_column_family", "drop_column_family"):
        assert source.count(name) == renewing.count(name) == 1, name


def test_nothing_that_rocksdict_made_is_left_after_closing(opened):
    rocks = opened()
    filled(rocks, rocks.column("a"), 10)
    rocks.close()
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each).__name__ == "RdictIter"]
