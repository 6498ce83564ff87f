"""One Fetch over a thousand partitions that have to be read from the disk brings what fits, and no refusal."""

from __future__ import annotations

import asyncio

import grpc.aio

from riverrun.v1.admin_pb2 import CreateTopicRequest
from riverrun.v1.admin_pb2_grpc import AdminServiceStub
from riverrun.v1.consumer_pb2 import FetchRequest, StartPosition
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.producer_pb2 import ProduceRequest
from riverrun.v1.producer_pb2_grpc import ProducerServiceStub
from riverrun.v1.records_pb2 import Record

TOPIC, PARTITIONS = "wide", 1000


async def write_one_to_each(address):
    async with grpc.aio.insecure_channel(address) as channel:
        request = CreateTopicRequest(topic=TOPIC, partitions=PARTITIONS)
        await AdminServiceStub(channel).CreateTopic(request)
        produce = ProducerServiceStub(channel).Produce
        for first in range(0, PARTITIONS, 100):  # gRPC takes back some of a thousand calls at once
            await asyncio.gather(
                *(
                    produce(ProduceRequest(topic=TOPIC, partition=number, records=two_of(number)))
                    for number in range(first, first + 100)
                )
            )


def two_of(number):
    return [Record(value=b"%d" % number), Record()]


async def fetch(channel, offsets):
    """Fetch from all partitions at once, and go on behind what came; return the values."""
    positions = [
        StartPosition(topic=TOPIC, partition=number, offset=offset)
        for number, offset in offsets.items()
    ]
    answer = await ConsumerServiceStub(channel).Fetch(FetchRequest(positions=positions))
    assert not answer.errors
    assert sorted(each.partition for each in answer.deliveries) == sorted(offsets)
    for each in answer.deliveries:
        # Whose turn did not come is told from what is at its end.
        assert each.high_watermark == 2
        offsets[each.partition] = each.next_offset
    return [record.value for each in answer.deliveries for record in each.records if record.value]


async def test_a_fetch_over_a_thousand_cold_partitions_is_answered(broker_process):
    broker_process.start()
    await write_one_to_each(broker_process.address)
    await asyncio.to_thread(broker_process.term)
    # Nothing is in its memory now.
    await asyncio.to_thread(broker_process.restart)
    everything = sorted(b"%d" % number for number in range(PARTITIONS))
    async with grpc.aio.insecure_channel(broker_process.address) as channel:

        async def read_all():
            offsets, found = dict.fromkeys(range(PARTITIONS), 0), []
            while len(found) < PARTITIONS:
                some = await fetch(channel, offsets)
                assert some
                found += some
            return sorted(found)

        assert await fetch(channel, dict.fromkeys(range(PARTITIONS), 0))
        # And two at once, on one connection.
        assert await asyncio.gather(read_all(), read_all()) == [everything] * 2
