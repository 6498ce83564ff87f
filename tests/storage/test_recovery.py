"""What is left after a kill, a power cut and a disk that lies, and whether the store knows it.

A kill is a copy of the directory of a live store. A power cut is that copy with damage behind what
had been synced; a lying disk is damage before it.
"""

from __future__ import annotations

import os
import shutil

import pytest

from riverrun_server.ports.log import StorageFailed
from riverrun_server.storage import keys
from riverrun_server.storage.recovery import Mode
from riverrun_server.storage.rocks import Batch
from riverrun_server.storage.salvage import cut_log
from tests.storage.world import P0, P1, Writer, flip, killed, read_all, scan, tables, wals


def wal_size(folder):
    (wal,) = wals(folder)
    return wal.stat().st_size


@pytest.fixture
def crashed(opened, data_dir):
    """A directory after a kill: 40 batches synced, each with a claim on those before; 20 not."""

    class Crashed:
        store = opened()
        identity = store.identity
        writer = Writer(store.open(P0))

        def __init__(self):
            for _ in range(40):
                self.writer.append(size=1000)
                self.store.sync()
            self.store.write_watermark(clean=False)
            self.synced = wal_size(data_dir)
            self.writer.many(20, size=1000)
            self.written = wal_size(data_dir)
            self.folder = killed(data_dir)

        @property
        def wal(self):
            return wals(self.folder)[-1]

    return Crashed()


def check_prefix(log, at_least, at_most):
    """Check that a log is a prefix of what was written and return its length."""
    found = read_all(log)
    assert at_least <= len(found) <= at_most
    assert [each.base_offset for each in found] == list(range(len(found)))
    for each in found:
        scan(log.partition, each.data)
    assert log.state.log_end_offset == len(found)
    return len(found)


def test_a_clean_stop_keeps_both_incarnations(opened, data_dir):
    store = opened()
    Writer(store.open(P0)).many(3)
    store.close(clean=True)
    again = opened()
    assert again.recovery.mode is Mode.CLEAN
    assert again.recovery.intact
    assert again.recovery.clean_shutdown
    assert again.identity == store.identity
    assert len(read_all(again.open(P0))) == 3


def test_a_clean_stop_leaves_nothing_to_replay(opened, data_dir):
    store = opened()
    Writer(store.open(P0)).many(30, size=1000)
    store.close(clean=True)
    for wal in wals(data_dir):
        wal.unlink()
    again = opened()
    # RocksDB still misses the log, but everything is in tables; a salvage makes writes of its own.
    assert again.recovery.written >= again.recovery.expected
    check_prefix(again.open(P0), 30, 30)


def test_a_kill_loses_nothing_not_even_what_was_not_synced(opened, crashed):
    store = opened(crashed.folder)
    assert store.recovery.mode is Mode.REPLAYED
    assert store.recovery.intact
    assert not store.recovery.clean_shutdown
    check_prefix(store.open(P0), 60, 60)


def test_after_a_kill_the_fsync_incarnation_stays_and_the_relaxed_one_is_new(opened, crashed):
    store = opened(crashed.folder, seed=1)
    assert store.identity.fsync == crashed.identity.fsync
    assert store.identity.relaxed != crashed.identity.relaxed


def test_opening_turns_the_log_into_tables_so_what_is_found_is_on_the_disk(opened, crashed):
    store = opened(crashed.folder)
    assert tables(crashed.folder)
    for wal in wals(crashed.folder):
        wal.unlink()
    copy = killed(crashed.folder, "again")
    check_prefix(opened(copy).open(P0), 60, 60)
    assert store.metrics().unsynced_writes == 0


def damage_cut(path, begin, end):
    os.truncate(path, begin)


def damage_torn(path, begin, end):
    os.truncate(path, end - 50)


def damage_zeros(path, begin, end):
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(bytes(end - begin))


