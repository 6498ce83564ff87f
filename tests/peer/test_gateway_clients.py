"""Clients of any broker: their calls are passed on, or answered with who leads, as they ask for it."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from riverrun.v1 import consumer_pb2, errors_pb2, producer_pb2
from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.core.errors import Reason
from tests.peer.client_port import clients_of
from tests.peer.cluster_of_gateways import endpoint


def produce(*values, **fields):
    records = [Record(value=value) for value in values]
    return producer_pb2.ProduceRequest(topic="t", partition=0, records=records, **fields)


def append(number, *, value=None, attempt=0, producer_id=0, sequence=0):
    records = RecordSet(records=[Record(value=value or b"%d" % number)]).SerializeToString()
    batch = RecordBatch(records=records, producer_id=producer_id, base_sequence=sequence)
    return producer_pb2.ProduceStreamRequest(
        append=producer_pb2.ProduceAppend(
            tag=number, topic="t", partition=0, batch=batch, attempt=attempt
        )
    )


def check_hint(hint, broker=1, leader_epoch=1):
    assert (hint.broker_id, hint.leader_epoch) == (broker, leader_epoch)
    assert hint.endpoint == endpoint(broker)


def error_of(failure):
    """Return the Error of a failed call's status."""
    status = dict(failure.value.trailing_metadata())["grpc-status-details-bin"]
    # Our Error is the first detail, whose text is found by its type's name.
    from google.rpc.status_pb2 import Status  # noqa: PLC0415 - only here

    error = errors_pb2.Error()
    assert Status.FromString(status).details[0].Unpack(error)
    return error


async def test_a_unary_append_is_passed_on_and_the_answer_names_the_leader(gateways):
    async with clients_of(gateways.brokers[2]) as stubs:
        [result] = (await stubs.producer.Produce(produce(b"a"))).results
        assert result.base_offset == 0
        check_hint(result.leader)
    async with clients_of(gateways.brokers[1]) as stubs:
        [result] = (await stubs.producer.Produce(produce(b"b"))).results
        assert (result.base_offset, result.HasField("leader")) == (1, False)


async def test_a_unary_append_that_may_not_be_passed_on_is_answered_with_who_leads(gateways):
    async with clients_of(gateways.brokers[2]) as stubs:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stubs.producer.Produce(produce(b"a", do_not_proxy=True))
        error = error_of(failure)
        assert error.reason == Reason.NOT_LEADER
        check_hint(error.leader)
    async with clients_of(gateways.brokers[1]) as stubs:
        response = await stubs.producer.Produce(produce(b"a", do_not_proxy=True))
        assert response.results[0].base_offset == 0


async def test_a_stream_is_told_the_leader_once_and_again_when_it_is_another(gateways):
    async with clients_of(gateways.brokers[2]) as stubs:
        call = stubs.producer.ProduceStream()
        assert (await call.read()).HasField("started")
        hints = []
        for number in range(4):
            if number == 2:
                await gateways.elect(3)
                await gateways.until(lambda: gateways.leads(3))
                await gateways.until(lambda: gateways.brokers[2].routed.leader_epoch == 2)
            await call.write(append(number, attempt=number))
            acks = (await call.read()).acks
            assert not [
                each.error for tag in acks.results for each in tag.results if each.HasField("error")
            ]
            hints.append([result.leader for tag in acks.results for result in tag.results])
            assert len(acks.acked) + len(acks.results) == 1
        assert [len(each) for each in hints] == [1, 0, 1, 0]
        check_hint(hints[0][0])
        check_hint(hints[2][0], broker=3, leader_epoch=2)


async def test_a_stream_that_may_not_be_passed_on_is_answered_with_who_leads(gateways):
    async with clients_of(gateways.brokers[2]) as stubs:
        call = stubs.producer.ProduceStream()
        await call.write(
            producer_pb2.ProduceStreamRequest(start=producer_pb2.ProduceStart(do_not_proxy=True))
        )
        await call.write(append(1))
        assert (await call.read()).HasField("started")
        [tag] = (await call.read()).acks.results
        assert tag.results[0].error.reason == Reason.NOT_LEADER
        check_hint(tag.results[0].error.leader)


@pytest.mark.parametrize("producer_id", [7, 0], ids=["idempotent", "not idempotent"])
async def test_a_stream_pipelined_through_a_gateway_keeps_its_order_while_the_leadership_moves(
    gateways, producer_id
):
    """The client is no more than the stream's contract: after a failure it goes back to the failed one."""
    total, window = 300, 20
    async with clients_of(gateways.brokers[2]) as stubs:
        call = stubs.producer.ProduceStream()
        assert (await call.read()).HasField("started")
        acked, at, tag, waiting, attempt = 0, 0, 0, {}, 0
        moves = {60: 3, 120: 2, 180: 1, 240: 3}
        async with asyncio.timeout(60):
            while acked < total:
                while at < total and len(waiting) < window:
                    tag += 1
                    waiting[tag] = at
                    fields = {"sequence": at} if producer_id else {"attempt": attempt}
                    message = append(tag, value=b"%d" % at, producer_id=producer_id, **fields)
                    await call.write(message)
                    at += 1
                acks = (await call.read()).acks
                answered = {}
                for run in acks.acked:
                    for number, _ in enumerate(run.base_offsets, run.first_tag):
                        answered[number] = None
                for each in acks.results:
                    error = each.results[0].error if each.results[0].HasField("error") else None
                    answered[each.tag] = error
                failed = False
                for number in sorted(answered):
                    sequence = waiting.pop(number)
                    if answered[number] is not None:
                        failed = True
                        at = min(at, sequence)
                    elif sequence == acked:
                        acked += 1
                attempt += failed
                for sequence in [each for each in moves if each <= acked]:
                    await gateways.elect(moves.pop(sequence))
    assert attempt, "the leadership moved while appends were under way"
    written = [int(value) for value in gateways.brokers[3].values()]
    # Without a producer id what was sent again after an unknown outcome may stand there twice.
    assert list(dict.fromkeys(written)) == list(range(total))
    assert not producer_id or len(written) == total


