"""A reader keeps its place in a partition wherever it is led, and costs nothing while there is nothing."""

from __future__ import annotations

import asyncio

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.ports.gateways import Led, Origin
from riverrun_server.ports.partitions import Acks
from tests.peer.cluster_of_gateways import values_of


class Frames:
    """Counts the messages that a broker is sent by a leader, for its readers."""

    def __init__(self, gateway, leader):
        stream = gateway.outgoing._links[leader].read
        self.portions = []
        self.frames = 0
        heard = stream._heard

        def hear(response):
            self.frames += 1
            self.portions += response.portions
            heard(response)

        stream._heard = hear


async def test_a_reader_gets_what_is_committed_through_a_broker_that_does_not_lead(gateways):
    gateway = gateways.brokers[2]
    for number in range(50):
        gateway.submit(b"%d" % number)
    reader = gateway.reader()
    assert await reader.values(50) == [b"%d" % number for number in range(50)]
    assert reader.cursor.position == 50
    assert reader.chunks[-1].high_watermark == 50


async def test_a_reader_at_the_end_is_pushed_to_and_no_message_passes_while_there_is_nothing(
    gateways,
):
    gateway = gateways.brokers[2]
    frames = Frames(gateway, 1)
    readers = [gateway.reader() for _ in range(20)]
    for reader in readers:
        await reader.at_end()
    assert len(frames.portions) == 20
    await asyncio.sleep(0.3)
    assert len(frames.portions) == 20
    await gateways.brokers[1].submit(b"a")
    for reader in readers:
        assert await reader.values(1) == [b"a"]
    # What is little came with the news, and with that of the others.
    assert len(frames.portions) == 40
    assert frames.frames < 30


async def test_a_batch_that_is_not_little_is_announced_and_sent_once_the_reader_has_room(gateways):
    gateway, reader = gateways.brokers[2], gateways.brokers[2].reader()
    await reader.at_end()
    frames = Frames(gateway, 1)
    await gateway.submit(bytes(1_000_000))
    async with asyncio.timeout(10):
        await reader.woken.wait()
    assert not reader.cursor.reads_ahead
    assert reader.cursor.in_memory(1) is None
    assert [len(portion.batches) for portion in frames.portions] == [0]
    assert (await reader.values(1)) == [bytes(1_000_000)]


async def test_a_reader_that_takes_nothing_is_sent_one_portion_whatever_there_is(gateways):
    gateway = gateways.brokers[2]
    for _ in range(40):
        await gateway.submit(bytes(100_000))
    frames = Frames(gateway, 1)
    reader = gateway.reader()
    await reader.next(250_000)
    await gateways.until(lambda: reader.cursor._remote._held is not None)
    await asyncio.sleep(0.2)
    assert [len(portion.batches) for portion in frames.portions] == [2, 2]
    assert len(await reader.values(38)) == 38


async def test_a_reader_that_is_asked_not_to_read_ahead_does_not(gateways):
    gateway = gateways.brokers[2]
    for _ in range(3):
        await gateway.submit(bytes(100_000))
    reader = gateway.reader()
    await reader.next(1, read_ahead=False)
    assert not reader.cursor.reads_ahead


@pytest.mark.parametrize("leaders", [(1, 2, 3, 1), (2, 1, 2, 3), (3, 1, 2, 3)], ids=str)
async def test_a_reader_keeps_its_place_while_the_leadership_moves(gateways, leaders):
    """Broker 2 has the reader: the leadership comes to it, leaves it, and goes from one other to the next."""
    gateway = gateways.brokers[2]
    reader, written, found = gateway.reader(), [], []
    for leader in leaders:
        if leader != gateways.value().value.leader:
            await gateways.elect(leader)
        for _ in range(3):
            value = b"%d" % len(written)
            await gateway.insist(value, sequence=len(written))
            written.append(value)
        found += await reader.values(3)
    assert found == written
    assert reader.cursor.position == len(written)


async def test_a_waiting_reader_goes_on_at_the_next_leader(gateways):
    gateway = gateways.brokers[2]
    await gateway.submit(b"a")
    reader = gateway.reader()
    assert await reader.values(1) == [b"a"]
    await reader.at_end()
    await gateways.stop_broker(1)
    await asyncio.sleep(0.2)
    assert reader.cursor.take(1 << 20) is None
    await gateways.elect(3)
    assert (await gateway.submit(b"b")).base_offset == 1
    assert await reader.values(1) == [b"b"]


