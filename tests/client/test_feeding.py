"""What an iterable has yielded goes out when it pauses, also where a run was full and a batch is not."""

from __future__ import annotations

import asyncio

from riverrun._net.feeding import feed


async def test_the_first_record_of_a_slow_source_does_not_wait_for_the_second():
    second = asyncio.Event()

    async def source():
        yield b"0"
        await second.wait()
        yield b"1"

    told = []
    async for run in feed(source(), lambda: 5 if told else 1, 0.001):
        told.append(run)
        if told[-1] == ([], True):
            second.set()
    assert told[:2] == [([b"0"], False), ([], True)]
    assert [item for items, _ in told for item in items] == [b"0", b"1"]


async def test_a_source_that_does_not_pause_is_not_told_to():
    async def source():
        for number in range(100):
            yield number

    told = [run async for run in feed(source(), lambda: 10, 60)]
    assert [item for items, _ in told for item in items] == [*range(100)]
    assert not any(pause for _, pause in told)
