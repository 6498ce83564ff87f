"""A tiny batch encoding, a writer that keeps the state right, and stores to write into."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
import struct
import zlib
from pathlib import Path

from riverrun_server.core.log.batch import (
    BatchHeader,
    PartitionId,
    ScannedBatch,
    Stamp,
    StoredBatch,
)
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.log.state import IndexRow
from riverrun_server.ports.log import CorruptData, StorageStalled
from riverrun_server.storage.options import Tuning
from riverrun_server.storage.store import open_store

_HEAD = struct.Struct(">qqiqI")
SMALL = Tuning(memtable_bytes=64 << 20, memtable_each_bytes=8 << 20, cache_bytes=1 << 20)

TOPIC = bytes(range(1, 17))
P0 = PartitionId(TOPIC, 0)
P1 = PartitionId(TOPIC, 1)


class SeededDice:
    """Implements ports.clock.Dice."""

    def __init__(self, seed=0):
        self._random = random.Random(seed)

    def token(self, size):
        return self._random.randbytes(size)

    def uniform(self, low, high):
        return self._random.uniform(low, high)


def encode(base, next_offset, leader_epoch=1, time_ms=1000, payload=b""):
    return _HEAD.pack(base, next_offset, leader_epoch, time_ms, zlib.crc32(payload)) + payload


def parse(data):
    if len(data) < _HEAD.size:
        raise CorruptData("too short for a batch")
    base, next_offset, leader_epoch, _, _ = _HEAD.unpack_from(data)
    return StoredBatch(base, next_offset, leader_epoch, data)


def scan(partition, data):
    base, next_offset, leader_epoch, time_ms, crc = _HEAD.unpack_from(data)
    if zlib.crc32(data[_HEAD.size :]) != crc:
        raise CorruptData(f"batch at {base} of {partition}: the checksum is wrong")
    count = next_offset - base
    return ScannedBatch(
        BatchHeader(count, len(data), max_timestamp_ms=time_ms),
        Stamp(base, count - 1, leader_epoch, time_ms, time_ms),
        data,
    )


def batch(base, count=1, size=10, **more):
    payload = random.Random(base).randbytes(size)
    return parse(encode(base, base + count, payload=payload, **more))


class Writer:
    """Appends to a log and keeps the state as the machine of a partition would."""

    def __init__(self, log):
        self.log = log

    @property
    def state(self):
        return self.log.state

    def append(self, count=1, size=10, *, epoch=None, index=False, **more):
        state = self.state
        new = batch(state.log_end_offset, count, size, **more)
        after = dataclasses.replace(
            state,
            log_end_offset=new.next_offset,
            appended_bytes=state.appended_bytes + len(new.data),
        )
        row = None
        if index:
            row = IndexRow(new.base_offset, 1000, state.appended_bytes, 0, 1000)
            after = dataclasses.replace(after, indexed_bytes=state.appended_bytes)
        entry = EpochEntry(epoch, new.base_offset) if epoch is not None else None
        self._patiently(lambda: self.log.append(new, after, epoch=entry, index=row))
        return new

    def _patiently(self, write):
        """Write, and where the store is behind with its tables let it finish them first."""
        while True:
            try:
                return write()
            except StorageStalled:
                for column in self.log._journal.rocks.columns():
                    column.flush()

    def many(self, batches, **how):
        return [self.append(**how) for _ in range(batches)]

    def commit(self):
        """Let everything be committed, as far as the state says."""
        self.log.save(dataclasses.replace(self.state, high_watermark=self.state.log_end_offset))

    def trim(self, offset, snapshot=b"producers"):
        state = dataclasses.replace(
            self.state,
            log_start_offset=offset,
            high_watermark=max(self.state.high_watermark, offset),
        )
        self._patiently(lambda: self.log.trim(state, snapshot=(offset, snapshot)))

    def truncate(self, offset):
        epochs = [entry for entry in self.log.epochs() if entry.start_offset < offset]
        state = dataclasses.replace(
            self.state,
            log_end_offset=offset,
            high_watermark=min(self.state.high_watermark, offset),
        )
        self._patiently(lambda: self.log.truncate(state, epochs))


def read_all(log, max_bytes=1 << 20):
    """Return every batch that can be read."""
    found, offset = [], log.state.log_start_offset
    while offset < log.state.log_end_offset:
        step = log.read(offset, log.state.log_end_offset, max_bytes)
        assert step, offset
        found += step
        offset = step[-1].next_offset
    return found


def open_small(folder, *, slots=4, broker_id=1, seed=0, tuning=SMALL, **more):
    return open_store(
        folder,
        slots=slots,
        broker_id=broker_id,
        parse=parse,
        scan=scan,
        dice=SeededDice(seed),
        tuning=tuning,
        **more,
    )


def _listing(folder):
    """Return every file with its size and time."""
    found = {}
    for file in sorted(Path(folder).rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            found[file] = (status.st_size, status.st_mtime_ns)
    return found


def killed(store_folder, name="killed"):
    """Return a copy of a live data directory: what a SIGKILL would leave now."""
    copy = Path(store_folder).with_name(name)
    # A copy takes time, and RocksDB's own threads may put away files meanwhile; a kill takes none.
    for _ in range(100):
        shutil.rmtree(copy, ignore_errors=True)
        before = _listing(store_folder)
        with contextlib.suppress(shutil.Error, FileNotFoundError):
            shutil.copytree(store_folder, copy)
            if _listing(store_folder) == before:
                break
    else:
        raise AssertionError("the store never stood still")
    return copy


def wals(folder):
    """Return the write-ahead logs of a data directory, oldest first."""
    return sorted((Path(folder) / "store").glob("*.log"))


def tables(folder):
    return sorted((Path(folder) / "store").glob("*.sst"))


def flip(path, at):
    """Flip one bit of a file."""
    with Path(path).open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
