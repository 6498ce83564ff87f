"""The virtual-time loop: repeatable, quick, fair to every order, and loud when nothing moves."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from tests.sim.loop import DeadlockError, LivelockError, SimLoop, simulate


async def a_day_of_talk() -> list[tuple[float, str]]:
    """Workers that meet in a queue and a lock, on timers that often fall together."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    trace: list[tuple[float, str]] = []
    queue: asyncio.Queue[str] = asyncio.Queue(2)
    lock = asyncio.Lock()

    async def produce(name: str) -> None:
        for n in range(10):
            await asyncio.sleep(loop.dice.choice([0, 60, 3600]))
            async with lock:
                trace.append((loop.time(), f"{name} sends {n}"))
                await queue.put(f"{name}{n}")

    async def consume(name: str) -> None:
        while True:
            item = await queue.get()
            trace.append((loop.time(), f"{name} has {item}"))
            await asyncio.sleep(60)

    async with asyncio.TaskGroup() as group:
        consumers = [group.create_task(consume(name)) for name in "xy"]
        async with asyncio.TaskGroup() as producers:
            for name in "abc":
                producers.create_task(produce(name))
        for consumer in consumers:
            consumer.cancel()
    return trace


async def order_of(count: int) -> tuple[int, ...]:
    order: list[int] = []

    async def one(n: int) -> None:
        order.append(n)

    async with asyncio.TaskGroup() as group:
        for n in range(count):
            group.create_task(one(n))
    return tuple(order)


def test_the_same_seed_gives_the_same_trace():
    for seed in range(5):
        assert simulate(a_day_of_talk(), seed) == simulate(a_day_of_talk(), seed)


def test_other_seeds_give_other_traces():
    assert len({tuple(simulate(a_day_of_talk(), seed)) for seed in range(20)}) == 20


def test_every_order_of_what_is_ready_at_once_comes_up():
    assert len({simulate(order_of(3), seed) for seed in range(100)}) == 6


def test_every_order_of_timers_that_are_due_at_once_comes_up():
    async def scenario() -> tuple[int, ...]:
        order: list[int] = []

        async def one(n: int) -> None:
            await asyncio.sleep(10)
            order.append(n)

        await asyncio.gather(*map(one, range(3)))
        return tuple(order)

    assert len({simulate(scenario(), seed) for seed in range(100)}) == 6


def test_what_becomes_ready_in_a_round_waits_for_the_next_one():
    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        order: list[str] = []

        def first(name: str) -> None:
            order.append(name)
            loop.call_soon(order.append, "later")

        for name in ("a", "b", "c"):
            loop.call_soon(first, name)
        await asyncio.sleep(1)
        return order

    for seed in range(50):
        order = simulate(scenario(), seed)
        assert sorted(order[:3]) == ["a", "b", "c"]
        assert order[3:] == ["later"] * 3


def test_hours_pass_in_milliseconds_and_timers_are_exact():
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        for _ in range(100):
            before = loop.time()
            await asyncio.sleep(3600)
            assert loop.time() == pytest.approx(before + 3600, abs=1e-6)
        return loop.time()

    began = time.perf_counter()
    assert simulate(scenario(), 0) == pytest.approx(360_000)
    assert time.perf_counter() - began < 2


def test_timeouts_run_in_virtual_time():
    async def scenario() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7200):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert simulate(scenario(), 0) == pytest.approx(7200)


def test_a_deadlock_is_reported_with_the_seed_and_who_waits_where():
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        task = asyncio.create_task(wait_for_ever(), name="sleeper")
        await asyncio.sleep(5)
        await task

    with pytest.raises(DeadlockError, match=r"(?s)seed 7, 5\.000 s.*sleeper in .*wait_for_ever"):
        simulate(scenario(), 7)


def test_a_livelock_is_reported():
    ended: list[str] = []

    async def scenario() -> None:
        try:
            while True:  # noqa: ASYNC110 - the mistake that is to be found
                await asyncio.sleep(0)
        finally:
            ended.append("scenario")

    with pytest.raises(LivelockError, match="without time passing"):
        simulate(scenario(), 0)
    assert ended == ["scenario"]


def test_threads_and_sockets_are_refused():
    async def threads() -> None:
        await asyncio.to_thread(time.time)

    async def sockets() -> None:
        mine, other = socket.socketpair()
        with mine, other:
            mine.setblocking(False)
            await asyncio.get_running_loop().sock_recv(mine, 1)

    with pytest.raises(RuntimeError, match="no threads"):
        simulate(threads(), 0)
    with pytest.raises(RuntimeError, match="no I/O"):
        simulate(sockets(), 0)


def test_an_error_in_the_scenario_comes_out_and_the_tasks_are_cancelled():
    ended: list[str] = []

    async def other() -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            ended.append("other")

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(other())
            await asyncio.sleep(1)
            raise ValueError("so")

    with pytest.raises(ExceptionGroup):
        simulate(scenario(), 0)
    assert ended == ["other"]