async def test_a_subscriber_reads_through_any_broker(gateways):
    async with clients_of(gateways.brokers[3]) as stubs:
        start = consumer_pb2.SubscribeStart(topics=["t"])
        call = stubs.consumer.Subscribe()
        await call.write(consumer_pb2.SubscribeRequest(start=start))
        assert (await call.read()).HasField("started")
        await gateways.brokers[3].submit(b"a")
        assert await delivered(call) == [b"a"]
        await gateways.elect(2)
        await gateways.brokers[3].insist(b"b", sequence=0)
        assert await delivered(call) == [b"b"]


async def test_a_subscriber_that_reads_leaders_only_is_told_when_its_broker_is_none(gateways):
    async with clients_of(gateways.brokers[1]) as stubs:
        start = consumer_pb2.SubscribeStart(topics=["t"], do_not_proxy=True)
        call = stubs.consumer.Subscribe()
        await call.write(consumer_pb2.SubscribeRequest(start=start))
        assert (await call.read()).HasField("started")
        await gateways.elect(2)
        async with asyncio.timeout(10):
            while not (message := await call.read()).HasField("partition_error"):
                pass
        assert message.partition_error.error.reason == Reason.NOT_LEADER
        check_hint(message.partition_error.error.leader, broker=2, leader_epoch=2)


@pytest.mark.parametrize("method", ["Read", "Fetch"])
async def test_a_read_that_may_not_be_passed_on_is_answered_with_who_leads(gateways, method):
    position = consumer_pb2.StartPosition(topic="t", partition=0, offset=0)
    async with clients_of(gateways.brokers[2]) as stubs:
        if method == "Fetch":
            request = consumer_pb2.FetchRequest(positions=[position], do_not_proxy=True)
            response = await stubs.consumer.Fetch(request)
            [failed] = response.errors
        else:
            request = consumer_pb2.ReadRequest(positions=[position], do_not_proxy=True)
            call = stubs.consumer.Read(request)
            while not (message := await call.read()).HasField("partition_error"):
                pass
            failed = message.partition_error
        assert failed.error.reason == Reason.NOT_LEADER
        check_hint(failed.error.leader)


async def test_a_fetch_through_a_gateway_returns_what_is_there_and_what_comes(gateways):
    position = consumer_pb2.StartPosition(topic="t", partition=0, offset=0)
    async with clients_of(gateways.brokers[2]) as stubs:
        await gateways.brokers[1].submit(b"a")
        request = consumer_pb2.FetchRequest(positions=[position])
        [delivery] = (await stubs.consumer.Fetch(request)).deliveries
        assert [each.value for each in delivery.records] == [b"a"]
        position.offset = 1
        request = consumer_pb2.FetchRequest(positions=[position])
        request.max_wait.seconds = 10
        waiting = asyncio.ensure_future(stubs.consumer.Fetch(request))
        await asyncio.sleep(0.2)
        await gateways.brokers[1].submit(b"b")
        [delivery] = (await waiting).deliveries
        assert [each.value for each in delivery.records] == [b"b"]


async def test_heartbeats_come_while_a_leader_does_not_answer_and_lag_comes_when_it_does(gateways):
    gateway = gateways.brokers[2]
    for number in range(5):
        await gateway.submit(b"%d" % number)
    async with clients_of(gateway, heartbeat_s=0.1) as stubs:
        start = consumer_pb2.SubscribeStart(topics=["t"])
        start.initial_credit.records = 1
        call = stubs.consumer.Subscribe()
        await call.write(consumer_pb2.SubscribeRequest(start=start))
        for number in range(5, 9):
            await gateway.submit(b"%d" % number)
        async with asyncio.timeout(10):
            while True:
                message = await call.read()
                if message.HasField("heartbeat") and message.heartbeat.lags[0].high_watermark == 9:
                    break
        await gateways.stop_broker(1)
        for _ in range(3):
            async with asyncio.timeout(10):
                while not (await call.read()).HasField("heartbeat"):
                    pass


async def delivered(call):
    """Return the records of the next delivery."""
    async with asyncio.timeout(10):
        while not (message := await call.read()).HasField("delivery"):
            pass
    return [each.value for each in message.delivery.records]
