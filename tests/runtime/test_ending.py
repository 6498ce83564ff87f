"""A task that is ended has ended, and whoever waits for that can be cancelled."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.runtime.ending import end


async def test_a_task_that_waits_for_ever_is_ended():
    task = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    await end(task)
    assert task.cancelled()


async def test_what_a_task_raises_while_it_ends_is_raised():
    async def fail():
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("while it ended")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="while it ended"):
        await end(task)


async def test_whoever_ends_a_task_and_is_cancelled_meanwhile_is_cancelled():
    """Found by a follower whose leader's stream ended as it was told to end: it went on for ever."""
    goes_on = []

    async def outer(task):
        await end(task)
        goes_on.append(True)

    inner = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(outer(inner))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert not goes_on
    assert inner.cancelled()
