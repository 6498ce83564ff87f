"""What our own reader finds in write-ahead logs that are damaged."""

from __future__ import annotations

import os
import shutil

import pytest

from riverrun_server.storage import recovery
from riverrun_server.storage.wal_reader import (
    HEADER,
    _content,
    _fragments,
    cut_at_damage,
    ends_with,
    newest_claim,
)
from tests.storage.world import P0, Writer, flip, killed, read_all, wals


@pytest.fixture
def written(opened, data_dir):
    """A killed store of 42 writes; of the last two nothing was promised but up to the 40th."""
    store = opened(slots=1)
    writer = Writer(store.open(P0))
    writer.many(38, size=200)
    store.sync()
    first = store._journal.written
    writer.many(2, size=200)
    assert store._journal.written == first + 2
    return killed(data_dir)


def last(folder):
    return newest_claim(folder / "store")


def headers(log):
    return [each.begin for each in _fragments(_content(log))]


@pytest.mark.parametrize(
    "byte", [4, 5, HEADER.size - 1], ids=["length", "more of the length", "type"]
)
def test_what_stands_behind_a_damaged_header_in_its_block_is_found(written, byte):
    whole = last(written)
    (log,) = wals(written)
    flip(log, headers(log)[-2] + byte)
    assert last(written) == whole
    flip(log, headers(log)[-1] + 30)
    assert last(written)[0] == whole[0] - 2


def test_a_promise_behind_a_damaged_header_proves_a_loss(opened, written):
    (log,) = wals(written)
    flip(log, headers(log)[-3] + 4)
    # As if the watermark had been written before.
    fresh = written.with_name("fresh")
    opened(fresh).close(clean=False)
    for name in ("watermark", "identity.json"):
        shutil.copy(fresh / name, written / name)
    store = opened(written, slots=1)
    assert "had been synced" in store.recovery.loss
    assert len(read_all(store.open(P0))) == 37


@pytest.mark.parametrize("byte", [4, 5, HEADER.size - 1])
def test_a_log_is_cut_before_a_header_that_is_none(written, byte):
    (log,) = wals(written)
    at = headers(log)[20]
    with log.open("r+b") as file:
        file.seek(at + byte)
        file.write(b"\xf0")
    cut_at_damage(log)
    assert log.stat().st_size == at


def test_a_log_that_was_not_damaged_ends_with_its_last_write(written):
    number, _ = last(written)
    store = written / "store"
    assert ends_with(store, number)
    assert not ends_with(store, number - 1)
    (store / "999999.log").touch()  # the next one, of which nothing was written
    assert ends_with(store, number)
    (log, _) = wals(written)
    whole = log.read_bytes()
    for content in (whole[:-1], whole + bytes(10), whole + os.urandom(100)):
        log.write_bytes(content)
        assert not ends_with(store, number)


def test_a_start_after_a_kill_looks_once(opened, written, monkeypatch):
    def looked(*_args):
        raise AssertionError("a second look, of which there is no need")

    monkeypatch.setattr(recovery, "newest_claim", looked)
    store = opened(written, slots=1)
    assert store.recovery.intact
    assert len(read_all(store.open(P0))) == 40
