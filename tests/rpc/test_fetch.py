"""Fetch: answered when there is enough or the time is up, and never polling in between."""

import asyncio

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from riverrun.v1 import consumer_pb2, errors_pb2
from riverrun.v1.consumer_pb2 import FetchRequest, FetchResponse, OffsetCommit, StartPosition
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.records_pb2 import CODEC_ZSTD
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.rpc.fetch import Fetcher
from riverrun_server.wire import codecs
from tests.rpc.fake_partitions import FakeDirectory
from tests.rpc.reading_world import World, serving
from tests.sim.loop import simulate

WAIT_10_S = Duration(seconds=10)


def at(partition, offset=0, **fields):
    return StartPosition(topic="t", partition=partition, offset=offset, **fields)


def simulated(scenario):
    """Run a scenario with a fetch function and the two partitions of topic `t`."""

    def test():
        async def run():
            directory = FakeDirectory()
            directory.create("t", 2)
            async with World(directory) as world:
                fetcher = Fetcher(world.services)

                async def fetch(*positions, **fields):
                    request = FetchRequest(positions=positions, **fields)
                    return FetchResponse.FromString(await fetcher.fetch(request))

                await scenario(fetch, *directory.topics["t"])

        for seed in range(3):
            simulate(run(), seed)

    test.__name__ = scenario.__name__
    return test


def values(response, partition=0):
    return [
        record.value
        for each in response.deliveries
        if each.partition == partition
        for record in each.records
    ]


def now():
    return asyncio.get_running_loop().time()


@simulated
async def test_what_is_there_is_answered_at_once(fetch, t0, t1):
    t0.append(b"a", b"b")
    t1.append(b"c")
    before = now()
    response = await fetch(at(0), at(1), max_wait=WAIT_10_S)
    assert now() == before
    assert values(response) == [b"a", b"b"]
    assert values(response, 1) == [b"c"]


@simulated
async def test_zero_wait_answers_at_once_with_watermarks(fetch, t0, t1):
    t0.append(b"a")
    before = now()
    response = await fetch(at(0, 1), at(1))
    assert now() == before
    assert [(each.next_offset, each.high_watermark) for each in response.deliveries] == [
        (1, 1),
        (0, 0),
    ]
    assert values(response) == values(response, 1) == []


@simulated
async def test_at_once_still_delivers_what_is_on_the_disk(fetch, t0, t1):
    t0.append(b"a")
    t0.cold = True
    response = await fetch(at(0), at(1))
    assert values(response) == [b"a"]


@simulated
async def test_a_long_poll_is_answered_as_soon_as_there_is_something(fetch, t0, t1):
    polling = asyncio.create_task(fetch(at(0), at(1), max_wait=WAIT_10_S))
    await asyncio.sleep(3)
    assert not polling.done()
    takes = t0.takes
    t1.append(b"x")
    before = now()
    assert values(await polling, 1) == [b"x"]
    assert now() - before < 0.01
    assert t0.takes - takes <= 2


@simulated
async def test_a_long_poll_ends_when_its_time_is_up_and_looks_only_when_woken(fetch, t0, t1):
    before = now()
    response = await fetch(at(0), at(1), max_wait=WAIT_10_S)
    assert now() - before == pytest.approx(10)
    assert t0.takes <= 3
    assert len(response.deliveries) == 2
    assert not t0.cursors


@simulated
async def test_a_long_poll_waits_for_its_minimum(fetch, t0, t1):
    polling = asyncio.create_task(fetch(at(0), max_wait=WAIT_10_S, min_bytes=250))
    for n in range(3):
        await asyncio.sleep(1)
        assert not polling.done()
        t0.append(b"%d" % n * 100)
    response = await polling
    (delivery,) = response.deliveries
    assert [record.offset for record in delivery.records] == [0, 1, 2]
    assert (delivery.first_offset, delivery.next_offset) == (0, 3)


@simulated
async def test_a_minimum_that_does_not_come_is_not_waited_for_too_long(fetch, t0, t1):
    t0.append(b"a")
    before = now()
    response = await fetch(at(0), max_wait=WAIT_10_S, min_bytes=1 << 30)
    assert now() - before == pytest.approx(10)
    assert values(response) == [b"a"]


@simulated
async def test_no_wait_is_longer_than_the_broker_allows(fetch, t0, t1):
    before = now()
    await fetch(at(0), max_wait=Duration(seconds=1 << 40), min_bytes=1 << 30)
    assert now() - before == pytest.approx(ReadingLimits().fetch_wait_s_max)


@simulated
async def test_an_answer_aims_at_its_maximum_and_has_at_least_one_record(fetch, t0, t1):
    for _ in range(20):
        t0.append(*[b"x" * 1000] * 10)
        t1.append(*[b"x" * 1000] * 10)
    for form in (consumer_pb2.FORM_RECORDS, consumer_pb2.FORM_BATCHES):
        response = await fetch(at(0), at(1), max_bytes=50_000, form=form)
        assert response.ByteSize() <= 62_000
        assert all(each.next_offset > 0 for each in response.deliveries)
        response = await fetch(at(0), max_bytes=1, form=form)
        assert response.deliveries[0].next_offset >= 1


