"""A handler is called with as many records at a time as is wanted, and what fails is not finished with."""

from __future__ import annotations

import asyncio

import pytest

from riverrun._core.records import Record
from riverrun._net.processing import Processing


def record(offset, key=None, partition=0):
    return Record("t", partition, offset, 0, key, b"", ())


class Source:
    """Gives lists of records, then waits, or is at the end."""

    def __init__(self, *lists, ends=True):
        self.lists = list(lists)
        self.ends = ends
        self.was_cancelled = False

    async def more(self, room):
        if self.lists:
            return self.lists.pop(0)
        if self.ends:
            return []
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


async def test_so_many_are_worked_on_at_a_time_and_no_more():
    at_work, most = 0, 0

    async def handler(_):
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        at_work -= 1

    source = Source([record(number, key=number) for number in range(20)])
    work = Processing(source.more, handler, 3, lambda: None)
    await work.run()
    assert (most, len(work.in_progress)) == (3, 0)


async def test_each_that_is_finished_with_is_told():
    told = []

    async def handler(_):
        pass

    work = Processing(Source([record(0), record(1)]).more, handler, 3, lambda: told.append(1))
    await work.run()
    assert len(told) == 2


async def test_what_failed_and_what_was_not_begun_is_not_finished_with():
    slow = asyncio.Event()
    ended = []

    async def handler(each):
        if each.offset == 1:
            raise ValueError("the second")
        await slow.wait()
        ended.append(each.offset)

    source = Source([record(number, key=number % 3) for number in range(5)], ends=False)
    work = Processing(source.more, handler, 3, lambda: None)
    running = asyncio.create_task(work.run())
    await asyncio.sleep(0.01)
    assert source.was_cancelled
    assert not running.done()
    slow.set()
    with pytest.raises(ValueError, match="the second"):
        await running
    assert sorted(ended) == [0, 2]
    assert list(work.in_progress.lowest().values()) == [1]
    assert len(work.in_progress) == 3


async def test_a_handler_that_cancels_itself_ends_the_work():
    async def handler(_):
        raise asyncio.CancelledError

    work = Processing(Source([record(0)], ends=False).more, handler, 1, lambda: None)
    with pytest.raises(asyncio.CancelledError):
        await work.run()


async def test_an_error_of_the_source_is_raised_once_what_is_under_way_has_ended():
    ended = []

    async def handler(each):
        await asyncio.sleep(0.01)
        ended.append(each.offset)

    calls = iter([[record(0)]])

    async def more(_):
        try:
            return next(calls)
        except StopIteration:
            raise ConnectionError("gone") from None

    with pytest.raises(ConnectionError):
        await Processing(more, handler, 1, lambda: None).run()
    assert ended == [0]


async def test_cancelled_once_it_lets_handlers_end_and_cancelled_twice_it_does_not():
    handlers = []

    async def handler(_):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            handlers.append("cancelled")
            raise

    work = Processing(Source([record(0)], ends=False).more, handler, 1, lambda: None)
    running = asyncio.create_task(work.run())
    await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.sleep(0.01)
    assert not running.done()
    assert handlers == []
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await asyncio.sleep(0)
    assert running.cancelled()
    assert handlers == ["cancelled"]