def damage_flip(path, begin, end):
    flip(path, (begin + end) // 2)


def damage_noise(path, begin, end):
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(os.urandom(end - begin))


DAMAGE = [damage_cut, damage_torn, damage_zeros, damage_flip, damage_noise]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_behind_what_was_synced_proves_no_loss(opened, crashed, damage):
    damage(crashed.wal, crashed.synced, crashed.written)
    store = opened(crashed.folder, seed=1)
    assert store.recovery.intact, store.recovery.loss
    assert store.identity.fsync == crashed.identity.fsync
    check_prefix(store.open(P0), 40, 59)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_what_was_synced_is_a_loss(opened, crashed, damage):
    os.truncate(crashed.wal, crashed.synced)
    damage(crashed.wal, crashed.synced // 2, crashed.synced)
    store = opened(crashed.folder, seed=1)
    assert not store.recovery.intact
    assert store.identity.fsync != crashed.identity.fsync
    assert store.identity.relaxed != crashed.identity.relaxed
    check_prefix(store.open(P0), 10, 39)


def test_a_loss_is_known_from_what_later_writes_had_been_promised(opened, crashed):
    """The watermark is older than the damage: only the claims behind the damage tell."""
    first = opened(crashed.folder.with_name("fresh"))
    first.close(clean=False)
    shutil.copy(crashed.folder.with_name("fresh") / "watermark", crashed.folder / "watermark")
    shutil.copy(
        crashed.folder.with_name("fresh") / "identity.json", crashed.folder / "identity.json"
    )
    flip(crashed.wal, crashed.synced // 2)
    store = opened(crashed.folder)
    assert store.recovery.expected < store.recovery.written
    assert "had been synced" in store.recovery.loss


def test_a_loss_is_told_once_and_the_next_stop_is_an_ordinary_one(opened, crashed):
    flip(crashed.wal, crashed.synced // 2)
    store = opened(crashed.folder, seed=1)
    writer = Writer(store.open(P0))
    length = len(read_all(writer.log))
    writer.append()
    store.sync()
    again = opened(killed(crashed.folder, "again"), seed=2)
    assert again.recovery.intact, again.recovery.loss
    assert again.identity.fsync == store.identity.fsync
    check_prefix(again.open(P0), length + 1, length + 1)


@pytest.mark.parametrize("clean", [True, False])
def test_a_loss_is_told_once_though_nothing_was_written_since(opened, crashed, clean):
    flip(crashed.wal, crashed.synced // 2)
    store = opened(crashed.folder, seed=1)
    assert not store.recovery.intact
    store.close(clean=clean)
    again = opened(crashed.folder, seed=2)
    assert again.recovery.intact, again.recovery.loss
    assert again.identity.fsync == store.identity.fsync


def test_after_a_loss_a_power_cut_is_judged_by_what_was_written_since(opened, crashed):
    flip(crashed.wal, crashed.synced // 2)
    store = opened(crashed.folder, seed=1)
    begin = wals(crashed.folder)[-1].stat().st_size
    Writer(store.open(P0)).many(10, size=1000)
    folder = killed(crashed.folder, "again")
    flip(wals(folder)[-1], begin + 2500)
    again = opened(folder, seed=2)
    assert again.recovery.intact, again.recovery.loss


def test_a_verdict_survives_a_crash_right_behind_it(opened, crashed, monkeypatch):
    flip(crashed.wal, crashed.synced // 2)

    def die(*_args, **_how):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("riverrun_server.storage.rocks_store.RocksStore.begin", die)
        with pytest.raises(KeyboardInterrupt):
            opened(crashed.folder, seed=1)
    store = opened(crashed.folder, seed=2)
    assert not store.recovery.intact
    assert store.identity.fsync != crashed.identity.fsync


def test_a_missing_newest_log_is_a_loss(opened, crashed):
    crashed.wal.unlink()
    store = opened(crashed.folder)
    assert not store.recovery.intact
    assert "are left" in store.recovery.loss


def test_a_missing_log_is_a_loss_though_rocksdb_counts_all_writes(opened, data_dir):
    """Another family has been flushed since: RocksDB's manifest knows the newest number."""
    store = opened()
    Writer(store.open(P0)).many(30, size=1000)
    store.sync()
    store._journal.index.flush()
    store.write_watermark(clean=False)
    folder = killed(data_dir)
    for wal in wals(folder):
        wal.unlink()
    again = opened(folder, seed=1)
    assert not again.recovery.intact
    assert again.recovery.mode is Mode.SALVAGED
    check_prefix(again.open(P0), 0, 0)


@pytest.fixture
def two_logs(opened, data_dir):
    """Two write-ahead logs: P0 and P1 have 30 batches in the first and 30 in the second."""
    store = opened()
    writers = [Writer(store.open(P0)), Writer(store.open(P1))]
    other = store.table(b"other")

    def write():
        for _ in range(30):
            for writer in writers:
                writer.append(size=1000, count=2, index=writer.state.log_end_offset % 20 == 0)
        for writer in writers:
            writer.commit()
        store.sync()

    write()
    other.write([(b"a", b"b")])
    store._journal.meta.flush()
    write()
    store.write_watermark(clean=False)
    return killed(data_dir)


def check_salvaged(log, at_most):
    found = read_all(log)
    assert 0 < len(found) < at_most
    assert [each.base_offset for each in found] == [2 * at for at in range(len(found))]
    assert log.state.log_end_offset == found[-1].next_offset
    assert log.state.high_watermark <= log.state.log_end_offset
    assert log.state.appended_bytes == sum(len(each.data) for each in found)
    rows = log.index_rows(0, 99)
    assert [row.base_offset for row in rows] == list(range(0, log.state.log_end_offset, 20))
    sizes = {0: 0}
    for each in found:
        sizes[each.next_offset] = sizes[each.base_offset] + len(each.data)
    assert [row.bytes_before for row in rows] == [sizes[row.base_offset] for row in rows]
    assert log.state.indexed_bytes == rows[-1].bytes_before
    assert log.state.indexed_append_time_ms == rows[-1].append_time_ms


def test_damage_in_an_older_log_leaves_the_prefix_of_each_partition(opened, two_logs):
    older, newer = wals(two_logs)
    assert newer.stat().st_size > 10_000
    flip(older, older.stat().st_size // 2)
    store = opened(two_logs, seed=1)
    assert store.recovery.mode is Mode.SALVAGED
    assert not store.recovery.intact
    for partition in (P0, P1):
        log = store.open(partition)
        check_salvaged(log, 40)
        assert store.recovery.cuts[partition] == log.state.log_end_offset
        Writer(log).append()


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_an_older_log_that_is_missing_or_short_is_noticed(opened, two_logs, damage):
    older, _ = wals(two_logs)
    if damage == "missing":
        older.unlink()
    else:
        os.truncate(older, older.stat().st_size // 2)
    store = opened(two_logs, seed=1)
    assert store.recovery.mode is Mode.SALVAGED
    assert not store.recovery.intact
    length = len(read_all(store.open(P0)))
    assert length == 0 if damage == "missing" else 0 < length < 30


def test_a_salvage_that_was_interrupted_begins_again(opened, two_logs, monkeypatch):
    older, _ = wals(two_logs)
    flip(older, older.stat().st_size // 2)
    for stage in ("cut_log", "swap"):
        with monkeypatch.context() as patch:

            def die(*_args, **_how):
                raise KeyboardInterrupt

            patch.setattr(f"riverrun_server.storage.salvage.{stage}", die)
            with pytest.raises(KeyboardInterrupt):
                opened(two_logs, seed=1)
    store = opened(two_logs, seed=2)
    assert store.recovery.mode is Mode.SALVAGED
    check_salvaged(store.open(P0), 40)
    assert not (two_logs / "store.salvaged").exists()


def test_a_salvage_whose_store_had_been_moved_away_is_completed(opened, two_logs, monkeypatch):
    older, _ = wals(two_logs)
    flip(older, older.stat().st_size // 2)

    def half(store, _copy):
        store.rename(store.with_name("store.damaged"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("riverrun_server.storage.salvage.swap", half)
        with pytest.raises(KeyboardInterrupt):
            opened(two_logs, seed=1)
    store = opened(two_logs, seed=2)
    assert not store.recovery.intact
    check_salvaged(store.open(P0), 40)


def test_the_damaged_logs_are_kept_after_a_salvage_and_the_tables_are_not(opened, two_logs):
    older, _ = wals(two_logs)
    flip(older, older.stat().st_size // 2)
    opened(two_logs)
    kept = {path.suffix for path in (two_logs / "store.damaged").iterdir()}
    assert ".log" in kept
    assert ".sst" not in kept


def test_a_log_torn_between_two_logs_leaves_no_hole(opened, data_dir):
    """The older log lost its unsynced end, the newer one is whole: what it holds must go too."""
    store = opened()
    writer = Writer(store.open(P0))
    writer.many(10, size=1000)
    store.sync()
    store.write_watermark(clean=False)
    synced = wal_size(data_dir)
    writer.many(10, size=1000)
    folder = killed(data_dir)
    store._journal.meta.flush()  # a new log begins
    writer.many(10, size=1000)
    older, newer = wals(data_dir)
    # As if the power had gone before RocksDB synced the older log: its manifest knows of one log.
    shutil.copy(newer, folder / "store" / newer.name)
    os.truncate(folder / "store" / older.name, synced + 3000)
    again = opened(folder)
    assert again.recovery.intact, again.recovery.loss
    check_prefix(again.open(P0), 10, 19)


# What is beyond repair, and what only looks like it.


def test_a_store_without_its_watermark_is_not_trusted(opened, crashed):
    (crashed.folder / "watermark").unlink()
    store = opened(crashed.folder, seed=1)
    assert "watermark is missing" in store.recovery.loss
    assert store.identity.fsync != crashed.identity.fsync
    check_prefix(store.open(P0), 60, 60)


def test_a_damaged_watermark_is_not_trusted(opened, crashed):
    flip(crashed.folder / "watermark", 10)
    assert "watermark is damaged" in opened(crashed.folder).recovery.loss


def test_an_older_copy_of_the_store_is_not_trusted(opened, data_dir):
    store = opened()
    writer = Writer(store.open(P0))
    writer.many(3)
    store.sync()
    backup = killed(data_dir, "backup")
    writer.many(3)
    store.close(clean=True)
    shutil.rmtree(data_dir / "store")
    shutil.copytree(backup / "store", data_dir / "store")
    again = opened(seed=1)
    assert not again.recovery.intact
    assert again.identity.fsync != store.identity.fsync


def test_a_store_that_is_gone_is_a_loss(opened, crashed):
    shutil.rmtree(crashed.folder / "store")
    store = opened(crashed.folder, seed=1)
    assert "is empty" in store.recovery.loss
    assert store.partitions() == []


def test_a_half_made_directory_begins_anew(opened, data_dir):
    opened().close(clean=False)
    shutil.rmtree(data_dir / "store")
    (data_dir / "identity.json").unlink()
    store = opened(seed=1)
    assert store.recovery.mode is Mode.CREATED
    assert store.recovery.intact


@pytest.mark.parametrize("gone", ["CURRENT", "MANIFEST"])
def test_a_store_that_cannot_be_opened_says_so_and_is_left_alone(opened, crashed, gone):
    for file in (crashed.folder / "store").glob(f"{gone}*"):
        file.unlink()
    before = sorted((crashed.folder / "store").iterdir())
    identity = (crashed.folder / "identity.json").read_bytes()
    with pytest.raises(StorageFailed, match="backup"):
        opened(crashed.folder, seed=1)
    assert sorted((crashed.folder / "store").iterdir()) == before
    assert (crashed.folder / "identity.json").read_bytes() == identity


def test_a_missing_table_is_not_opened_over(opened, data_dir):
    store = opened()
    Writer(store.open(P0)).many(3)
    store.close()
    for table in tables(data_dir):
        table.unlink()
    with pytest.raises(StorageFailed, match="backup"):
        opened()


def test_an_unreadable_state_is_damage_of_its_partition_alone(opened, data_dir):
    store = opened()
    for partition in (P0, P1):
        Writer(store.open(partition)).append()
    write = Batch()
    write.put(store._journal.index, keys.state(keys.prefix(P0)), b"\x02from the future")
    store._journal.commit(write)
    store.close()
    again = opened()
    assert "version 2" in again.open(P0).damage
    assert again.open(P1).damage is None
    assert len(read_all(again.open(P1))) == 1


# Damage that RocksDB itself cannot skip: a record of several fragments with more of them behind it.


@pytest.fixture
def crashed_with_large_batches(opened, data_dir):
    """A directory after a kill: 6 large batches synced, 6 not, each larger than a block of the log."""
    store = opened()
    writer = Writer(store.open(P0))
    for _ in range(6):
        writer.append(size=100_000)
        store.sync()
    store.write_watermark(clean=False)
    synced = wal_size(data_dir)
    writer.many(6, size=100_000)
    return killed(data_dir), synced


def test_a_large_batch_torn_in_its_middle_proves_no_loss(opened, crashed_with_large_batches):
    folder, synced = crashed_with_large_batches
    damage_zeros(wals(folder)[-1], synced + 50_000, synced + 54_096)
    store = opened(folder)
    assert store.recovery.intact, store.recovery.loss
    check_prefix(store.open(P0), 6, 6)


def test_damage_to_a_large_batch_that_was_synced_is_a_loss(opened, crashed_with_large_batches):
    folder, synced = crashed_with_large_batches
    flip(wals(folder)[-1], synced // 2)
    store = opened(folder, seed=1)
    assert "had been synced" in store.recovery.loss
    check_prefix(store.open(P0), 2, 3)


def test_damage_to_a_large_batch_in_an_older_log_leaves_what_stands_before_it(opened, data_dir):
    store = opened()
    writer, other = Writer(store.open(P0)), store.table(b"other")
    writer.many(6, size=100_000)
    store.sync()
    other.write([(b"a", b"b")])
    store._journal.meta.flush()
    writer.many(6, size=100_000)
    store.sync()
    store.write_watermark(clean=False)
    folder = killed(data_dir)
    older, _ = wals(folder)
    flip(older, older.stat().st_size // 2)
    again = opened(folder, seed=1)
    assert again.recovery.mode is Mode.SALVAGED
    assert not again.recovery.intact
    check_prefix(again.open(P0), 2, 3)


# What a salvage makes of a store whose families have lost different parts.


@pytest.fixture
def ahead(opened, data_dir):
    """A directory after a kill: the batches of P0 are in tables, its other rows in a log that is gone.

    Its state says less than its tables hold, and of its epochs the second is lost.
    """
    store = opened()
    writer = Writer(store.open(P0))
    writer.append(count=5, epoch=1)
    store.sync()
    store._journal.index.flush()
    store._journal.meta.flush()
    writer.append(count=5, epoch=2, leader_epoch=2)
    writer.append(count=5, leader_epoch=2)
    writer.log._slot.flush()
    store.sync()
    store.write_watermark(clean=False)
    return killed(data_dir)


def without_logs(folder, but=0):
    for wal in wals(folder)[: len(wals(folder)) - but]:
        wal.unlink()


def test_batches_behind_the_state_that_is_left_never_show_from_within_newer_ones(opened, ahead):
    without_logs(ahead)
    store = opened(ahead, seed=1)
    assert store.recovery.mode is Mode.SALVAGED
    writer = Writer(store.open(P0))
    check_length = writer.state.log_end_offset
    assert check_length == 5
    new = writer.append(count=9)
    writer.append(count=9)
    (found,) = writer.log.read(12, 14, 1)
    assert (found.base_offset, found.data) == (5, new.data)


def test_epochs_that_are_lost_are_read_from_the_batches(opened, ahead, data_dir):
    # A newer log has the state as it was at last, and no epochs.
    store = opened(killed(ahead, "with-all"))
    expected = store.open(P0).epochs()
    state = store.open(P0).state
    assert [tuple(entry) for entry in expected] == [(1, 0), (2, 5)]
    write = Batch()
    write.delete_range(store._journal.index, *keys.epochs(keys.prefix(P0)))
    store._journal.commit(write)
    log = store.open(P0)
    assert log.epochs() == []
    assert not cut_log(log)
    assert log.epochs() == expected
    assert log.state == state