@simulated
async def test_large_batches_never_make_an_answer_that_an_untuned_stub_refuses(fetch, t0, t1):
    for each in (t0, t1):
        each.append(b"x" * 2_900_000)
    for _ in range(2):
        response = await fetch(at(0), at(1), form=consumer_pb2.FORM_BATCHES, max_bytes=1 << 30)
        assert response.ByteSize() < 4 << 20
        assert sorted(each.next_offset for each in response.deliveries) == [0, 1]


@simulated
async def test_whoever_is_asked_first_changes_so_that_nobody_starves(fetch, t0, t1):
    for each in (t0, t1):
        for _ in range(5):
            each.append(b"x" * 900_000)
    seen = set()
    for _ in range(2):
        response = await fetch(at(0), at(1), max_bytes=100_000)
        seen |= {each.partition for each in response.deliveries if each.records}
    assert seen == {0, 1}


@simulated
async def test_a_position_inside_a_batch_gets_only_what_it_asks_for(fetch, t0, t1):
    t0.append(b"a", b"b", b"c", codec=codecs.ZSTD)
    assert values(await fetch(at(0, 1))) == [b"b", b"c"]
    response = await fetch(at(0, 1), form=consumer_pb2.FORM_BATCHES, accept_codecs=[CODEC_ZSTD])
    (delivery,) = response.deliveries
    assert (delivery.first_offset, delivery.next_offset) == (1, 3)
    assert delivery.batches[0].SerializeToString() == t0.batches[0].data


@simulated
async def test_a_partition_that_cannot_be_read_is_told_at_once_beside_the_others(fetch, t0, t1):
    t0.append(b"a")
    before = now()
    response = await fetch(
        at(0),
        at(1, 50),
        at(7),
        StartPosition(topic="nope"),
        max_wait=WAIT_10_S,
        min_bytes=10_000,
    )
    assert now() == before
    assert values(response) == [b"a"]
    assert sorted((each.topic, each.partition, each.error.reason) for each in response.errors) == [
        ("nope", 0, errors_pb2.ERROR_REASON_TOPIC_NOT_FOUND),
        ("t", 1, errors_pb2.ERROR_REASON_OFFSET_OUT_OF_RANGE),
        ("t", 7, errors_pb2.ERROR_REASON_PARTITION_NOT_FOUND),
    ]


@simulated
async def test_an_offline_partition_is_an_error_of_its_own(fetch, t0, t1):
    t0.broken = Refusal(Reason.PARTITION_OFFLINE, "damaged")
    t1.append(b"b")
    response = await fetch(at(0), at(1))
    assert values(response, 1) == [b"b"]
    assert response.errors[0].error.reason == errors_pb2.ERROR_REASON_PARTITION_OFFLINE


@simulated
async def test_a_truncated_position_is_told_with_where_the_log_departs(fetch, t0, t1):
    t0.append(*[b"x"] * 10)
    t0.truncate(4, leader_epoch=2)
    t0.append(*[b"y"] * 10)
    response = await fetch(at(0, 8, leader_epoch=1))
    assert response.errors[0].error.reason == errors_pb2.ERROR_REASON_LOG_TRUNCATED


async def test_over_grpc_with_a_group():
    directory = FakeDirectory()
    directory.create("t", 1)[0].append(b"a", b"b", b"c")
    async with serving(World(directory)) as channel:
        stub = ConsumerServiceStub(channel)
        await stub.CommitOffset(
            consumer_pb2.CommitOffsetRequest(
                group_id="g", offsets=[OffsetCommit(topic="t", offset=2)]
            )
        )
        position = StartPosition(topic="t", **{"from": consumer_pb2.FROM_COMMITTED})
        response = await stub.Fetch(FetchRequest(positions=[position], group_id="g"))
        assert values(response) == [b"c"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "nothing to read"),
        ({"positions": [at(0), at(0, 5)]}, "twice"),
        ({"positions": [at(0)] * 1001}, "1001 partitions"),
        ({"positions": [at(0, -1)]}, "offset is -1"),
        ({"positions": [StartPosition(topic="t", **{"from": 3})]}, "group"),
        ({"positions": [at(0)], "form": 9}, "form is 9"),
        ({"positions": [at(0)], "min_bytes": -1}, "min_bytes is -1"),
        ({"positions": [at(0)], "max_bytes": -1}, "max_bytes is -1"),
        ({"positions": [at(0)], "max_wait": Duration(seconds=-1)}, "max_wait is -1"),
        ({"positions": [at(0)], "group_id": "\n"}, "group_id"),
    ],
)
async def test_a_request_that_makes_no_sense_is_a_clear_error(fields, says):
    directory = FakeDirectory()
    directory.create("t", 1)
    async with serving(World(directory)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ConsumerServiceStub(channel).Fetch(FetchRequest(**fields))
    assert says in caught.value.details()
