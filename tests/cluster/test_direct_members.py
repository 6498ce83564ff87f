"""Members that read from leaders themselves: each record from who leads it, through kills and new members."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import riverrun
from tests.cluster.test_client_failover import leader_of

PARTITIONS = 6
PATIENCE_S = 60.0


@contextlib.asynccontextmanager
async def member(client, seen):
    """Have a member note what it reads."""
    async with client.consumer(
        "orders", group="g", direct=True, commit="auto", commit_interval_s=0.2
    ) as consumer:

        async def read():
            async for record in consumer:
                seen.append(record.value)

        task = asyncio.create_task(read())
        try:
            yield consumer
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def produce(client, first, count):
    async with client.producer() as producer:
        await asyncio.gather(
            *(
                producer.send("orders", b"%d" % number, partition=number % PARTITIONS)
                for number in range(first, first + count)
            )
        )
    return {b"%d" % number for number in range(first, first + count)}


async def until(what):
    async with asyncio.timeout(PATIENCE_S):
        while not what():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)


def homes(consumer):
    return {p.partition: reader.home for p, reader in consumer._machine.readers.items()}


async def leaders(client):
    described = await client.admin().describe_topic("orders")
    return {number: each.leader for number, each in enumerate(described.partitions)}


@pytest.mark.timeout(240)
async def test_each_partition_is_read_from_its_leader_wherever_that_is(cluster):
    async with riverrun.Client(cluster.bootstrap) as client:
        await client.admin().create_topic("orders", partitions=PARTITIONS, replication_factor=3)
        sent, first, second = await produce(client, 0, 600), [], []
        async with member(client, first) as a:
            await until(lambda: set(first) == sent)
            assert homes(a) == await leaders(client)
            assert len(set(homes(a).values())) > 1

            victim = await leader_of(client, "orders", 0)
            await asyncio.to_thread(cluster.brokers[victim].kill9)
            sent |= await produce(client, 600, 600)
            await until(lambda: set(first) == sent)
            assert victim not in homes(a).values()
            await asyncio.to_thread(cluster.brokers[victim].restart)

            async with member(client, second) as b:
                await until(lambda: len(homes(b)) == len(homes(a)) == PARTITIONS // 2)
                assert not homes(a).keys() & homes(b).keys()
                sent |= await produce(client, 1200, 600)
                await until(lambda: set(first) | set(second) == sent)
                assert len(second) >= 300
            await until(lambda: len(homes(a)) == PARTITIONS)
            sent |= await produce(client, 1800, 600)
            await until(lambda: set(first) | set(second) == sent)
        # What was given back was committed before.
        assert not set(first) & set(second)
        ends = await client.admin().group_offsets("g")
        assert sum(at.offset for at in ends.values() if at) == len(sent)
