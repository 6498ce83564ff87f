"""A producer in a cluster: to leaders, and through whatever happens to them, in order and once."""

from __future__ import annotations

import asyncio

import pytest

import riverrun
from tests.client.fake_broker import impatient
from tests.client.fake_cluster import NOBODY, TOPIC, FakeCluster

pytestmark = pytest.mark.usefixtures("_in_time")


@pytest.fixture
async def _in_time():
    async with asyncio.timeout(30):
        yield


async def send(producer, count: int, partition: int, first: int = 0) -> list[int]:
    """Send numbers to a partition; return their offsets."""
    sent = [
        producer.send_nowait(TOPIC, b"%06d" % number, partition=partition)
        for number in range(first, first + count)
    ]
    return [place.offset for place in await asyncio.gather(*sent)]


def values(cluster: FakeCluster, partition: int) -> list[int]:
    return [int(value) for value in cluster.topics[TOPIC].partitions[partition].values()]


async def test_each_partition_is_written_at_its_leader():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[1]) as client:
        producer = client.producer()
        for partition in range(3):
            assert await send(producer, 10, partition) == list(range(10))
        assert [broker.produce_streams for broker in cluster.brokers.values()] == [1, 1, 1]
        assert cluster.proxied == {}


async def test_one_broker_alone_is_watched_by_nobody_and_has_one_stream():
    async with FakeCluster(brokers=1) as cluster, impatient(cluster.bootstrap) as client:
        producer = client.producer()
        for partition in range(3):
            await send(producer, 10, partition)
        broker = cluster.brokers[1]
        assert broker.produce_streams == 1
        assert broker.calls == ["GetServerInfo", "GetMetadata", "InitProducer"]


async def test_a_leader_that_moves_is_followed_and_the_order_is_kept():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[3]) as client:
        producer = client.producer(batch_bytes=100)
        for turn in range(6):
            sending = asyncio.create_task(send(producer, 50, 0, turn * 50))
            await asyncio.sleep(0)
            await cluster.elect(0, turn % 3 + 1)
            await sending
        assert values(cluster, 0) == list(range(300))


async def test_a_hint_is_followed_where_nobody_pushes_the_news():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[3]) as client:
        producer = client.producer()
        await send(producer, 10, 0)
        # Whoever is watched hears of nothing any more; the old leader knows.
        cluster.frozen[3] = dict(cluster.leaders)
        await cluster.elect(0, 2)
        await send(producer, 10, 0, 10)
        assert values(cluster, 0) == list(range(20))
        assert cluster.brokers[2].produce_streams == 1
        assert cluster.proxied == {}


async def test_a_stale_hint_is_ignored():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[3]) as client:
        producer = client.producer()
        await send(producer, 10, 0)
        believed = dict(cluster.leaders)
        await cluster.elect(0, 2)
        await send(producer, 10, 0, 10)
        # The leader has forgotten its election for a moment, and names the one before it.
        cluster.frozen[2] = believed
        sending = asyncio.create_task(send(producer, 10, 0, 20))
        await cluster.brokers[2].until(lambda: bool(cluster.brokers[2].plan.append_number))
        await asyncio.sleep(0.05)
        assert cluster.brokers[1].plan.append_number <= 10, "it went back to the old leader"
        cluster.frozen.clear()
        await sending
        assert values(cluster, 0) == list(range(30))


async def test_a_leader_that_dies_mid_stream_costs_a_delay_and_no_record():
    async with FakeCluster() as cluster, impatient(cluster.bootstrap) as client:
        producer = client.producer(batch_bytes=100)
        sending = asyncio.create_task(send(producer, 500, 0))
        await cluster.brokers[1].until(lambda: cluster.brokers[1].plan.append_number > 5)
        await cluster.fail_over(1)
        await sending
        assert values(cluster, 0) == list(range(500))


async def test_a_partition_without_a_leader_waits_and_one_with_a_leader_does_not():
    async with FakeCluster() as cluster, impatient(cluster.bootstrap) as client:
        producer = client.producer()
        await send(producer, 1, 0)
        await cluster.kill(1)
        waiting = asyncio.create_task(send(producer, 10, 0, 1))
        assert len(await send(producer, 10, 1)) == 10
        assert not waiting.done()
        await cluster.elect(0, NOBODY)
        assert len(await send(producer, 10, 2)) == 10
        assert not waiting.done()
        await cluster.elect(0, 3)
        await waiting
        assert values(cluster, 0) == list(range(11))


