"""What is not committed is shown to nobody, whichever way somebody asks."""

from __future__ import annotations

import pytest

from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import Position
from riverrun_server.ports.partitions import Acks, Append
from riverrun_server.runtime.fetch import Fetch
from riverrun_server.runtime.fetch_terms import FetchTerms
from riverrun_server.wire import forms
from riverrun_server.wire.ingress import IngressLimits, accept
from tests.runtime.manual import InlineThreads, settle
from tests.runtime.partition_world import ID, NOW_MS, World

TIMES_MS = [NOW_MS - 60_000, NOW_MS - 30_000]


def append(world, time_ms):
    data = RecordSet(records=[Record(value=b"v", timestamp_ms=time_ms)]).SerializeToString()
    batch = accept(RecordBatch(records=data), IngressLimits(1 << 20), NOW_MS)
    world.partition.submit(Append(batch, Acks.ALL, lambda _: None))


async def fetched(partition, offset):
    terms = FetchTerms(min_bytes=1, max_bytes=1 << 20, max_wait_s=0)
    fetch = Fetch(InlineThreads(), ReadingLimits(), forms.RECORDS, terms)
    position = Position("t", ID, offset, partition.high_watermark, 0)
    (delivery,) = await fetch.run([partition], [position])
    return delivery


async def by_watermarks(partition):
    return (await partition.watermarks()).high_watermark


async def by_the_watermark_at_hand(partition):
    return partition.high_watermark


async def by_time(partition):
    found = [await partition.offset_at_time(time_ms) for time_ms in TIMES_MS]
    return sum(each is not None for each in found)


async def by_a_cursor(partition):
    cursor, position = partition.cursor(0, lambda: None), 0
    for _ in range(4):
        if (chunk := cursor.take(1 << 20)) is not None:
            position = chunk.next_offset
            assert max(batch.next_offset for batch in chunk.batches) <= chunk.high_watermark
        await settle()
    cursor.close()
    return position


async def by_fetching(partition):
    return (await fetched(partition, 0)).next_offset


async def by_fetching_at_the_end(partition):
    return (await fetched(partition, 1)).high_watermark


ASKED = [
    by_watermarks,
    by_the_watermark_at_hand,
    by_time,
    by_a_cursor,
    by_fetching,
    by_fetching_at_the_end,
]


@pytest.mark.parametrize("tail_bytes", [0, 1 << 20], ids=["disk", "memory"])
@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.__name__)
async def test_a_record_is_known_once_it_is_committed_and_not_before(asked, tail_bytes):
    world = World(tail_bytes=tail_bytes)
    await world.open()
    append(world, TIMES_MS[0])
    await world.sync()
    append(world, TIMES_MS[1])
    await settle()
    assert world.partition.log_end_offset == 2
    assert await asked(world.partition) == 1
    await world.sync()
    assert await asked(world.partition) == 2
    world.running.cancel()
