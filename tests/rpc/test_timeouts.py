"""Whoever waits too long is told once and in time; whoever has been answered is not."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.rpc.timeouts import Timeouts
from tests.sim.loop import simulate


class Waiter:
    def __init__(self, told):
        self.told = told

    def time_out(self, timeout_s):
        self.told.append((self, asyncio.get_running_loop().time(), timeout_s))


@pytest.mark.parametrize("seed", range(3))
def test_each_is_told_when_its_own_time_is_up(seed):
    async def run():
        loop, timeouts, told = asyncio.get_running_loop(), Timeouts(), []
        began = loop.time()
        first, second, quick = Waiter(told), Waiter(told), Waiter(told)
        timeouts.start(first, 10.0)
        await asyncio.sleep(4)
        timeouts.start(second, 10.0)
        timeouts.start(quick, 1.0)
        await asyncio.sleep(20)
        assert [(who, round(at - began, 3), s) for who, at, s in told] == [
            (quick, 5, 1.0),
            (first, 10, 10.0),
            (second, 14, 10.0),
        ]
        assert not len(timeouts)

    simulate(run(), seed)


@pytest.mark.parametrize("seed", range(3))
def test_who_has_been_answered_is_not_told_and_not_kept(seed):
    async def run():
        timeouts, told = Timeouts(), []
        waiters = [Waiter(told) for _ in range(3)]
        for waiter in waiters:
            timeouts.start(waiter, 10.0)
        timeouts.stop(waiters[0], 10.0)
        timeouts.stop(waiters[1], 10.0)
        assert len(timeouts) == 1
        await asyncio.sleep(20)
        assert [who for who, *_ in told] == [waiters[2]]
        timeouts.stop(waiters[2], 10.0)

    simulate(run(), seed)


@pytest.mark.parametrize("seed", range(3))
def test_after_a_pause_it_begins_anew(seed):
    async def run():
        timeouts, told = Timeouts(), []
        for _ in range(3):
            timeouts.start(Waiter(told), 1.0)
            await asyncio.sleep(5)
        assert len(told) == 3

    simulate(run(), seed)


@pytest.mark.parametrize("seed", range(3))
def test_one_that_is_answered_and_waits_again_is_told_by_its_new_time(seed):
    async def run():
        loop, timeouts, told = asyncio.get_running_loop(), Timeouts(), []
        began, waiter = loop.time(), Waiter(told)
        timeouts.start(waiter, 10.0)
        await asyncio.sleep(6)
        timeouts.stop(waiter, 10.0)
        timeouts.start(waiter, 10.0)
        await asyncio.sleep(20)
        assert [round(at - began, 3) for _, at, _ in told] == [16]

    simulate(run(), seed)