async def test_a_leader_that_cannot_be_reached_from_here_is_written_to_through_another_broker():
    async with FakeCluster() as cluster:
        there = cluster.endpoints[1]
        cluster.endpoints[1] = "127.0.0.1:1"
        async with impatient(cluster.endpoints[2]) as client:
            producer = client.producer()
            await send(producer, 10, 0)
            assert values(cluster, 0) == list(range(10))
            assert cluster.proxied.keys() == {2}
            passed_on = cluster.proxied[2]
            cluster.endpoints[1] = there
            await cluster.tell()
            async with asyncio.timeout(10):
                first = 10
                while not cluster.brokers[1].produce_streams:
                    await send(producer, 1, 0, first)
                    first += 1
            await send(producer, 10, 0, first)
            assert values(cluster, 0) == list(range(first + 10))
            assert cluster.brokers[1].produce_streams == 1
            assert cluster.proxied[2] >= passed_on


async def test_a_leader_that_keeps_denying_it_is_written_to_through_another_broker():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[2]) as client:
        cluster.denying.add(1)
        producer = client.producer()
        await send(producer, 10, 0)
        assert values(cluster, 0) == list(range(10))
        assert sum(cluster.proxied.values()) > 0


async def test_a_broker_that_the_metadata_says_is_gone_is_used_no_more():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[2]) as client:
        producer = client.producer()
        await send(producer, 10, 0)
        cluster.registered.discard(1)
        await cluster.elect(0, 3)
        await send(producer, 10, 0, 10)
        await cluster.kill(1)
        await send(producer, 10, 0, 20)
        assert values(cluster, 0) == list(range(30))
        assert 1 not in client._cluster.leaders.endpoints


async def test_all_brokers_gone_and_back_cost_a_delay():
    async with FakeCluster() as cluster, impatient(cluster.bootstrap) as client:
        producer = client.producer()
        await send(producer, 10, 0)
        for number in (1, 2, 3):
            await cluster.kill(number)
        sending = [asyncio.create_task(send(producer, 10, n, 10 * (not n))) for n in range(3)]
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in sending)
        for number in (1, 2, 3):
            await cluster.start(number)
        await asyncio.gather(*sending)
        assert values(cluster, 0) == list(range(20))


async def test_the_first_address_may_be_dead_and_the_others_unknown():
    async with FakeCluster() as cluster, impatient(f"127.0.0.1:1,{cluster.endpoints[2]}") as client:
        producer = client.producer()
        await send(producer, 10, 0)
        await cluster.fail_over(2)
        # The address that was given is gone; what it told is enough.
        await send(producer, 10, 1)
        assert (await client.server_info()).broker_id in (1, 3)


async def test_a_leader_that_hangs_is_not_waited_for_once_another_one_leads():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[2]) as client:
        producer = client.producer(batch_bytes=100)
        await send(producer, 10, 0)
        cluster.brokers[1].hangs = True
        sending = asyncio.create_task(send(producer, 100, 0, 10))
        await cluster.brokers[1].until(lambda: cluster.brokers[1].swallowed > 2)
        await cluster.elect(0, 3)
        began = asyncio.get_running_loop().time()
        await sending
        assert asyncio.get_running_loop().time() - began < 5
        assert values(cluster, 0) == list(range(110))


async def test_a_partition_comes_back_to_a_broker_that_remembers_its_failure():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[3]) as client:
        producer = client.producer()
        cluster.frozen[3] = dict(cluster.leaders)
        await send(producer, 10, 0)
        await cluster.elect(0, 2)
        # Refused by 1, which from now on expects sequence 10 on this stream.
        await send(producer, 10, 0, 10)
        await cluster.elect(0, 1)
        await send(producer, 10, 0, 20)
        assert values(cluster, 0) == list(range(30))
        assert cluster.brokers[1].produce_streams == 2


async def test_without_idempotence_what_moves_is_written_once_and_nothing_is_told_wrong():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[3]) as client:
        producer = client.producer(idempotent=False, batch_bytes=100)
        for turn in range(4):
            sending = asyncio.create_task(send(producer, 50, 0, turn * 50))
            await asyncio.sleep(0)
            await cluster.elect(0, turn % 3 + 1)
            await sending
        assert sorted(values(cluster, 0)) == list(range(200))


async def test_the_delivery_timeout_holds_where_nobody_leads():
    async with FakeCluster() as cluster, impatient(cluster.bootstrap) as client:
        producer = client.producer(delivery_timeout_s=0.3)
        await send(producer, 1, 0)
        await cluster.elect(0, NOBODY)
        with pytest.raises(riverrun.TimedOutError, match="nobody leads"):
            await send(producer, 1, 0, 1)
        assert values(cluster, 0) == [0]
