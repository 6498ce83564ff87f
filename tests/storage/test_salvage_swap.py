"""How a salvaged copy takes the place of the store, and what is kept of the one that was replaced."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from riverrun_server.storage.recovery import Mode
from tests.storage.world import P0, Writer, flip, killed, read_all, wals


def damage(folder):
    older = wals(folder)[0]
    flip(older, older.stat().st_size // 2)


@pytest.fixture
def two_logs(opened, data_dir):
    """A directory after a kill: the first of its two logs, with 30 batches, is damaged half way."""
    store = opened()
    writer, other = Writer(store.open(P0)), store.table(b"other")
    writer.many(30, size=1000)
    store.sync()
    other.write([(b"a", b"b")])
    store._journal.meta.flush()
    writer.many(30, size=1000)
    store.sync()
    store.write_watermark(clean=False)
    folder = killed(data_dir)
    damage(folder)
    return folder


def test_the_logs_of_every_salvage_are_kept(opened, two_logs):
    kept = []
    for round_ in range(3):
        if round_:
            damage(two_logs)
        damaged = [path.read_bytes() for path in wals(two_logs)]
        store = opened(two_logs, seed=round_)
        assert store.recovery.mode is Mode.SALVAGED
        kept.append(damaged)
        for _ in range(2):
            Writer(store.open(P0)).many(10, size=1000)
            store.sync()
            store.table(b"other").write([(b"a", b"b")])
            store._journal.meta.flush()
        Writer(store.open(P0)).many(10, size=1000)
        store.sync()
        shutil.copytree(two_logs, two_logs.with_name(f"round-{round_}"))
        store.close(clean=False)
        two_logs = two_logs.with_name(f"round-{round_}")
    folders = ["store.damaged", "store.damaged.2", "store.damaged.3"]
    assert sorted(path.name for path in two_logs.glob("store.*")) == folders
    for folder, damaged in zip(folders, kept, strict=True):
        assert [log.read_bytes() for log in sorted((two_logs / folder).glob("*.log"))] == damaged
        assert not any((two_logs / folder).glob("*.sst"))


def test_a_salvage_is_on_the_disk_before_it_takes_the_place_of_the_store(
    opened, two_logs, monkeypatch
):
    """What has not been synced when the store is renamed, a power cut would take."""
    synced = set()
    fsync, rename = os.fsync, Path.rename

    def noting(descriptor):
        fsync(descriptor)
        synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def checked(path, to):
        copy = two_logs / "store.salvaged"
        if path == two_logs / "store":
            wanted = {str(file) for file in copy.iterdir()} | {str(copy)}
            assert len(wanted) > 3
            assert wanted <= synced
        synced.discard(str(two_logs))
        return rename(path, to)

    def placed(path, to):
        if path.name == "store.salvaged":
            assert str(two_logs) in synced, "the first rename may come after the second"
        return checked(path, to)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(Path, "rename", placed)
    assert opened(two_logs).recovery.mode is Mode.SALVAGED
    assert str(two_logs) in synced


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_power_cut_between_therenames_of_a_salvage_leaves_a_whole_store(
    opened, two_logs, monkeypatch, renames
):
    rename, made = Path.rename, []

    def die_after(path, to):
        if len(made) == renames:
            raise KeyboardInterrupt
        made.append(path)
        moved = rename(path, to)
        if len(made) == 2:
            raise KeyboardInterrupt
        return moved

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die_after)
        with pytest.raises(KeyboardInterrupt):
            opened(two_logs, seed=1)
    store = opened(two_logs, seed=2)
    assert not store.recovery.intact
    assert 0 < len(read_all(store.open(P0))) < 60
    assert not (two_logs / "store.salvaged").exists()
