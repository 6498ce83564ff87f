"""Processes in one loop: what stands still does everything later, what has ended does nothing any more."""

from __future__ import annotations

import asyncio

import pytest

from tests.sim.groups.processes import Process, ProcessLoop


def run(scenario, seed=1):
    loop = ProcessLoop(seed)

    async def main():
        try:
            return await scenario(loop)
        finally:
            loop.end_processes()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main())


async def count(loop, seen):
    for number in range(5):
        await asyncio.sleep(1.0)
        seen.append((number, loop.time()))


def test_a_process_that_stands_still_does_everything_when_it_goes_on():
    async def scenario(loop):
        process, seen = Process(loop, "p"), []
        process.spawn(count(loop, seen), "count")
        await asyncio.sleep(1.5)
        process.pause()
        await asyncio.sleep(3.0)
        assert seen == [(0, 1.0)]
        process.resume()
        await asyncio.sleep(0.1)
        assert seen == [(0, 1.0), (1, 4.5)]
        assert process.resumed_at == 4.5

    run(scenario)


def test_of_a_process_that_has_ended_nothing_runs_any_more():
    async def scenario(loop):
        process, seen = Process(loop, "p"), []

        async def work():
            try:
                await count(loop, seen)
            finally:
                seen.append("cleaned up")

        process.spawn(work(), "work")
        process.after(2.0, seen.append, "timer")
        await asyncio.sleep(1.5)
        process.end()
        await asyncio.sleep(5.0)
        assert process.has_ended
        assert seen == [(0, 1.0)]

    run(scenario)


def test_others_go_on_while_one_stands_still():
    async def scenario(loop):
        still, other, seen = Process(loop, "still"), Process(loop, "other"), []
        still.pause()
        other.spawn(count(loop, seen), "count")
        await asyncio.sleep(6.0)
        assert len(seen) == 5

    run(scenario)


def test_what_is_done_for_a_process_is_done_as_it():
    async def scenario(loop):
        process, seen = Process(loop, "p"), []

        def begin():
            asyncio.get_running_loop().call_later(1.0, seen.append, "later")

        process.run(begin)
        process.pause()
        await asyncio.sleep(2.0)
        assert not seen
        process.resume()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert seen == ["later"]

    run(scenario)


def test_a_process_stands_still_once():
    async def scenario(loop):
        process = Process(loop, "p")
        process.pause()
        with pytest.raises(AssertionError):
            process.pause()

    run(scenario)
