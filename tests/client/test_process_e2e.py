"""Consumers of a group that work on records side by side: order of keys, and what is committed, on a real broker."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict

import pytest

import riverrun
from riverrun import TopicPartition
from riverrun.errors import UsageError
from tests.client.test_members_e2e import GROUP, broker, client, produce, reading, until

__all__ = ["broker", "client"]


async def keyed(client, count):
    async with client.producer() as producer:
        await asyncio.gather(
            *[
                producer.send("t", b"%d" % number, key=b"%d" % (number % 5), partition=0)
                for number in range(count)
            ]
        )


async def offset_of(client, partition):
    found = await client.admin().group_offsets(GROUP)
    at = found.get(TopicPartition("t", partition))
    return at.offset if at else None


async def test_keys_are_worked_on_side_by_side_and_each_in_order(client):
    await keyed(client, 100)
    values, at_work, most = defaultdict(list), 0, 0

    async def handler(record):
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.001)
        at_work -= 1
        values[record.key].append(int(record.value))

    async with client.consumer("t", group=GROUP, commit="auto", stop_at_end=True) as consumer:
        await consumer.process(handler)
    assert most == 5
    assert dict(values) == {b"%d" % key: [*range(key, 100, 5)] for key in range(5)}
    assert await offset_of(client, 0) == 100


async def test_a_partition_is_committed_up_to_the_first_that_failed(client):
    await keyed(client, 20)

    async def handler(record):
        if record.value == b"7":
            raise ValueError("the seventh")

    consumer = client.consumer("t", group=GROUP, commit="auto", stop_at_end=True)
    with pytest.raises(ValueError, match="the seventh"):
        async with consumer:
            await consumer.process(handler)
    assert await offset_of(client, 0) == 7


async def test_a_partition_goes_when_what_was_begun_of_it_is_finished_with(client):
    await produce(client, 40)
    go_on, begun, finished = asyncio.Event(), [], []

    async def handler(record):
        begun.append(record.value)
        await go_on.wait()
        finished.append(record.value)

    first = client.consumer("t", group=GROUP, commit="auto", commit_interval_s=60)
    working = asyncio.create_task(first.process(handler))
    await until(lambda: len(begun) == 4)
    async with reading(client) as other:
        await asyncio.sleep(0.5)
        assert other.values == []
        go_on.set()
        await until(lambda: len(finished) == 40)
        assert len(await other.has(2)) == 2
        assert other.values == []
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await first.close()


async def test_at_most_once_has_nothing_to_finish_with(client):
    async with client.consumer("t", group=GROUP, commit="at_most_once") as consumer:
        with pytest.raises(UsageError, match="at_most_once"):
            await consumer.process(lambda record: asyncio.sleep(0))


async def test_a_blocking_consumer_works_in_threads(client, broker):
    await keyed(client, 50)
    values, names = defaultdict(list), set()
    together = threading.Barrier(5, timeout=10)

    def handler(record):
        names.add(threading.current_thread().name.rpartition("_")[0])
        if int(record.value) < 5:
            together.wait()
        values[record.key].append(int(record.value))

    def work():
        with (
            riverrun.blocking.Client(broker.address) as blocking,
            blocking.consumer("t", group=GROUP, commit="auto", stop_at_end=True) as consumer,
        ):
            consumer.process(handler, concurrency=5)

    await asyncio.to_thread(work)
    assert names == {"riverrun-process"}
    assert dict(values) == {b"%d" % key: [*range(key, 50, 5)] for key in range(5)}
    assert await offset_of(client, 0) == 50