async def test_what_a_reader_saw_and_a_new_leader_does_not_have_is_told_as_truncated(gateways):
    leader, gateway = gateways.brokers[1], gateways.brokers[3]
    await leader.submit(b"kept")
    for broker in (2, 3):
        gateways.brokers[broker].links.follow({})
    await leader.submit(b"lost", acks=Acks.LEADER)
    await gateways.elect(2)
    await gateways.until(lambda: gateways.leads(2))
    gateways.connect()
    for value in (b"new", b"newer"):
        await gateway.submit(value)
    # As one would that had read offset 1 when it was of the first leadership.
    reader = gateway.reader()
    reader.cursor.seek(2, 1)
    with pytest.raises(Refusal, match="truncated") as caught:
        await reader.next()
    assert caught.value.reason is Reason.LOG_TRUNCATED
    assert caught.value.diverging_offset == 1
    reader.cursor.seek(1, 1)
    assert await reader.values(2) == [b"new", b"newer"]


async def test_the_epoch_of_the_last_record_read_goes_with_a_reader_to_the_next_leader(gateways):
    gateway = gateways.brokers[3]
    await gateway.submit(b"a")
    reader = gateway.reader()
    assert await reader.values(1) == [b"a"]
    await gateways.elect(2)
    await gateways.until(lambda: gateways.leads(2))
    opened = []
    read = gateway.outgoing.read
    gateway.outgoing.read = lambda *args: opened.append(args[2:4]) or read(*args)
    await gateways.until(lambda: gateway.routed.leader.broker_id == 2)
    await gateway.submit(b"b")
    assert await reader.values(1) == [b"b"]
    assert opened == [(1, 1)]


async def test_an_offset_that_is_not_there_is_refused_with_those_that_are(gateways):
    gateway = gateways.brokers[2]
    await gateway.submit(b"a")
    reader = gateway.reader(7)
    with pytest.raises(Refusal) as caught:
        await reader.next()
    assert caught.value.reason is Reason.OFFSET_OUT_OF_RANGE
    assert caught.value.available == (0, 1)


async def test_offsets_times_and_trims_are_answered_by_the_leader(gateways):
    gateway = gateways.brokers[2]
    await gateway.submit(b"a", b"b")
    await gateway.submit(b"c")
    marks = await gateway.routed.watermarks()
    assert (marks.log_start_offset, marks.high_watermark, marks.log_end_offset) == (0, 3, 3)
    assert marks.leader_epoch == 1
    assert marks.lags.keys() == {2, 3}
    assert (await gateway.routed.offset_at_time(0))[0] == 0
    assert await gateway.routed.offset_at_time(1 << 60) is None
    assert await gateway.routed.trim(2) == 2
    with pytest.raises(Refusal) as caught:
        await gateway.routed.trim(9)
    assert caught.value.reason is Reason.OFFSET_OUT_OF_RANGE
    assert caught.value.available == (2, 3)


async def test_a_question_waits_for_the_next_leader_or_says_that_there_is_none(gateways):
    gateway = gateways.brokers[2]
    await gateway.submit(b"a")
    await gateways.stop_broker(1)
    with pytest.raises(Refusal) as caught:
        await gateway.routed.watermarks()
    assert caught.value.reason is Reason.LEADER_NOT_AVAILABLE
    asked = asyncio.create_task(gateway.routed.offset_at_time(1 << 60))
    await gateways.elect(3)
    try:
        assert await asked is None
    except Refusal as refusal:  # of the new leader, which may not know yet what is committed
        assert refusal.reason is Reason.OFFSET_NOT_AVAILABLE  # noqa: PT017 - either may be


async def test_watermarks_of_many_are_asked_for_in_one_call(gateways):
    gateway, calls = gateways.brokers[2], []
    ask = gateway.outgoing._links[1].calls._ask

    async def counted(origin, asked):
        calls.append(len(asked))
        await ask(origin, asked)

    gateway.outgoing._links[1].calls._ask = counted
    led = Led(gateway.routed.id, gateway.routed.leader_epoch)
    asked = [gateway.outgoing.watermarks(1, led, Origin()) for _ in range(100)]
    marks = await asyncio.gather(*asked)
    assert {each.high_watermark for each in marks} == {0}
    assert calls == [100]


async def test_records_come_out_of_a_gateway_as_they_were_stored(gateways):
    gateway = gateways.brokers[2]
    await gateway.submit(b"a", b"b")
    remote = await gateway.reader().next()
    local = await gateways.brokers[1].reader().next()
    assert remote.batches == local.batches
    assert values_of(remote) == [b"a", b"b"]
