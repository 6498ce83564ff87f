"""What a broker does for the gateways of others, and what it does not: pass on, believe, or grow."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from riverrun_server.core.errors import LeaderHint, Reason, Refusal
from riverrun_server.peer.forward_service import Forwarded
from riverrun_server.peer.forward_stream import UNSENT_BYTES_MAX, ForwardStream
from riverrun_server.peer.gateway_messages import (
    answer_from_wire,
    answer_to_wire,
    failure_from_wire,
    failure_to_wire,
    portion_from_wire,
)
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.outgoing import Outgoing
from riverrun_server.peer.read_service import Readers
from riverrun_server.peer.v1 import gateway_pb2 as wire
from riverrun_server.peer.v1.gateway_pb2_grpc import GatewayServiceStub
from riverrun_server.peer.v1.replication_pb2 import PeerHello
from riverrun_server.ports.gateways import Led
from riverrun_server.ports.partitions import Acks, Append, Appended
from tests.metadata.fakes import SeededDice
from tests.peer.batches import batch
from tests.peer.cluster_of_gateways import ORIGIN, incoming
from tests.peer.cluster_of_replicas import PARTITION, TOPIC_ID
from tests.rpc.fake_partitions import FakePartition

HELLO = PeerHello(cluster_id="cluster", broker_id=9, broker_epoch=1)


def led(leader_epoch=1):
    return wire.Led(topic_id=TOPIC_ID, partition=0, leader_epoch=leader_epoch)


def origin(hops=1):
    return wire.Origin(principal="p", listener="clients", hops=hops)


def forwarded(number, *values, leader_epoch=1, hops=1, data=None):
    return wire.ForwardedAppend(
        number=number,
        led=led(leader_epoch),
        origin=origin(hops),
        acks=1,
        batch=incoming(*values or (b"v",)).unstamped() if data is None else data,
    )


async def connected(address, hello=HELLO):
    """Return a stream of appends to a broker, greeted."""
    channel = grpc.aio.insecure_channel(address)
    call = GatewayServiceStub(channel).Forward()
    await call.write(wire.ForwardRequest(hello=hello))
    assert (await call.read()).hello.broker_id
    return channel, call


async def answer(call, *appends):
    await call.write(wire.ForwardRequest(appends=appends))
    async with asyncio.timeout(10):
        return [answer_from_wire(each) for each in (await call.read()).answers]


async def test_a_broker_that_does_not_lead_names_who_does_and_passes_nothing_on(gateways):
    channel, call = await connected(gateways.brokers[2].address)
    async with channel:
        [refused] = await answer(call, forwarded(1))
        assert refused.error.reason is Reason.NOT_LEADER
        assert (refused.error.leader.broker_id, refused.error.leader.leader_epoch) == (1, 1)
        question = wire.TrimRequest(hello=HELLO, origin=origin(), led=led(), before_offset=-1)
        trimmed = await GatewayServiceStub(channel).Trim(question)
        assert failure_from_wire(trimmed.failure).reason is Reason.NOT_LEADER
    assert gateways.brokers[1].machine.log_end == 0


@pytest.mark.parametrize("hops", [0, 2])
async def test_what_was_passed_on_twice_is_refused(gateways, hops):
    channel, call = await connected(gateways.brokers[1].address)
    async with channel:
        [refused] = await answer(call, forwarded(1, hops=hops))
        assert refused.error.reason is Reason.INVALID_REQUEST
        question = wire.WatermarksRequest(hello=HELLO, origin=origin(hops), partitions=[led()])
        told = await GatewayServiceStub(channel).Watermarks(question)
        assert failure_from_wire(told.partitions[0].failure).reason is Reason.INVALID_REQUEST
    assert gateways.brokers[1].machine.log_end == 0


@pytest.mark.parametrize(
    ("leader_epoch", "reason"),
    [(0, Reason.FENCED_LEADER_EPOCH), (2, Reason.UNKNOWN_LEADER_EPOCH)],
)
async def test_an_append_is_taken_in_the_leader_epoch_that_it_was_sent_in_only(
    gateways, leader_epoch, reason
):
    channel, call = await connected(gateways.brokers[1].address)
    async with channel:
        [refused] = await answer(call, forwarded(1, leader_epoch=leader_epoch))
    assert refused.error.reason is reason
    assert refused.error.meaning.definite
    assert gateways.brokers[1].machine.log_end == 0


async def test_an_append_waits_a_moment_for_a_leadership_that_its_leader_does_not_know_yet(
    gateways,
):
    channel, call = await connected(gateways.brokers[3].address)
    async with channel:
        await call.write(wire.ForwardRequest(appends=[forwarded(1, leader_epoch=2)]))
        await asyncio.sleep(0.05)
        await gateways.elect(3)
        [taken] = [answer_from_wire(each) for each in (await call.read()).answers]
    assert (taken.base_offset, taken.error) == (0, None)


async def test_what_was_waited_for_in_vain_is_not_waited_for_again(gateways):
    channel, call = await connected(gateways.brokers[3].address)
    async with channel:
        began = asyncio.get_running_loop().time()
        for number in range(5):
            [refused] = await answer(call, forwarded(number, leader_epoch=9 + number))
            assert refused.error.reason is Reason.UNKNOWN_LEADER_EPOCH
        assert 0.5 <= asyncio.get_running_loop().time() - began < 1.0


async def test_a_batch_that_was_damaged_on_the_way_is_refused(gateways):
    channel, call = await connected(gateways.brokers[1].address)
    data = bytearray(incoming(bytes(100)).unstamped())
    data[50] ^= 1
    async with channel:
        [refused] = await answer(call, forwarded(1, data=bytes(data)))
    assert refused.error.reason is Reason.INVALID_RECORD


async def test_a_newer_stream_of_a_broker_ends_its_older_one(gateways):
    address = gateways.brokers[1].address
    old_channel, old = await connected(address)
    new_channel, new = await connected(address)
    async with old_channel, new_channel:
        with pytest.raises(grpc.aio.AioRpcError, match="there is a newer one"):
            await old.read()
        assert [each.base_offset for each in await answer(new, forwarded(1))] == [0]


async def test_an_earlier_process_of_a_broker_does_not_end_the_stream_of_a_later_one(gateways):
    address = gateways.brokers[1].address
    later = PeerHello(cluster_id="cluster", broker_id=9, broker_epoch=2)
    new_channel, new = await connected(address, later)
    async with new_channel:
        with pytest.raises(grpc.aio.AioRpcError, match="it has been replaced"):
            await connected(address)
        assert [each.base_offset for each in await answer(new, forwarded(1))] == [0]


@pytest.mark.parametrize(
    "hello",
    [
        PeerHello(cluster_id="another", broker_id=9),
        PeerHello(cluster_id="cluster", broker_id=1),
    ],
    ids=["of another cluster", "with the broker's own id"],
)
async def test_a_stranger_is_not_served(gateways, hello):
    async with grpc.aio.insecure_channel(gateways.brokers[1].address) as channel:
        stub = GatewayServiceStub(channel)
        for begin, kind in ((stub.Forward, wire.ForwardRequest), (stub.Read, wire.ReadRequest)):
            call = begin()
            await call.write(kind(hello=hello))
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await call.read()
            assert failure.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        for ask, request in (
            (stub.Watermarks, wire.WatermarksRequest(hello=hello)),
            (stub.OffsetAtTime, wire.OffsetAtTimeRequest(hello=hello, led=led())),
            (stub.Trim, wire.TrimRequest(hello=hello, led=led())),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await ask(request)
            assert failure.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_what_no_gateway_says_ends_its_stream(gateways):
    channel, call = await connected(gateways.brokers[1].address)
    async with channel:
        wrong = forwarded(1)
        wrong.acks = 77
        await call.write(wire.ForwardRequest(appends=[wrong]))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call.read()
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT


class Served:
    """Serves fake partitions."""

    def __init__(self, *partitions):
        self.partitions = {each.id: each for each in partitions}

    def led(self, led):
        return self.partitions[led.partition]


async def test_a_leader_takes_no_more_in_than_may_wait_for_acks():
    partition = FakePartition("t", PARTITION)
    partition.commits_at_once = False
    stream = Forwarded(Served(partition), max_bytes=3_000)
    taken = 0

    async def take_in():
        nonlocal taken
        for number in range(20):
            await stream.take_in(forwarded(number))
            taken += 1

    taking = asyncio.create_task(take_in())
    await asyncio.sleep(0.05)
    assert taken == 3
    partition.commit()
    await asyncio.sleep(0.05)
    assert taken == 6
    taking.cancel()


async def test_readers_of_the_disk_take_turns_within_their_room():
    partitions = [
        FakePartition("t", PARTITION._replace(partition=number), cold=True) for number in range(6)
    ]
    for partition in partitions:
        partition.append(bytes(1000))
    readers = Readers(Served(*partitions), disk_bytes_max=2_000)
    for number, partition in enumerate(partitions):
        topic_id, name = partition.id
        place = wire.Led(topic_id=topic_id, partition=name, leader_epoch=1)
        opens = wire.OpenReader(led=place, origin=origin())
        readers.obey(wire.ReaderRequest(reader=number, open=opens))
        readers.obey(wire.ReaderRequest(reader=number, want=wire.Want(max_bytes=1_000)))
    served, most = set(), 0
    async with asyncio.timeout(10):
        while len(served) < len(partitions):
            for portion in await readers.next():
                assert portion_from_wire(portion).next_offset == 1
                served.add(portion.reader)
            reading = [each for p in partitions for each in p.cursors if each.reads_ahead]
            most = max(most, len(reading))
    assert most <= 2
    readers.close()
    assert not [cursor for partition in partitions for cursor in partition.cursors]


def stream_to_nobody():
    myself = Myself("cluster", 1, 1, lambda: 0)
    changes = []
    stream = ForwardStream(2, "127.0.0.1:1", myself, SeededDice(), changes.append)
    stream._mailbox = Outgoing(lambda message: message.ByteSize(), 4 * UNSENT_BYTES_MAX)
    return stream, changes


def test_when_a_stream_ends_what_was_sent_is_unknown_and_what_was_not_has_not_happened():
    stream, changes = stream_to_nobody()
    answers = []
    for number in range(3):
        append = Append(incoming(b"%d" % number), Acks.ALL, answers.append)
        stream.append(Led(PARTITION, 1), append, ORIGIN, append.done)
    stream._frame([wire.ForwardedAppend(number=1), wire.ForwardedAppend(number=2)])
    stream._mailbox = None
    stream._ended("it broke")
    assert [each.error.meaning.definite for each in answers] == [False, False, True]
    assert changes == [2]
    late = Append(incoming(b"late"), Acks.ALL, answers.append)
    stream.append(Led(PARTITION, 1), late, ORIGIN, late.done)
    assert answers[3].error.reason is Reason.LEADER_NOT_AVAILABLE


def test_more_than_may_wait_to_be_sent_is_refused():
    stream, _ = stream_to_nobody()
    answers = []
    large = bytes(3_000_000)
    for _ in range(30):
        append = Append(incoming(large), Acks.ALL, answers.append)
        stream.append(Led(PARTITION, 1), append, ORIGIN, append.done)
    assert {each.error.reason for each in answers} == {Reason.OVERLOADED}
    assert len(answers) == 30 - (UNSENT_BYTES_MAX // len(large) + 1)


def test_a_refusal_crosses_with_everything_that_it_says():
    refusal = Refusal(
        Reason.OUT_OF_ORDER_SEQUENCE,
        "text",
        available=(3, 9),
        expected_sequence=0,
        diverging_offset=0,
        leader=LeaderHint(2, 7),
    )
    answered = answer_from_wire(answer_to_wire(5, Appended(None, 3, 4, error=refusal)))
    assert (answered.record_count, answered.log_start_offset) == (3, 4)
    assert vars(answered.error) == vars(refusal)


def test_a_reason_of_a_newer_version_keeps_its_outcome():
    for definite in (True, False):
        said = wire.Failure(reason=9_999, message="new", definite=definite)
        assert failure_from_wire(said).meaning.definite is definite
    assert not failure_to_wire(Refusal(Reason.REQUEST_TIMED_OUT, "")).definite


@pytest.mark.parametrize(
    "portion",
    [
        wire.Portion(batches=[b"\xff"]),
        wire.Portion(first_offset=5, next_offset=6, batches=[batch(0, 5).data]),
        wire.Portion(next_offset=3, batches=[batch(0, 2).data, batch(1, 1).data]),
        wire.Portion(next_offset=1, batches=[batch(0, 2).data]),
    ],
)
def test_a_portion_that_does_not_continue_is_refused(portion):
    with pytest.raises(InvalidMessage):
        portion_from_wire(portion)
