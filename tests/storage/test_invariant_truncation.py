"""Logs that are truncated and written anew, again and again, against lists: nothing old comes back.

Many small logs share a store, so that a restart of it restarts all of them. After every step the log
that changed is read from each of its offsets, and after every restart all of them are.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.storage.memory import MemoryStore
from tests.storage import world
from tests.storage.world import TOPIC, Writer, killed, open_small, parse, scan

LOGS = 6
STEPS = 250
WEIGHTS = {
    "append": 45,
    "truncate": 20,
    "snapshot": 12,
    "trim": 8,
    "flush": 3,
    "restart": 1,
    "kill": 1,
}
_names = itertools.count()


class Listed:
    """One log as lists; `batches` are all that were not truncated, trimmed ones included."""

    def __init__(self):
        self.start = 0
        self.batches = []
        self.epochs = []
        self.rows = []
        self.snapshots = {}

    @property
    def end(self):
        return self.batches[-1].next_offset if self.batches else self.start

    def readable(self):
        return [batch for batch in self.batches if batch.next_offset > self.start]

    def truncate(self, end):
        self.batches = [batch for batch in self.batches if batch.next_offset <= end]
        self.epochs = [entry for entry in self.epochs if entry.start_offset < end]
        self.rows = [row for row in self.rows if row < end]
        self.snapshots = {at: data for at, data in self.snapshots.items() if at <= end}

    def trim(self, start):
        self.start = start
        self.add_snapshot(start, b"trimmed")
        self.snapshots = {at: data for at, data in self.snapshots.items() if at >= start}
        self.epochs = self.epochs[sum(e.start_offset <= start for e in self.epochs[1:]) :]
        self.rows = self.rows[max(0, sum(row <= start for row in self.rows) - 1) :]

    def add_snapshot(self, offset, data):
        self.snapshots[offset] = data
        for old in sorted(self.snapshots)[:-2]:
            del self.snapshots[old]


class MemoryDisk:
    def __init__(self):
        self.store = MemoryStore(parse, scan)

    def restart(self):
        self.store.close(clean=True)

    kill = restart

    def flush(self):
        self.store.sync()

    def close(self):
        pass


class RealDisk:
    """A store that is closed in order, or killed while it is open."""

    def __init__(self, folder):
        self.folder = folder / "data"
        self.store = open_small(self.folder, slots=2)

    def restart(self):
        self.store.close(clean=True)
        self.store = open_small(self.folder, slots=2)

    def kill(self):
        copy = killed(self.folder, f"killed{next(_names)}")
        self.store.close(clean=False)
        shutil.rmtree(self.folder)
        self.folder = copy
        self.store = open_small(self.folder, slots=2)

    def flush(self):
        for column in self.store._rocks.columns():
            if column.is_dirty:
                column.flush()

    def close(self):
        self.store.close(clean=False)


class History:
    """Logs in one store, and the lists that say what they hold."""

    def __init__(self, disk, seed):
        self.disk = disk
        self.dice = random.Random(seed)
        self.epoch = 0
        self.lists = {PartitionId(TOPIC, number): Listed() for number in range(LOGS)}
        self.happened = Counter()

    def run(self):
        for _ in range(STEPS):
            what = self.dice.choices(list(WEIGHTS), WEIGHTS.values())[0]
            self.happened[what] += 1
            if what in ("restart", "kill", "flush"):
                getattr(self.disk, what)()
                for partition in self.lists:
                    self.check(partition)
            else:
                partition = self.dice.choice(list(self.lists))
                getattr(self, what)(Writer(self.disk.store.open(partition)), self.lists[partition])
                self.check(partition)
        self.disk.close()
        return self.happened

    def append(self, writer, listed):
        marked = self.dice.random() < 0.4
        self.epoch += marked
        # A number of records that differs from what stood there before: boundaries move.
        count, size = self.dice.randint(1, 6), self.dice.randint(0, 50)
        epoch = self.epoch if marked else None
        new = writer.append(count, size, index=marked, epoch=epoch, time_ms=self.happened.total())
        listed.batches.append(new)
        if marked:
            listed.epochs.append(EpochEntry(self.epoch, new.base_offset))
            listed.rows.append(new.base_offset)

    def truncate(self, writer, listed):
        ends = [batch.base_offset for batch in listed.readable()]
        ends = [end for end in ends if end >= listed.start]
        if ends:
            end = ends[-1 - int(len(ends) * self.dice.random() ** 2)]
            self.happened["below a snapshot"] += any(at > end for at in listed.snapshots)
            writer.truncate(end)
            listed.truncate(end)

    def snapshot(self, writer, listed):
        offset = max([listed.start, *(batch.next_offset for batch in listed.batches[-2:])])
        if all(at <= offset for at in listed.snapshots):
            data = b"%d" % self.happened.total()
            state = dataclasses.replace(writer.state, high_watermark=offset)
            writer._patiently(lambda: writer.log.save(state, snapshot=(offset, data)))
            listed.add_snapshot(offset, data)

    def trim(self, writer, listed):
        # A snapshot beyond the new start is not the newest one that a trim would write.
        start = max([listed.start, *listed.snapshots])
        start += int((listed.end - start) * self.dice.random() ** 2)
        writer.trim(start, b"trimmed")
        listed.trim(start)

    def check(self, partition):
        log, listed = self.disk.store.open(partition), self.lists[partition]
        assert (log.state.log_start_offset, log.state.log_end_offset) == (listed.start, listed.end)
        readable = listed.readable()
        assert world.read_all(log, 60) == readable
        assert [each.data for each in log.scan(0, 1 << 20)] == [each.data for each in readable]
        for batch in readable:
            for offset in range(max(batch.base_offset, listed.start), batch.next_offset):
                assert log.read(offset, listed.end, 1) == [batch]
        assert log.epochs() == listed.epochs
        assert [row.base_offset for row in log.index_rows(0, 999)] == listed.rows
        assert log.snapshot() == max(listed.snapshots.items(), default=None)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1 << 32))
def test_what_was_truncated_in_memory_never_comes_back(seed):
    History(MemoryDisk(), seed).run()


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 1 << 32))
def test_what_was_truncated_on_disk_never_comes_back(seed):
    with tempfile.TemporaryDirectory() as folder:
        History(RealDisk(Path(folder)), seed).run()


def test_the_histories_are_rich_enough_to_find_something():
    happened = History(MemoryDisk(), 1).run() + History(MemoryDisk(), 2).run()
    assert set(happened) == {*WEIGHTS, "below a snapshot"}
    assert happened["below a snapshot"] >= 10
