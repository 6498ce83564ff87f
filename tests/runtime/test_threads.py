"""Threads are waited for at the end, so long and no longer, and what hangs in them has a name."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from riverrun_server.ports.threads import ThreadsHang
from riverrun_server.runtime.threads import OneThread, PoolThreads

SOON_S = 0.05
LATE_S = 30.0


class Disk:
    """Something that blocks until a test lets it go."""

    def __init__(self):
        self.entered = threading.Event()
        self.freed = threading.Event()
        self.done = 0

    def sync(self):
        self.entered.set()
        assert self.freed.wait(LATE_S)
        self.done += 1

    def fail(self):
        assert self.freed.wait(LATE_S)
        raise OSError("no")


@pytest.fixture
def disk():
    disk = Disk()
    yield disk
    disk.freed.set()


@pytest.fixture(params=[lambda: PoolThreads(1, "flusher"), lambda: OneThread("flusher")])
def threads(request):
    return request.param()


async def test_calls_of_one_thread_run_in_order_and_give_what_they_return(threads):
    ran = []

    def work(number):
        ran.append(number)
        return number

    assert await asyncio.gather(*(threads.run(work, n) for n in range(50))) == list(range(50))
    assert ran == list(range(50))
    await threads.close(LATE_S)


async def test_even_a_stop_iteration_is_told_to_its_caller():
    def stop():
        raise StopIteration

    threads = OneThread("flusher")
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(threads.run(stop), LATE_S)
    await threads.close(LATE_S)


async def test_what_runs_is_waited_for(threads, disk):
    syncs = [threads.run(disk.sync) for _ in range(3)]
    disk.freed.set()
    await threads.close(LATE_S)
    assert disk.done == 3
    assert all(sync.done() for sync in syncs)


async def test_nothing_is_run_afterwards(threads, disk):
    await threads.close(LATE_S)
    with pytest.raises(RuntimeError, match="after shutdown"):
        threads.run(disk.sync)


async def test_what_hangs_is_named_after_so_long_and_the_loop_goes_on_meanwhile(disk):
    threads = PoolThreads(2, "flusher")
    threads.run(disk.sync)
    threads.run(partial(disk.sync))
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    with pytest.raises(ThreadsHang, match=r"^Disk.sync, Disk.sync did not .* flusher threads"):
        await threads.close(SOON_S)
    ticking.cancel()
    assert ticks > 10


async def test_the_one_thread_that_hangs_is_named_too(disk):
    threads = OneThread("flusher")
    threads.run(disk.sync)
    threads.run(partial(disk.sync))
    with pytest.raises(ThreadsHang, match=r"^Disk.sync, Disk.sync did not .* flusher threads"):
        await threads.close(SOON_S)


async def test_a_call_whose_caller_was_cancelled_is_waited_for_all_the_same(threads, disk):
    sync = threads.run(disk.sync)
    assert disk.entered.wait(LATE_S)
    sync.cancel()
    with pytest.raises(ThreadsHang):
        await threads.close(SOON_S)


async def test_a_call_that_fails_is_told_to_its_caller_and_hinders_no_end(threads, disk):
    failing = threads.run(disk.fail)
    closing = asyncio.create_task(threads.close(LATE_S))
    await asyncio.sleep(0)
    disk.freed.set()
    await closing
    with pytest.raises(OSError, match="no"):
        await failing


async def test_what_has_ended_is_not_remembered(threads, disk):
    disk.freed.set()
    for _ in range(100):
        await threads.run(disk.sync)
    with pytest.raises(OSError, match="no"):
        await threads.run(disk.fail)
    await threads.close(LATE_S)
    assert not threads._calls
