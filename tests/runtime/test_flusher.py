"""What a sync proves, and what its failure means."""

import asyncio

import pytest

from riverrun_server.ports.log import StorageFailed, StorageFull
from riverrun_server.runtime.flusher import Flusher
from tests.runtime import manual


class Store:
    def __init__(self):
        self.syncs = 0
        self.watermarks = 0
        self.error = None
        self.mark_error = None

    def sync(self):
        if self.error:
            raise self.error
        self.syncs += 1

    def write_watermark(self, *, clean):
        assert not clean
        if self.mark_error:
            raise self.mark_error
        self.watermarks += 1


class Partition:
    def __init__(self):
        self.log_end_offset = 0
        self.proved = []

    def sync_point(self):
        return self.log_end_offset

    def synced(self, offset):
        self.proved.append(offset)


@pytest.fixture
def parts():
    store, threads, clock = Store(), manual.ManualThreads(), manual.StillClock()
    return store, threads, clock, Flusher(store, clock, threads)


async def test_an_append_during_a_sync_is_not_proved_by_it(parts):
    store, threads, _, flusher = parts
    async with asyncio.TaskGroup() as group:
        task = group.create_task(flusher.run())
        partition = Partition()
        partition.log_end_offset = 5
        flusher.touch(partition)
        await manual.settle()
        partition.log_end_offset = 9  # arrives while the disk works
        flusher.touch(partition)
        threads.step()
        await manual.settle()
        assert partition.proved == [5]
        threads.step()
        await manual.settle()
        assert partition.proved == [5, 9]
        assert store.syncs == 2
        task.cancel()


async def test_an_idle_flusher_does_not_sync(parts):
    _, threads, _, flusher = parts
    async with asyncio.TaskGroup() as group:
        task = group.create_task(flusher.run())
        await manual.settle()
        assert not threads.calls
        task.cancel()


async def test_who_waits_during_a_sync_waits_for_the_next_one(parts):
    _, threads, _, flusher = parts
    async with asyncio.TaskGroup() as group:
        task = group.create_task(flusher.run())
        first = group.create_task(flusher.durable())
        await manual.settle()
        second = group.create_task(flusher.durable())
        await manual.settle()
        threads.step()
        await manual.settle()
        assert first.done()
        assert not second.done()
        threads.step()
        await manual.settle()
        assert second.done()
        task.cancel()


async def test_a_failed_sync_answers_nobody_with_success_and_ends_the_flusher(parts):
    store, threads, _, flusher = parts
    store.error = StorageFailed("EIO")
    task = asyncio.create_task(flusher.run())
    partition = Partition()
    partition.log_end_offset = 5
    flusher.touch(partition)
    waiting = asyncio.create_task(flusher.durable())
    await manual.settle()
    threads.step()
    with pytest.raises(StorageFailed):
        await task
    with pytest.raises(StorageFailed):
        await waiting
    assert partition.proved == []
    with pytest.raises(StorageFailed):
        await flusher.durable()


async def test_a_write_that_failed_for_good_ends_the_flusher_without_another_sync(parts):
    store, _, _, flusher = parts
    task = asyncio.create_task(flusher.run())
    flusher.fail(StorageFailed("IO error"))
    with pytest.raises(StorageFailed):
        await task
    assert store.syncs == 0


async def test_a_forgotten_partition_is_told_nothing(parts):
    _, threads, _, flusher = parts
    async with asyncio.TaskGroup() as group:
        task = group.create_task(flusher.run())
        partition = Partition()
        flusher.touch(partition)
        flusher.forget(partition)
        await manual.settle()
        threads.step()
        await manual.settle()
        assert partition.proved == []
        task.cancel()


async def test_the_watermark_is_written_at_most_once_a_second(parts):
    store, threads, clock, flusher = parts
    async with asyncio.TaskGroup() as group:
        task = group.create_task(flusher.run())
        for now in (1_000.0, 1_000.9, 1_001.0, 1_001.5, 1_002.1):
            clock.now = now
            flusher.touch(Partition())
            await manual.settle()
            threads.step()
            await manual.settle()
        assert store.watermarks == 2
        task.cancel()


async def test_the_last_writes_of_a_burst_are_noted_though_nothing_follows(parts):
    store, threads, clock, flusher = parts
    flusher.WATERMARK_INTERVAL_S = 0.01
    async with asyncio.TaskGroup() as group:
        task = group.create_task(flusher.run())
        flusher.touch(Partition())
        await manual.settle()
        threads.step()
        await manual.settle()
        assert store.watermarks == 0
        clock.now += 1
        async with asyncio.timeout(5):
            while not threads.calls:  # noqa: ASYNC110 - the timer is the flusher's own
                await asyncio.sleep(0)
        threads.step()
        await manual.settle()
        assert store.watermarks == 1
        task.cancel()


async def test_a_watermark_that_cannot_be_written_ends_nothing_and_is_tried_again(parts):
    store, threads, clock, flusher = parts
    store.mark_error = StorageFull("no room")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(flusher.run())
        for error, marks in ((StorageFull("no room"), 0), (None, 1)):
            store.mark_error = error
            clock.now += 2
            flusher.touch(Partition())
            await manual.settle()
            threads.step()
            await manual.settle()
            assert store.watermarks == marks
        task.cancel()


async def test_a_bug_in_a_partition_leaves_nobody_waiting(parts):
    _, threads, _, flusher = parts

    class Broken(Partition):
        def synced(self, offset):
            raise RuntimeError("bug")

    task = asyncio.create_task(flusher.run())
    flusher.touch(Broken())
    waiting = asyncio.create_task(flusher.durable())
    await manual.settle()
    threads.step()
    for each in (task, waiting):
        with pytest.raises(StorageFailed):
            await each


async def test_how_long_the_oldest_append_of_a_group_waited_is_told():
    waits, threads, clock = [], manual.ManualThreads(), manual.StillClock()
    flusher = Flusher(Store(), clock, threads, observe_wait=waits.append)
    first, second = Partition(), Partition()
    task = asyncio.create_task(flusher.run())
    flusher.touch(first)
    await manual.settle()
    flusher.touch(first)  # while the disk works: the oldest of the next group
    clock.now += 2.0
    flusher.touch(second)
    clock.now += 1.0
    threads.step()
    await manual.settle()
    assert waits == [0.0, 3.0]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
