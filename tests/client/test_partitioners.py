"""Where records go: by key as Kafka's clients have it, in turn, in batches, or as the application says."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from contextlib import asynccontextmanager
from itertools import pairwise
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

import riverrun
from riverrun import NewRecord, Reason, UsageError
from riverrun._core.murmur2 import murmur2, murmur2_of_key
from riverrun._core.partitioner import route_maker
from tests.client.fake_broker import FakeBroker, impatient

TOPIC = "t"

# org.apache.kafka.common.utils.UtilsTest.testMurmur2, as Java's signed int.
KAFKAS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@asynccontextmanager
async def producing(partitions, **settings):
    broker = FakeBroker()
    broker.add_topic(TOPIC, partitions)
    async with (
        broker.serving() as address,
        impatient(address) as client,
        client.producer(**settings) as producer,
    ):
        yield broker, producer


def logs(broker):
    return [log.values() for log in broker.topics[TOPIC].partitions]


@pytest.mark.parametrize("key", KAFKAS)
def test_murmur2_is_kafkas(key):
    assert murmur2(key) == KAFKAS[key] & 0xFFFF_FFFF
    assert murmur2_of_key(key) == KAFKAS[key] & 0x7FFF_FFFF


def plain_murmur2(data: bytes) -> int:
    """Follow Kafka's Utils.murmur2 line by line, in Java's 32-bit arithmetic."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    for i in range(len(data) // 4):
        k = struct.unpack_from("<I", data, 4 * i)[0]
        k = k * m & mask
        k ^= k >> 24
        k = k * m & mask
        h = h * m & mask
        h ^= k
    rest = data[len(data) // 4 * 4 :]
    if len(rest) == 3:
        h ^= rest[2] << 16
    if len(rest) >= 2:
        h ^= rest[1] << 8
    if rest:
        h ^= rest[0]
        h = h * m & mask
    h ^= h >> 13
    h = h * m & mask
    return h ^ h >> 15


@given(st.binary(max_size=300))
def test_murmur2_is_kafkas_for_keys_of_every_length(key):
    assert murmur2(key) == plain_murmur2(key)
    assert murmur2_of_key(key) == murmur2_of_key(key) == plain_murmur2(key) & 0x7FFF_FFFF


@pytest.mark.parametrize(
    ("name", "hash_of"),
    [("crc32", crc32), ("murmur2", lambda key: plain_murmur2(key) & 0x7FFF_FFFF)],
)
async def test_equal_keys_go_where_their_hash_says_by_every_way(name, hash_of):
    keys = [b"%d" % n for n in range(40)]
    async with producing(5, partitioner=name) as (broker, producer):
        places = await asyncio.gather(*(producer.send(TOPIC, b"", key=k) for k in keys))
        futures = [producer.send_nowait(TOPIC, b"", key=k) for k in keys]
        places += await asyncio.gather(*futures)
        await producer.send_many(TOPIC, [(key, b"") for key in keys])
        await producer.send_many(TOPIC, [NewRecord(b"", key) for key in keys])
    assert [place.partition for place in places] == [hash_of(key) % 5 for key in keys] * 2
    for log in broker.topics[TOPIC].partitions:
        found = Counter(record.key for record in log.records())
        assert found == {key: 4 for key in keys if hash_of(key) % 5 == log.partition}


async def test_round_robin_ignores_keys_and_takes_partitions_in_turn():
    async with producing(3, partitioner="round-robin") as (broker, producer):
        futures = [producer.send_nowait(TOPIC, b"%d" % n, key=b"same") for n in range(7)]
        places = [place.partition for place in await asyncio.gather(*futures)]
        assert all((a + 1) % 3 == b for a, b in pairwise(places)), places
        start = (places[-1] + 1) % 3
        await producer.send_many(TOPIC, [(b"same", b"m%d" % n) for n in range(100)])
    many = [[v for v in values if v.startswith(b"m")] for values in logs(broker)]
    for step in range(3):
        assert many[(start + step) % 3] == [b"m%d" % n for n in range(step, 100, 3)]


async def test_sticky_ignores_keys_and_fills_one_batch_after_the_other():
    records = [(b"%d" % n, bytes(100)) for n in range(1_000)]
    async with producing(4, partitioner="sticky", batch_bytes=10_000) as (broker, producer):
        await producer.send_many(TOPIC, records)
    batches = [log.batches for log in broker.topics[TOPIC].partitions]
    sizes = [batch.record_count for some in batches for batch in some]
    assert sum(sizes) == 1_000
    assert len(sizes) < 20, "batches were filled"
    assert all(batches), "and partitions took turns"


async def test_sticky_moves_on_for_single_records_too():
    async with producing(4, partitioner="sticky", batch_bytes=1_000) as (broker, producer):
        for n in range(100):
            producer.send_nowait(TOPIC, bytes(100), key=b"%d" % (n % 2))
        await producer.flush()
    assert all(logs(broker))


async def test_the_applications_own_is_asked_for_each_record_as_it_is_stored():
    asked = []

    def by_first_byte(topic, key, value, partitions):
        asked.append((topic, key, value, partitions))
        return (value or b"\0")[0] % partitions

    async with producing(3, partitioner=by_first_byte) as (broker, producer):
        assert (await producer.send(TOPIC, b"\1one", key=b"k")).partition == 1
        assert (await producer.send_nowait(TOPIC, None)).partition == 0
        await producer.send_many(TOPIC, [b"\2two", (b"k", b"\1"), NewRecord(b"\0", b"l")])
    assert logs(broker) == [[b"", b"\0"], [b"\1one", b"\1"], [b"\2two"]]
    assert asked == [
        (TOPIC, b"k", b"\1one", 3),
        (TOPIC, None, None, 3),
        (TOPIC, None, b"\2two", 3),
        (TOPIC, b"k", b"\1", 3),
        (TOPIC, b"l", b"\0", 3),
    ]


async def test_it_is_asked_where_there_is_but_one_partition_too():
    async with producing(1, partitioner=lambda *_: 1) as (broker, producer):
        with pytest.raises(UsageError, match=r"returned 1; it must return an int from 0 to 0"):
            await producer.send(TOPIC, b"")
        with pytest.raises(UsageError, match="returned 1"):
            await producer.send_many(TOPIC, [b""])
    assert logs(broker) == [[]]


@pytest.mark.parametrize("name", ["crc32", "murmur2", "round-robin", "sticky", lambda *_: 0])
async def test_a_named_partition_wins_over_every_partitioner(name):
    async with producing(3, partitioner=name) as (broker, producer):
        await producer.send(TOPIC, b"", key=b"k", partition=2)
        await producer.send_nowait(TOPIC, b"", key=b"l", partition=2)
        await producer.send_many(TOPIC, [b"", (b"k", b""), NewRecord(b"")], partition=2)
    assert [len(values) for values in logs(broker)] == [0, 0, 5]


def explode(*_):
    raise LookupError("no shard for it")


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (lambda *_: 3, "returned 3; it must return an int from 0 to 2"),
        (lambda *_: -1, "returned -1; it must"),
        (lambda *_: None, "returned a NoneType; it must"),
        (lambda *_: 1.0, "returned a float; it must"),
        (explode, "partitioner explode raised LookupError: no shard for it"),
    ],
)
async def test_what_it_does_wrong_fails_that_record_alone(own, told):
    def mostly(topic, key, value, partitions):
        return own(topic, key, value, partitions) if value == b"bad" else 0

    mostly.__qualname__ = "explode"
    async with producing(3, partitioner=mostly) as (broker, producer):
        before, bad, after = (producer.send_nowait(TOPIC, v) for v in (b"a", b"bad", b"b"))
        with pytest.raises(UsageError) as caught:
            await bad
        await asyncio.gather(before, after)
        assert told in caught.value.message
        assert caught.value.outcome_known
        assert caught.value.reason is Reason.INVALID_REQUEST
        with pytest.raises(UsageError) as many:
            await producer.send_many(TOPIC, [b"c", b"bad", b"d"])
        assert told in many.value.message
        assert many.value.acknowledged_records == 1
        assert producer._engine.machine.buffered_bytes == 0
    assert logs(broker) == [[b"a", b"b", b"c"], [], []]


def test_a_partitioner_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(UsageError, match="'crc32', 'murmur2', 'round-robin', 'sticky', or a func"):
        riverrun.Client("127.0.0.1:1").producer(partitioner="random")


@pytest.mark.parametrize("name", ["crc32", "murmur2", "round-robin", "sticky"])
def test_partitions_that_were_added_are_used(name):
    route = route_maker(name)(TOPIC, 2, 0)
    route.grow(5)
    chosen = set()
    for n in range(200):
        chosen.add(route.choose(b"%d" % n, b""))
        route.move_on()
    assert chosen == {0, 1, 2, 3, 4}
