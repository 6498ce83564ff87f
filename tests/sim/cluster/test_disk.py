"""The simulated disk loses exactly what a real one may lose, and raw rows tell what is wrong."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from riverrun_server.core.log.batch import PartitionId, Stamp, StoredBatch
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.ports.log import CorruptData, StorageFailed, StorageFull, StorageStalled
from tests.sim.cluster.batches import Batch
from tests.sim.cluster.disk import SimDisk
from tests.sim.cluster.raw_log import faults_of, records_of
from tests.sim.cluster.world import Process, World

P0 = PartitionId(b"t" * 16, 0)


class Stage:
    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed)
        self.disk = SimDisk(self.world, 1)
        self.process = Process("broker")
        self.done: list[object] = []

    def append(self, count: int = 1, epoch: int = 1) -> StoredBatch:
        log = self.disk.store.open(P0)
        state = log.state
        base = state.log_end_offset
        values = tuple(f"{epoch}-{base + index}".encode() for index in range(count))
        stamp = Stamp(base, count - 1, epoch, 1_000, 1_000)
        data = Batch(values).incoming(1_000).stamped(P0, stamp)
        batch = StoredBatch(base, base + count, epoch, data)
        known = {entry.leader_epoch for entry in log.epochs()}
        log.append(
            batch,
            dataclasses.replace(state, log_end_offset=base + count),
            epoch=None if epoch in known else EpochEntry(epoch, base),
        )
        return batch

    def sync(self) -> None:
        self.disk.begin_sync(self.done.append, self.process)

    def run(self, for_s: float = 1.0) -> None:
        self.world.run(self.world.now_s + for_s)

    def end(self) -> int:
        return self.disk.store.open(P0).state.log_end_offset


def test_a_sync_covers_what_was_written_before_it_and_no_more():
    stage = Stage()
    stage.append()
    stage.sync()
    stage.append()
    stage.run()
    assert stage.done == [None]
    durable = stage.disk.store.stored(P0, durable=True)
    live = stage.disk.store.stored(P0, durable=False)
    assert (durable.state.log_end_offset, live.state.log_end_offset) == (1, 2)


def test_a_kill_loses_nothing_and_a_power_cut_only_what_was_not_synced():
    stage = Stage()
    stage.append()
    stage.append()
    stage.disk.kill()
    assert stage.end() == 2
    ends = Counter()
    for seed in range(60):
        stage = Stage(seed)
        stage.append()
        stage.sync()
        stage.run()
        for _ in range(3):
            stage.append()
        lost = stage.disk.cut_power()
        assert stage.end() == 4 - lost
        ends[stage.end()] += 1
    assert set(ends) == {1, 2, 3, 4}


def test_a_sync_that_a_crash_overtakes_is_never_reported():
    stage = Stage()
    stage.append()
    stage.sync()
    stage.disk.cut_power()
    stage.run()
    assert stage.done == []
    assert stage.end() in (0, 1)


def test_the_device_works_on_while_the_process_is_paused():
    stage = Stage()
    stage.append()
    stage.sync()
    stage.world.pause(stage.process)
    stage.run()
    assert stage.done == []
    assert stage.disk.store.stored(P0, durable=True).state.log_end_offset == 1
    stage.world.resume(stage.process)
    stage.run()
    assert stage.done == [None]


def test_a_failed_sync_says_so_and_makes_nothing_durable():
    stage = Stage()
    stage.append()
    stage.disk.fail_next_sync()
    stage.sync()
    stage.run()
    assert isinstance(stage.done[0], StorageFailed)
    assert stage.disk.store.stored(P0, durable=True) is None


def test_a_full_or_stalled_disk_refuses_writes_and_changes_nothing():
    stage = Stage()
    stage.append()
    stage.disk.fill(full=True)
    with pytest.raises(StorageFull):
        stage.append()
    stage.disk.fill(full=False)
    stage.disk.stall(stalled=True)
    with pytest.raises(StorageStalled):
        stage.append()
    stage.disk.stall(stalled=False)
    assert stage.end() == 1
    stage.append()


def test_lives_of_the_data_end_when_something_that_counted_may_be_gone():
    stage = Stage()
    first = stage.disk.incarnations
    stage.disk.kill()
    killed = stage.disk.incarnations
    assert killed.fsync == first.fsync
    assert killed.relaxed != first.relaxed
    stage.append()
    stage.disk.wipe()
    assert stage.disk.incarnations.fsync != first.fsync
    assert stage.end() == 0


def test_a_flipped_bit_is_found_by_a_scan_on_the_disk_as_in_the_cache():
    for seed in range(20):
        stage = Stage(seed)
        for _ in range(3):
            stage.append()
        stage.sync()
        stage.run()
        assert stage.disk.corrupt(P0) in range(3)
        with pytest.raises(CorruptData):
            stage.disk.store.open(P0).scan(0, 1 << 20)
        stage.disk.cut_power()
        with pytest.raises(CorruptData):
            stage.disk.store.open(P0).scan(0, 1 << 20)
    assert Stage().disk.corrupt(P0) is None


def stored(stage: Stage):
    return stage.disk.store.stored(P0, durable=False)


def test_a_log_as_it_should_be_has_no_faults():
    stage = Stage()
    for epoch, count in ((1, 2), (1, 1), (3, 3), (7, 1)):
        stage.append(count, epoch)
    assert faults_of(stored(stage)) == []
    assert [record.value for record in records_of(stored(stage).batches[0])] == [b"1-0", b"1-1"]


def drop_a_batch(it):
    del it.bases[1], it.batches[1]


def swap_two(it):
    it.batches[0], it.batches[1] = it.batches[1], it.batches[0]


def forget_an_epoch(it):
    del it.epochs[3]


def move_an_epoch(it):
    it.epochs[3] += 1


def end_too_late(it):
    it.state = dataclasses.replace(it.state, log_end_offset=it.state.log_end_offset + 1)


def end_too_early(it):
    del it.bases[-1], it.batches[-1], it.epochs[7]


@pytest.mark.parametrize(
    "damage",
    [drop_a_batch, swap_two, forget_an_epoch, move_an_epoch, end_too_late, end_too_early],
)
def test_what_is_wrong_with_a_log_by_itself_is_found(damage):
    stage = Stage()
    for epoch, count in ((1, 2), (1, 1), (3, 3), (7, 1)):
        stage.append(count, epoch)
    damage(stored(stage))
    assert faults_of(stored(stage))
