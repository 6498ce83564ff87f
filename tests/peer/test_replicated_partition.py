"""A replicated partition as services and readers see it: served by its leader, as far as committed."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.ports.partitions import Acks


def isolate(cluster):
    """Let no follower be fed."""
    for broker in (2, 3):
        cluster.brokers[broker].links.follow({})


async def test_a_reader_gets_what_is_committed_and_is_woken_for_more(cluster):
    leader = cluster.brokers[1]
    partition, woken = leader.partition(), asyncio.Event()
    cursor = partition.cursor(0, woken.set)
    assert cursor.take(1 << 20) is None
    leader.append(b"a")
    async with asyncio.timeout(10):
        await woken.wait()
    chunk = cursor.take(1 << 20)
    assert (chunk.first_offset, chunk.next_offset, chunk.high_watermark) == (0, 1, 1)
    marks = await partition.watermarks()
    assert (marks.high_watermark, marks.log_end_offset, marks.leader_epoch) == (1, 1, 1)


async def test_what_the_followers_lack_is_shown_to_nobody(cluster):
    leader = cluster.brokers[1]
    partition, woken = leader.partition(), asyncio.Event()
    isolate(cluster)
    cursor = partition.cursor(0, woken.set)
    leader.append(b"a", acks=Acks.LEADER)
    await leader.answered(1)
    await asyncio.sleep(0.2)
    assert cursor.take(1 << 20) is None
    assert not woken.is_set()
    assert (await partition.watermarks()).lags == {2: 1, 3: 1}
    cluster.connect()
    async with asyncio.timeout(10):
        await woken.wait()
    assert cursor.take(1 << 20).next_offset == 1
    assert (await partition.watermarks()).lags == {2: 0, 3: 0}


async def test_a_follower_says_who_leads(cluster):
    partition = cluster.brokers[2].partition()
    with pytest.raises(Refusal, match="the metadata names broker 1") as caught:
        await partition.watermarks()
    assert caught.value.reason is Reason.NOT_LEADER
    with pytest.raises(Refusal):
        partition.cursor(0, lambda: None).take(1 << 20)


async def test_a_waiting_reader_hears_that_its_broker_leads_no_more(cluster):
    leader = cluster.brokers[1]
    partition, woken = leader.partition(), asyncio.Event()
    cursor = partition.cursor(0, woken.set)
    assert cursor.take(1 << 20) is None
    await cluster.elect(2)
    async with asyncio.timeout(10):
        await woken.wait()
    with pytest.raises(Refusal, match="the metadata names broker 2"):
        cursor.take(1 << 20)


async def test_a_new_leader_tells_no_latest_offset_before_it_knows_what_is_committed(cluster):
    old, new = cluster.brokers[1], cluster.brokers[2]
    old.append(b"a")
    await old.answered(1)
    await cluster.stop_broker(1)
    # Broker 2 has the record, and may not have heard that it is committed; nobody confirms it now.
    cluster.brokers[3].links.follow({})
    partition = new.partition()
    known = new.machine.high_watermark
    await cluster.elect(2)
    await cluster.until(lambda: cluster.leads(2))
    if known == 0:
        with pytest.raises(Refusal) as caught:
            await partition.watermarks()
        assert caught.value.reason is Reason.OFFSET_NOT_AVAILABLE
    cluster.connect()
    await cluster.until(lambda: new.machine.high_watermark == 1)
    assert (await partition.watermarks()).high_watermark == 1


async def test_what_the_leader_deletes_goes_everywhere(cluster):
    leader = cluster.brokers[1]
    partition = leader.partition()
    for number in range(5):
        leader.append(b"%d" % number)
    await leader.answered(5)
    await cluster.until(
        lambda: all(b.machine.high_watermark == 5 for b in cluster.brokers.values())
    )
    await partition.trim(3)
    await cluster.until(lambda: all(b.machine.log_start == 3 for b in cluster.brokers.values()))
    with pytest.raises(Refusal, match="cannot trim before offset 9"):
        await partition.trim(9)


async def test_after_it_is_closed_nothing_is_served_and_readers_hear_of_it(cluster):
    partition, woken = cluster.brokers[1].partition(), asyncio.Event()
    cursor = partition.cursor(0, woken.set)
    assert cursor.take(1 << 20) is None
    await partition.close()
    assert woken.is_set()
    with pytest.raises(Refusal, match="shutting down"):
        cursor.take(1 << 20)
