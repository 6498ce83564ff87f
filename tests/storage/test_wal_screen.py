"""Damage to a log that RocksDB itself would read for ever, or pass without a word.

A start that hangs holds the interpreter's lock, so no timeout within the process ends it: stores are
opened in another one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from riverrun_server.ports.log import StorageError
from riverrun_server.storage.recovery import _REHEARSAL, _claim
from riverrun_server.storage.rocks import stored_families
from riverrun_server.storage.wal_reader import HEADER, _content, _fragments
from riverrun_server.storage.wal_screen import screen
from tests.storage.world import P0, SMALL, Writer, killed, open_small, read_all, wals

_TIMEOUT_S = 100
_BLOCK = 32768


def apart(*arguments):
    """Run this file in a process of its own; return what it found."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.storage.test_wal_screen", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _open(folder):
    try:
        store = open_small(folder)
    except StorageError as error:
        return {"refused": str(error)}
    try:
        offsets = [each.base_offset for each in read_all(store.open(P0))]
        return {"loss": store.recovery.loss, "offsets": offsets}
    finally:
        store.close(clean=False)


def _replayed(store, log, at):
    """Return how many writes are kept for each of the 256 types at a place of a log."""
    found, whole = [], log.read_bytes()
    families = stored_families(store)
    for kind in range(256):
        content = bytearray(whole)
        content[at] = kind
        log.write_bytes(content)
        screen(store)
        found.append(_claim(store, families, SMALL, _REHEARSAL)[0])
    return found


@pytest.fixture
def written(opened, data_dir):
    """A killed store of 40 synced batches and 20 that were not, in blocks of about 30."""
    store = opened(slots=1)
    writer = Writer(store.open(P0))
    for _ in range(40):
        writer.append(size=1000)
        store.sync()
    store.write_watermark(clean=False)
    writer.many(20, size=1000)
    return killed(data_dir)


def headers(log):
    return [each.begin for each in _fragments(_content(log))]


def mark(path, at, kind):
    with path.open("r+b") as file:
        file.seek(at + HEADER.size - 1)
        file.write(bytes([kind]))


def zero(path, begin, end):
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(bytes(end - begin))


def test_no_type_of_a_fragment_keeps_a_store_from_opening(written):
    (log,) = wals(written)
    at = headers(log)[20] + HEADER.size - 1
    kept = apart("--kinds", written / "store", at)
    everything = kept.pop(1)
    assert everything > 60
    assert set(kept) == {20}


@pytest.mark.parametrize("kind", [5, 6, 11])
def test_such_a_type_in_what_was_synced_is_a_loss(written, kind):
    (log,) = wals(written)
    mark(log, headers(log)[20], kind)
    found = apart(written)
    assert found["loss"]
    assert found["offsets"] == list(range(len(found["offsets"])))
    assert 15 <= len(found["offsets"]) <= 20


def test_such_a_type_in_a_tail_that_nothing_was_promised_about_is_none(written):
    (log,) = wals(written)
    mark(log, headers(log)[-3], 5)
    found = apart(written)
    assert found["loss"] is None
    assert found["offsets"] == list(range(57))


def test_such_a_type_in_the_manifest_is_told(written):
    (manifest,) = (written / "store").glob("MANIFEST-*")
    mark(manifest, headers(manifest)[1], 5)
    found = apart(written)
    assert "restore it from a backup" in found["refused"]


def test_zeroes_that_begin_with_a_write_leave_no_hole_before_the_next_log(opened, data_dir):
    store = opened(slots=1)
    writer = Writer(store.open(P0))
    writer.many(20, size=1000)
    store.sync()
    store._journal.meta.flush()  # a new log begins
    writer.many(20, size=1000)
    store.sync()
    store.write_watermark(clean=False)
    folder = killed(data_dir)
    older, _ = wals(folder)
    zero(older, headers(older)[-5], older.stat().st_size)
    found = apart(folder)
    assert found["loss"]
    assert found["offsets"] == list(range(len(found["offsets"])))
    assert 10 <= len(found["offsets"]) < 20


def test_zeroes_over_the_writes_at_the_end_of_a_block_leave_no_hole(opened, data_dir):
    store = opened(slots=1)
    writer = Writer(store.open(P0))
    writer.many(3, size=1000)
    (log,) = wals(data_dir)
    beginnings = headers(log)
    overhead = beginnings[-1] - beginnings[-2] - 1000
    while (left := _BLOCK - log.stat().st_size % _BLOCK) > 3000:
        writer.append(size=1000)
    writer.append(size=left - overhead)
    assert log.stat().st_size % _BLOCK == 0
    writer.many(20, size=1000)
    store.sync()
    store.write_watermark(clean=False)
    folder = killed(data_dir)
    (log,) = wals(folder)
    last_ones = [at for at in headers(log) if at < _BLOCK][-4]
    zero(log, last_ones, _BLOCK)
    found = apart(folder)
    assert found["loss"]
    assert found["offsets"] == list(range(len(found["offsets"])))
    assert len(found["offsets"]) < 30


def test_a_log_that_is_whole_or_torn_as_a_power_cut_does_is_left_as_it_is(written, tmp_path):
    (log,) = wals(written)
    whole, size = log.read_bytes(), log.stat().st_size
    beginnings = headers(log)
    for content in (
        whole,
        whole[: beginnings[-3] + 100],
        whole[: beginnings[-3]] + bytes(3 * _BLOCK),
        whole[: beginnings[-3] + 200] + bytes(size - beginnings[-3]),
        whole[: beginnings[-3] + 200] + os.urandom(100),
        b"",
    ):
        log.write_bytes(content)
        screen(written / "store")
        assert log.read_bytes() == content


def test_where_rocksdb_does_not_come_nothing_is_marked(written):
    """Behind a wrong checksum it leaves the block; there may stand what says that it was synced."""
    (log,) = wals(written)
    beginnings = headers(log)
    mark(log, beginnings[20], 5)
    with log.open("r+b") as file:
        file.seek(beginnings[18] + 100)
        file.write(b"damaged")
    content = log.read_bytes()
    screen(written / "store")
    assert log.read_bytes() == content


if __name__ == "__main__":
    if sys.argv[1] == "--kinds":
        store = Path(sys.argv[2])
        print(json.dumps(_replayed(store, wals(store.parent)[-1], int(sys.argv[3]))))  # noqa: T201
    else:
        print(json.dumps(_open(Path(sys.argv[1]))))  # noqa: T201
