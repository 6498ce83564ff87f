"""The Python client at a real cluster whose leaders are killed, with kill -9, while it writes and reads."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import pytest

import riverrun

PARTITIONS = 3
# A few here; as many as one likes by hand.
KILLS = int(os.environ.get("RIVERRUN_KILLS", "3"))


async def leader_of(client: riverrun.Client, topic: str, partition: int) -> int:
    """Return who leads a partition, once somebody does and all replicas are in sync."""
    give_up_at = time.monotonic() + 60
    while True:
        described = await client.admin().describe_topic(topic)
        in_sync = all(len(each.in_sync_replicas) == 3 for each in described.partitions)
        leader = described.partitions[partition].leader
        if in_sync and leader > 0:
            return leader
        assert time.monotonic() < give_up_at, described.partitions
        await asyncio.sleep(0.1)


async def produce(producer, topic: str, stop: asyncio.Event, slowest: list[float]) -> list[int]:
    """Send numbers to all partitions until told to stop; return how many each has acknowledged."""
    acknowledged = [0] * PARTITIONS

    async def one(partition: int) -> None:
        while not stop.is_set():
            began_s = time.monotonic()
            sent = [
                producer.send(topic, b"%d" % number, partition=partition)
                for number in range(acknowledged[partition], acknowledged[partition] + 20)
            ]
            places = await asyncio.gather(*sent)
            slowest.append(time.monotonic() - began_s)
            offsets = [place.offset for place in places if place.offset is not None]
            assert offsets == sorted(offsets)
            acknowledged[partition] += len(sent)

    await asyncio.gather(*(one(partition) for partition in range(PARTITIONS)))
    return acknowledged


async def consume(consumer, seen: list[list[int]]) -> None:
    async for record in consumer:
        seen[record.partition].append(int(record.value))


@pytest.mark.timeout(120 + 60 * KILLS)
async def test_leaders_are_killed_and_nobody_hears_of_more_than_a_delay(cluster):
    dice = random.Random(7)
    async with riverrun.Client(cluster.bootstrap) as client:
        await client.admin().create_topic("orders", partitions=PARTITIONS, replication_factor=3)
        stop, slowest = asyncio.Event(), []
        seen: list[list[int]] = [[] for _ in range(PARTITIONS)]
        async with client.producer() as producer, client.consumer("orders") as consumer:
            reading = asyncio.create_task(consume(consumer, seen))
            writing = asyncio.create_task(produce(producer, "orders", stop, slowest))
            for _ in range(KILLS):
                victim = await leader_of(client, "orders", dice.randrange(PARTITIONS))
                broker = cluster.brokers[victim]
                await asyncio.to_thread(broker.kill9)
                await asyncio.sleep(dice.uniform(0.5, 5))
                assert not writing.done(), writing
                assert not reading.done(), reading
                await asyncio.to_thread(broker.restart)
            await leader_of(client, "orders", 0)
            stop.set()
            acknowledged = await writing
            async with asyncio.timeout(60):
                while any(len(seen[p]) < acknowledged[p] for p in range(PARTITIONS)):
                    assert not reading.done(), reading
                    await asyncio.sleep(0.1)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        for partition in range(PARTITIONS):
            assert seen[partition] == list(range(acknowledged[partition]))


@pytest.mark.timeout(240)
async def test_a_hung_leader_costs_a_delay_and_a_group_goes_on_where_it_has_committed(cluster):
    async with riverrun.Client(cluster.bootstrap) as client:
        await client.admin().create_topic("orders", partitions=PARTITIONS, replication_factor=3)
        stop, slowest = asyncio.Event(), []
        seen: list[list[int]] = [[] for _ in range(PARTITIONS)]
        async with client.producer() as producer:
            writing = asyncio.create_task(produce(producer, "orders", stop, slowest))
            consumer = client.consumer(
                "orders", group="billing", commit="auto", commit_interval_s=0.5
            )
            reading = asyncio.create_task(consume(consumer, seen))
            hung = cluster.brokers[await leader_of(client, "orders", 1)]
            os.kill(hung.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(12)
            finally:
                os.kill(hung.pid, signal.SIGCONT)
            await leader_of(client, "orders", 0)
            assert not writing.done(), writing
            assert not reading.done(), reading
            stop.set()
            acknowledged = await writing
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await consumer.close()
    async with (
        riverrun.Client(cluster.bootstrap) as other,
        other.consumer(
            "orders", group="billing", partitions=range(PARTITIONS), stop_at_end=True
        ) as consumer,
    ):
        first = {p.partition: at for p, at in (await consumer.positions()).items()}
        await consume(consumer, rest := [[], [], []])
    for partition in range(PARTITIONS):
        known = seen[partition][: first[partition]]
        assert known == list(range(first[partition])), "what was committed had not been read"
        assert known + rest[partition] == list(range(acknowledged[partition]))
