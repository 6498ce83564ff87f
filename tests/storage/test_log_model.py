"""Random histories of a store against a model of lists: nothing is lost, shown twice or made up."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.log.state import LogState
from riverrun_server.storage.memory import MemoryStore
from tests.storage import world
from tests.storage.world import P0, P1, Writer, killed, open_small, parse, scan

PARTITIONS = st.sampled_from([P0, P1])
_names = itertools.count()


@dataclass
class Model:
    """One partition as it should be."""

    state: LogState = field(default_factory=LogState)
    batches: list = field(default_factory=list)
    epochs: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    snapshots: dict = field(default_factory=dict)

    def copy(self):
        return Model(
            self.state, self.batches[:], self.epochs[:], self.rows[:], dict(self.snapshots)
        )

    def readable(self):
        start = self.state.log_start_offset
        return [each for each in self.batches if each.next_offset > start]

    def keep_snapshot(self, offset, data):
        """Of those before the new one, one stays; those behind it have nothing to do with it."""
        older = sorted(known for known in self.snapshots if known < offset)
        for known in older[:-1]:
            del self.snapshots[known]
        self.snapshots[offset] = data


class Histories(RuleBasedStateMachine):
    """Two partitions and a table in one store; subclasses say what a restart is."""

    def __init__(self):
        super().__init__()
        self.models = {}
        self.table = {}
        self.durable = ({}, {})
        self.epoch = 0

    @initialize()
    def open(self):
        self.store = self.make()

    def log(self, partition):
        self.models.setdefault(partition, Model())
        return self.store.open(partition)

    def remember(self):
        models = {partition: model.copy() for partition, model in self.models.items()}
        self.durable = models, dict(self.table)

    @rule(
        partition=PARTITIONS, count=st.integers(1, 5), size=st.integers(0, 300), index=st.booleans()
    )
    def append(self, partition, count, size, index):
        log = self.log(partition)
        model = self.models[partition]
        self.epoch += index
        new = Writer(log).append(count, size, index=index, epoch=self.epoch if index else None)
        model.batches.append(new)
        model.state = log.state
        assert model.state.log_end_offset == new.next_offset
        if index:
            model.epochs.append(EpochEntry(self.epoch, new.base_offset))
            model.rows.append(new.base_offset)

    @rule(partition=PARTITIONS, at=st.floats(0, 1), data=st.binary(max_size=50))
    def save(self, partition, at, data):
        log = self.log(partition)
        model = self.models[partition]
        start, end = model.state.log_start_offset, model.state.log_end_offset
        offset = start + int((end - start) * at)
        model.state = dataclasses.replace(
            model.state, high_watermark=max(model.state.high_watermark, offset)
        )
        if any(known > offset for known in model.snapshots):
            log.save(model.state)
            return
        log.save(model.state, snapshot=(offset, data))
        model.keep_snapshot(offset, data)

    @rule(partition=PARTITIONS, at=st.floats(0, 1))
    def trim(self, partition, at):
        log = self.log(partition)
        model = self.models[partition]
        start, end = model.state.log_start_offset, model.state.log_end_offset
        offset = start + int((end - start) * at)
        Writer(log).trim(offset)
        model.state = dataclasses.replace(
            model.state,
            log_start_offset=offset,
            high_watermark=max(model.state.high_watermark, offset),
        )
        model.keep_snapshot(offset, b"producers")
        model.snapshots = {at: data for at, data in model.snapshots.items() if at >= offset}
        model.epochs = model.epochs[sum(e.start_offset <= offset for e in model.epochs[1:]) :]
        model.rows = model.rows[max(0, sum(row <= offset for row in model.rows) - 1) :]

    @rule(partition=PARTITIONS, at=st.integers(0, 10))
    def truncate(self, partition, at):
        log = self.log(partition)
        model = self.models[partition]
        ends = [each.base_offset for each in model.readable()]
        ends = [end for end in ends if end >= model.state.log_start_offset]
        offset = [*ends, model.state.log_end_offset][-1 - at % (len(ends) + 1)]
        Writer(log).truncate(offset)
        model.batches = [each for each in model.batches if each.base_offset < offset]
        model.state = dataclasses.replace(
            model.state,
            log_end_offset=offset,
            high_watermark=min(model.state.high_watermark, offset),
        )
        model.epochs = [entry for entry in model.epochs if entry.start_offset < offset]
        model.rows = [row for row in model.rows if row < offset]
        model.snapshots = {at: data for at, data in model.snapshots.items() if at <= offset}

    @rule(partition=PARTITIONS)
    def drop(self, partition):
        self.store.drop(partition)
        self.models.pop(partition, None)

    @rule(key=st.binary(max_size=2), value=st.binary(max_size=9), gone=st.binary(max_size=2))
    def write_table(self, key, value, gone):
        self.store.table(b"t").write([(key, value)], [gone])
        self.table.pop(gone, None)
        self.table[key] = value

    @rule()
    def sync(self):
        self.store.sync()
        self.remember()

    @rule()
    def upkeep(self):
        for _ in range(20):
            if not self.store.upkeep():
                break

    @rule()
    def stop_and_start(self):
        self.remember()
        self.restart()

    @precondition(lambda self: self.can_lose)
    @rule()
    def lose_what_is_not_synced(self):
        self.store.crash()
        models, table = self.durable
        self.models = {partition: model.copy() for partition, model in models.items()}
        self.table = dict(table)

    @invariant()
    def everything_is_as_it_should_be(self):
        if not hasattr(self, "store"):
            return
        assert self.store.partitions() == sorted(self.models)
        for partition, model in self.models.items():
            log = self.store.open(partition)
            assert log.state == model.state
            assert log.damage is None
            assert world.read_all(log, 200) == model.readable()
            assert [each.data for each in log.scan(0, 1 << 20)] == [
                each.data for each in model.readable()
            ]
            assert log.epochs() == model.epochs
            assert [row.base_offset for row in log.index_rows(0, 99)] == model.rows
            newest = max(model.snapshots.items(), default=None)
            assert log.snapshot() == newest
        assert self.store.table(b"t").scan(b"") == sorted(self.table.items())


class MemoryHistories(Histories):
    can_lose = True

    def make(self):
        return MemoryStore(parse, scan)

    def restart(self):
        self.store.close(clean=True)


class RocksHistories(Histories):
    """Stops are clean or kills in turn; tables are flushed now and then."""

    can_lose = False
    slots = 1

    def make(self):
        self.base = Path(tempfile.mkdtemp(dir=type(self).tmp_path))
        self.folder = self.base / "data"
        return open_small(self.folder, slots=self.slots)

    @rule()
    def flush(self):
        for column in self.store._rocks.columns():
            if column.is_dirty:
                column.flush()

    @rule()
    def kill(self):
        copy = killed(self.folder, f"killed{next(_names)}")
        self.store.close(clean=False)
        shutil.rmtree(self.folder)
        self.folder = copy
        self.store = open_small(self.folder, slots=self.slots)
        assert self.store.recovery.intact
        self.remember()

    def restart(self):
        self.store.close(clean=True)
        self.store = open_small(self.folder, slots=self.slots)
        assert self.store.recovery.clean_shutdown
        assert self.store.recovery.intact

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close(clean=False)
            shutil.rmtree(self.base)


def test_the_twin_in_memory_keeps_to_the_model():
    run_state_machine_as_test(
        MemoryHistories, settings=settings(max_examples=40, stateful_step_count=40, deadline=None)
    )


@pytest.mark.parametrize("slots", [1, 3], ids=["shared slot", "slots of their own"])
def test_the_store_on_disk_keeps_to_the_model(tmp_path, slots):
    RocksHistories.tmp_path, RocksHistories.slots = tmp_path, slots
    run_state_machine_as_test(
        RocksHistories, settings=settings(max_examples=6, stateful_step_count=30, deadline=None)
    )


@pytest.mark.parametrize("histories", [MemoryHistories, RocksHistories])
def test_a_snapshot_before_newer_ones_is_kept_beside_them(tmp_path, histories):
    """Found by the model: it had counted the newer ones among those to make room for."""
    RocksHistories.tmp_path, RocksHistories.slots = tmp_path, 1
    state = histories()
    state.open()
    for _ in range(2):
        state.append(partition=P0, count=1, size=0, index=False)
    state.save(partition=P0, at=0.5, data=b"")
    state.save(partition=P0, at=1.0, data=b"")
    state.append(partition=P0, count=1, size=0, index=False)
    state.trim(partition=P0, at=0.0)
    state.everything_is_as_it_should_be()
    state.truncate(partition=P0, at=3)
    state.everything_is_as_it_should_be()
    state.teardown()
