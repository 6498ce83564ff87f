"""What an operator sees of a real broker: lines for calls, nothing of records, and no more for more clients."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket

import grpc
import grpc.aio
import pytest

from riverrun.v1 import consumer_pb2 as c
from riverrun.v1 import consumer_pb2_grpc, producer_pb2_grpc, text_pb2, text_pb2_grpc
from riverrun.v1 import producer_pb2 as p
from riverrun.v1.admin_pb2 import CreateTopicRequest, DeleteTopicRequest
from riverrun.v1.admin_pb2_grpc import AdminServiceStub
from riverrun.v1.records_pb2 import Codec, Header, Record, RecordBatch
from tests.e2e.broker_process import BrokerProcess
from tests.e2e.conftest import ended

MARK = "payload-5d41402a"
STRANGERS = 1000


@pytest.fixture
def broker(tmp_path):
    options = ("--set=storage.slots=4", "--set=log.slow_call_ms=-1", "--http-listen=127.0.0.2:0")
    with ended(BrokerProcess(tmp_path, *options)) as broker:
        broker.start()
        yield broker


def get(address: str, path: str) -> str:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def calls(broker: BrokerProcess) -> list[dict]:
    """The lines about calls, once the broker has ended and nothing more comes."""
    lines = [json.loads(line) for line in broker.logs().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"].endswith(" ended")]


def of(lines: list[dict], method: str) -> list[dict]:
    return [line for line in lines if line["method"].endswith(f"/{method}")]


def record() -> Record:
    return Record(key=MARK.encode(), value=MARK.encode(), headers=[Header(key=MARK, value=b"x")])


async def refused(call) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def use(address: str) -> None:
    """Do one of each, right and wrong."""
    options = [("grpc.primary_user_agent", "riverrun-python shop")]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        admin, producer = AdminServiceStub(channel), producer_pb2_grpc.ProducerServiceStub(channel)
        consumer = consumer_pb2_grpc.ConsumerServiceStub(channel)
        await admin.CreateTopic(CreateTopicRequest(topic="t"))
        await refused(admin.DeleteTopic(DeleteTopicRequest(topic="evil\r\n{}\x1b[2J")))
        for _ in range(50):
            await producer.Produce(p.ProduceRequest(topic="t", records=[record()]))
        # What is wrong with these is told without what is in them.
        junk = RecordBatch(records=MARK.encode(), codec=Codec.CODEC_ZSTD, record_count=1)
        wrong = p.ProduceRequest(batches=[p.PartitionBatch(topic="t", batch=junk)])
        assert (await producer.Produce(wrong)).results[0].HasField("error")
        late = Record(value=MARK.encode(), timestamp_ms=1 << 60)
        await refused(producer.Produce(p.ProduceRequest(topic="t", records=[late])))
        text = text_pb2_grpc.TextServiceStub(channel)
        await text.Produce(text_pb2.TextServiceProduceRequest(topic="t", value=MARK))
        appends = [p.ProduceAppend(tag=n, topic="t", records=[record()] * 5) for n in range(3)]
        stream = producer.ProduceStream(iter([p.ProduceStreamRequest(append=a) for a in appends]))
        assert [answer async for answer in stream]
        start = c.SubscribeStart(topics=["t"], group_id="g", stop_at_end=True)
        async for _ in consumer.Subscribe(iter([c.SubscribeRequest(start=start)])):
            pass


async def test_each_call_has_its_line_and_no_line_has_anything_of_a_record(broker):
    await use(broker.address)
    shown = [get(broker.http_address, path) for path in ("/metrics", "/livez", "/readyz", "/x")]
    assert broker.term() == 0
    lines = calls(broker)
    [created] = of(lines, "CreateTopic")
    assert (created["code"], created["topics"]) == ("OK", ["t"])
    assert created["client"] == "riverrun-python shop"
    [deleted] = of(lines, "DeleteTopic")
    assert deleted["code"] != "OK"
    assert deleted["topics"] == ["evil\r\n{}\x1b[2J"]
    assert "\\x1b" in deleted["why"]
    [streamed] = of(lines, "ProduceStream")
    assert (streamed["code"], streamed["records"], streamed["topics"]) == ("OK", 15, ["t"])
    assert streamed["request_bytes"] > 15 * 3 * len(MARK)
    [subscribed] = of(lines, "Subscribe")
    assert (subscribed["group"], subscribed["topics"]) == ("g", ["t"])
    assert subscribed["reply_bytes"] > 50 * 2 * len(MARK)
    produced = of(lines, "Produce")
    with_errors = [line for line in produced if line.get("errors")]
    assert [line["code"] for line in with_errors] == ["OK", "INVALID_ARGUMENT"]
    assert with_errors[0]["request_bytes"] > len(MARK), "a batch counts although it is taken out"
    plain = [line for line in produced if line not in with_errors and "Text" not in line["method"]]
    assert 1 <= len(plain) <= 25, "fifty that went well are sampled"
    for text in (broker.logs(), *shown):
        assert MARK not in text


def series(text: str) -> set[str]:
    # Where something happens in time of its own, such as a sync, a series may come later.
    return {line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")}


async def strangers(address: str, first: int) -> None:
    """Be a thousand clients, groups, producers and makers of topic names that are not there."""

    async def be(number: int) -> None:
        options = [("grpc.primary_user_agent", f"c{number}"), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            for each in range(number, number + 50):
                commit = c.OffsetCommit(topic="t", partition=0, offset=0)
                await consumer_pb2_grpc.ConsumerServiceStub(channel).CommitOffset(
                    c.CommitOffsetRequest(group_id=f"g{each}", offsets=[commit])
                )
                producer = producer_pb2_grpc.ProducerServiceStub(channel)
                await producer.InitProducer(p.InitProducerRequest())
                request = p.ProduceRequest(topic=f"none{each}", records=[Record(value=b"x")])
                await refused(producer.Produce(request))

    numbers = range(first, first + STRANGERS, 50)
    await asyncio.gather(*(be(number) for number in numbers))


async def test_a_thousand_strangers_leave_no_series_and_few_lines(broker):
    async with grpc.aio.insecure_channel(broker.address) as channel:
        await AdminServiceStub(channel).CreateTopic(CreateTopicRequest(topic="t"))
    await strangers(broker.address, 0)
    before = get(broker.http_address, "/metrics")
    await strangers(broker.address, STRANGERS)
    after = get(broker.http_address, "/metrics")
    assert not re.search(r'"(g|c|none)\d+"', after)
    grown = {each for each in series(after) - series(before) if "topic=" not in each}
    assert not grown
    refusals = 'riverrun_refusals_total{method="riverrun.v1.ProducerService/Produce",'
    assert f'{refusals}reason="TOPIC_NOT_FOUND"}} {2 * STRANGERS}.0' in after
    assert broker.term() == 0
    lines = calls(broker)
    assert len(of(lines, "CommitOffset")) < STRANGERS
    assert any(line.get("sampled_out") for line in of(lines, "CommitOffset"))


def test_the_http_port_is_where_it_was_put_and_nowhere_else(broker):
    host, _, port = broker.http_address.partition(":")
    assert host == "127.0.0.2"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)), timeout=10)
