"""After a signal work goes on as long as there is progress, and no longer."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from riverrun.cli.giving_up import GaveUpError, finished_or_stuck


async def test_work_that_makes_progress_is_carried_through_after_a_signal():
    stopped, ticks = asyncio.Event(), count()
    looked = asyncio.Event()
    stopped.set()

    def progress():
        if (at := next(ticks)) == 8:
            looked.set()
        return at

    async def work():
        await looked.wait()
        return "done"

    assert await finished_or_stuck(work(), stopped, progress, quiet_s=0.001) == "done"


async def test_work_that_stands_still_is_given_up_only_after_a_signal():
    stopped, ended = asyncio.Event(), asyncio.Event()

    async def work():
        stopped.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(GaveUpError):
        await finished_or_stuck(work(), stopped, lambda: 5, quiet_s=0.001)
    assert ended.is_set()


async def test_an_error_of_the_work_is_its_own():
    async def work():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await finished_or_stuck(work(), asyncio.Event(), lambda: 0, quiet_s=1)
