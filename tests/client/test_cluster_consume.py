"""A consumer in a cluster: from leaders, at its position through whatever happens to them."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing

import pytest

import riverrun
from riverrun import Offset, TopicPartition
from riverrun.v1.records_pb2 import RecordBatch
from tests.client.fake_broker import impatient
from tests.client.fake_cluster import NOBODY, TOPIC, FakeCluster
from tests.client.filling import batch_of

pytestmark = pytest.mark.usefixtures("_in_time")

P0, P1, P2 = (TopicPartition(TOPIC, n) for n in range(3))


@pytest.fixture
async def _in_time():
    async with asyncio.timeout(30):
        yield


def put(cluster: FakeCluster, partition: int, first: int, count: int) -> None:
    """Append batches of one record, whose value is their number."""
    for number in range(first, first + count):
        batch: RecordBatch = batch_of([b"%06d" % number])
        cluster.topics[TOPIC].partitions[partition].store(batch)


async def take(consumer, count: int) -> dict[int, list[int]]:
    """Take so many records; return their values by partition."""
    taken: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for _ in range(count):
        record = await anext(consumer)
        taken[record.partition].append(int(record.value))
    return taken


async def test_each_partition_is_read_at_its_leader():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[2]) as client:
        for partition in range(3):
            put(cluster, partition, 0, 10)
        async with client.consumer(TOPIC) as consumer:
            taken = await take(consumer, 30)
            assert all(values == list(range(10)) for values in taken.values())
            for number, broker in cluster.brokers.items():
                (start,) = broker.subscribe_starts
                assert start.do_not_proxy
                assert [p.partition for p in start.positions] == [number - 1]
            assert consumer.statistics().reconnects == 0


async def test_positions_are_known_at_once_of_all_brokers():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[2]) as client:
        put(cluster, 1, 0, 10)
        async with client.consumer(TOPIC, from_="latest") as consumer:
            assert await consumer.positions() == {P0: 0, P1: 10, P2: 0}
            assert await consumer.lag() == {P0: 0, P1: 0, P2: 0}


async def test_the_end_is_that_of_all_brokers():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[2]) as client:
        put(cluster, 0, 0, 10)
        put(cluster, 2, 0, 500)
        async with client.consumer(TOPIC, stop_at_end=True) as consumer:
            numbers = [(r.partition, int(r.value)) async for r in consumer]
            assert sorted(numbers) == [(0, n) for n in range(10)] + [(2, n) for n in range(500)]
            await consumer.seek(P0, Offset(5))
            assert [int(record.value) async for record in consumer] == list(range(5, 10))


async def test_one_broker_alone_is_watched_by_nobody_and_asked_once():
    async with FakeCluster(brokers=1) as cluster, impatient(cluster.bootstrap) as client:
        put(cluster, 1, 0, 10)
        async with client.consumer(TOPIC, stop_at_end=True) as consumer:
            assert len([record async for record in consumer]) == 10
        broker = cluster.brokers[1]
        assert broker.calls == ["GetServerInfo", "GetMetadata"]
        (start,) = broker.subscribe_starts
        assert (start.topics, start.do_not_proxy) == ([TOPIC], False)


async def test_a_leader_that_moves_is_followed_from_the_position_on():
    async with (
        FakeCluster() as cluster,
        impatient(cluster.endpoints[3]) as client,
        client.consumer(TOPIC) as consumer,
    ):
        for turn in range(6):
            put(cluster, 0, turn * 10, 10)
            await cluster.tell()
            await cluster.elect(0, turn % 3 + 1)
            assert (await take(consumer, 10))[0] == list(range(turn * 10, turn * 10 + 10))


async def test_a_leader_that_dies_costs_a_delay_and_no_record():
    async with (
        FakeCluster() as cluster,
        impatient(cluster.bootstrap) as client,
        client.consumer(TOPIC) as consumer,
    ):
        for partition in range(3):
            put(cluster, partition, 0, 10)
        await cluster.tell()
        first = await take(consumer, 20)
        await cluster.fail_over(1)
        for partition in range(3):
            put(cluster, partition, 10, 10)
        await cluster.tell()
        rest = await take(consumer, 40)
        for partition in range(3):
            assert first[partition] + rest[partition] == list(range(20))


async def test_a_hint_is_followed_where_nobody_pushes_the_news():
    async with (
        FakeCluster() as cluster,
        impatient(cluster.endpoints[3]) as client,
        client.consumer(TOPIC) as consumer,
    ):
        put(cluster, 0, 0, 10)
        await cluster.tell()
        await take(consumer, 10)
        cluster.frozen[3] = dict(cluster.leaders)
        await cluster.elect(0, 2)
        put(cluster, 0, 10, 10)
        await cluster.tell()
        assert (await take(consumer, 10))[0] == list(range(10, 20))
        assert cluster.brokers[2].subscribe_starts[-1].do_not_proxy


async def test_a_leader_that_cannot_be_reached_from_here_is_read_through_another_broker():
    async with FakeCluster() as cluster:
        there = cluster.endpoints[1]
        cluster.endpoints[1] = "127.0.0.1:1"
        async with impatient(cluster.endpoints[2]) as client, client.consumer(TOPIC) as consumer:
            put(cluster, 0, 0, 10)
            await cluster.tell()
            assert (await take(consumer, 10))[0] == list(range(10))
            assert not cluster.brokers[1].subscribe_starts
            cluster.endpoints[1] = there
            await cluster.tell()
            await cluster.brokers[1].until(lambda: cluster.brokers[1].subscribe_streams > 0)
            put(cluster, 0, 10, 10)
            await cluster.tell()
            assert (await take(consumer, 10))[0] == list(range(10, 20))


async def test_a_leader_that_keeps_denying_it_is_read_through_another_broker():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[2]) as client:
        cluster.denying.add(1)
        async with client.consumer(TOPIC) as consumer:
            put(cluster, 0, 0, 10)
            await cluster.tell()
            assert (await take(consumer, 10))[0] == list(range(10))


async def test_all_brokers_gone_and_back_cost_a_delay():
    async with (
        FakeCluster() as cluster,
        impatient(cluster.bootstrap) as client,
        client.consumer(TOPIC) as consumer,
    ):
        put(cluster, 0, 0, 10)
        await cluster.tell()
        await take(consumer, 10)
        for number in (1, 2, 3):
            await cluster.kill(number)
        for partition in range(3):
            put(cluster, partition, 10, 10)
        assert await consumer.getmany(timeout_s=0.2) == []
        for number in (3, 2, 1):
            await cluster.start(number)
        taken = await take(consumer, 30)
        assert all(numbers == list(range(10, 20)) for numbers in taken.values())


async def test_what_was_truncated_at_a_failover_is_told_and_never_skipped():
    async with (
        FakeCluster() as cluster,
        impatient(cluster.endpoints[3]) as client,
        client.consumer(TOPIC, offset_reset="earliest") as consumer,
    ):
        put(cluster, 0, 0, 10)
        await cluster.tell()
        await take(consumer, 10)
        cluster.topics[TOPIC].partitions[0].truncate(7)
        await cluster.elect(0, 2)
        put(cluster, 0, 100, 10)
        await cluster.tell()
        with pytest.raises(riverrun.OffsetOutOfRangeError) as failure:
            await anext(consumer)
        assert failure.value.reason is riverrun.Reason.LOG_TRUNCATED
        assert failure.value.diverging_offset == 7
        await consumer.seek(P0, failure.value.diverging_offset)
        assert (await take(consumer, 10))[0] == list(range(100, 110))


async def test_a_partition_that_is_asked_for_again_tells_what_was_read_before():
    async with (
        FakeCluster(brokers=1) as cluster,
        impatient(cluster.bootstrap) as client,
        client.consumer(TOPIC) as consumer,
    ):
        put(cluster, 0, 0, 10)
        await cluster.tell()
        await take(consumer, 10)
        log = cluster.topics[TOPIC].partitions[0]
        await cluster.elect(0, NOBODY)
        await cluster.brokers[1].until(lambda: cluster.brokers[1].refusals > 0)
        log.truncate(5)
        log.leader_epoch = 9
        put(cluster, 0, 50, 20)
        await cluster.elect(0, 1)
        with pytest.raises(riverrun.OffsetOutOfRangeError) as failure:
            await anext(consumer)
        assert failure.value.reason is riverrun.Reason.LOG_TRUNCATED


async def test_a_group_goes_on_where_it_has_committed_whoever_leads():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[3]) as client:
        for partition in range(3):
            put(cluster, partition, 0, 10)
        async with client.consumer(TOPIC, group="g", commit="auto") as consumer:
            await take(consumer, 12)
        seen = sum(offset for offset, _ in cluster.brokers[1].commits.values())
        assert seen == 12
        await cluster.fail_over(3)
        async with (
            impatient(cluster.bootstrap) as other,
            other.consumer(TOPIC, group="g", stop_at_end=True) as consumer,
        ):
            assert len([record async for record in consumer]) == 18


async def test_pause_and_seek_survive_a_move():
    async with (
        FakeCluster() as cluster,
        impatient(cluster.endpoints[3]) as client,
        client.consumer(TOPIC) as consumer,
    ):
        put(cluster, 0, 0, 20)
        put(cluster, 1, 0, 20)
        await cluster.tell()
        consumer.pause([P0])
        await take(consumer, 20)
        await cluster.elect(0, 2)
        put(cluster, 1, 20, 5)
        await cluster.tell()
        assert (await take(consumer, 5))[0] == [], "what is paused came after a move"
        seeking = asyncio.create_task(consumer.seek(P0, Offset(15)))
        await asyncio.sleep(0)
        await cluster.elect(0, 3)
        await seeking
        consumer.resume([P0])
        assert (await take(consumer, 5))[0] == list(range(15, 20))


async def test_what_a_broker_says_late_of_a_partition_that_has_moved_is_not_believed():
    async with FakeCluster(partitions=6) as cluster, impatient(cluster.endpoints[3]) as client:
        first = cluster.brokers[1]
        first.streams_may_begin.clear()
        put(cluster, 0, 0, 10)
        async with client.consumer(TOPIC) as consumer:
            assert await consumer.getmany(timeout_s=0) == []
            await first.until(lambda: bool(first.subscribe_starts))
            await cluster.elect(0, 2)
            assert (await take(consumer, 10))[0] == list(range(10))
            # It says only now where it begins, also in the partition that has gone on elsewhere.
            first.streams_may_begin.set()
            put(cluster, 0, 10, 10)
            put(cluster, 3, 0, 1)
            await cluster.tell()
            numbers = [int((await anext(consumer)).value) for _ in range(11)]
            assert sorted(numbers) == [0, *range(10, 20)]


async def test_partitions_that_are_added_are_read_too():
    async with (
        FakeCluster() as cluster,
        impatient(cluster.endpoints[3]) as client,
        client.consumer(TOPIC) as consumer,
    ):
        put(cluster, 0, 0, 1)
        await cluster.tell()
        await take(consumer, 1)
        await cluster.add_partition(leader=2)
        cluster.topics[TOPIC].partitions[3].store(batch_of([b"7"]))
        await cluster.tell()
        record = await anext(consumer)
        assert (record.partition, record.value) == (3, b"7")


async def test_read_ahead_stays_within_its_bound_over_moves():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[3]) as client:
        for partition in range(3):
            put(cluster, partition, 0, 300)
        bound = 3000
        async with client.consumer(TOPIC, prefetch_bytes=bound) as consumer:
            seen = await take(consumer, 30)
            for turn in range(9):
                broker = cluster.brokers[1 if cluster.leaders[TOPIC, turn % 3][0] == 2 else 2]
                streams = broker.subscribe_streams
                await cluster.elect(turn % 3, broker.broker_id)
                await broker.until(lambda b=broker, n=streams: b.subscribe_streams > n)
            assert await consumer.lag()
            # Each broker may overdraw by one delivery.
            assert consumer.statistics().read_ahead_bytes <= bound + 3 * 600
            for partition, values in (await take(consumer, 870)).items():
                assert seen[partition] + values == list(range(300))


async def test_one_that_was_through_when_its_leader_moved_is_followed_once_that_says_so():
    async with through_before_it_moved() as (cluster, _, consumer, left):
        await cluster.elect(0, 2)
        assert sorted([(r.partition, int(r.value)) async for r in consumer]) == left


async def test_one_that_was_through_when_its_leader_moved_is_followed_once_it_is_sought():
    async with through_before_it_moved() as (cluster, client, consumer, left):
        cluster.frozen[1] = dict(cluster.leaders)
        moved = asyncio.Event()
        client._cluster.listen(lambda _: moved.set())
        await cluster.elect(0, 2)
        await moved.wait()
        del cluster.frozen[1]
        await consumer.seek(P0, Offset(5))
        again = [(0, n) for n in range(5, 10)]
        assert sorted([(r.partition, int(r.value)) async for r in consumer]) == again + left


@contextlib.asynccontextmanager
async def through_before_it_moved():
    """A consumer that has all of one partition, on a stream that stays, for another is not through."""
    async with (
        FakeCluster(partitions=6) as cluster,
        impatient(cluster.endpoints[3], request_timeout_s=3) as client,
    ):
        put(cluster, 0, 0, 10)
        put(cluster, 3, 0, 300)
        async with client.consumer(TOPIC, stop_at_end=True, prefetch_bytes=3000) as consumer:
            first = [await anext(consumer) for _ in range(30)]
            assert [int(r.value) for r in first if r.partition == 0] == list(range(10))
            seen = sum(r.partition == 3 for r in first)
            yield cluster, client, consumer, [(3, n) for n in range(seen, 300)]


async def test_an_unknown_topic_is_an_error_in_a_cluster_too():
    async with FakeCluster() as cluster, impatient(cluster.endpoints[3]) as client:
        async with aclosing(client.consumer("other")) as consumer:
            with pytest.raises(riverrun.TopicNotFoundError):
                await anext(consumer)
        async with client.consumer(TOPIC, "other") as consumer:
            put(cluster, 0, 0, 3)
            await cluster.tell()
            with pytest.raises(riverrun.TopicNotFoundError):
                await take(consumer, 4)
