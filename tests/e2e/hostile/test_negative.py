"""What a client must not be able to do, each a fact about a real broker over real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
import zlib

import pytest
from google.rpc.status_pb2 import Status

import riverrun
from riverrun.v1 import admin_pb2 as a
from riverrun.v1 import consumer_pb2 as c
from riverrun.v1 import errors_pb2 as e
from riverrun.v1 import producer_pb2 as p
from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.wire import codecs
from tests.e2e.conftest import ended
from tests.e2e.hostile.attacks import ADMIN, CONSUMER, PRODUCER
from tests.e2e.hostile.broker_under_attack import MIB, AttackedBroker
from tests.e2e.hostile.raw_http2 import Crowd, framed

TOPIC = "negative"
RECORDS = RecordSet(records=[Record(value=b"v")]).SerializeToString()


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with ended(AttackedBroker(tmp_path_factory.mktemp("negative"))) as broker:
        broker.start()
        yield broker


@pytest.fixture
async def raw(broker):
    """A connection; nothing that a test does may show in the log, or take the broker down."""
    lines = broker.lines()
    async with Crowd(broker.address) as crowd:
        raw = await crowd.connect()
        request = a.CreateTopicRequest(topic=TOPIC, partitions=4, if_not_exists=True)
        await raw.ask(ADMIN + "CreateTopic", request.SerializeToString())
        yield raw
    assert broker.hurt() == []
    assert broker.lines() - lines < 60


def error_of(answer):
    """Return our error of a failed call, which says that nothing happened."""
    packed, error = answer.headers["grpc-status-details-bin"], e.Error()
    assert Status.FromString(base64.b64decode(packed + "==")).details[0].Unpack(error)
    assert error.outcome == e.OUTCOME_NOTHING_HAPPENED
    return error


async def produced(raw, **batch):
    """Produce one batch and return the error in its result, or None."""
    each = p.PartitionBatch(topic=TOPIC, partition=0, batch=RecordBatch(**batch))
    answer = await raw.ask(
        PRODUCER + "Produce", p.ProduceRequest(batches=[each]).SerializeToString(), 30
    )
    assert answer.status == 0
    (result,) = p.ProduceResponse.FromString(answer.data[5:]).results
    return result.error if result.HasField("error") else None


async def log_end(raw, partition=0):
    query = c.OffsetQuery(topic=TOPIC, partition=partition)
    setattr(query, "from", c.FROM_LATEST)
    request = c.ListOffsetsRequest(queries=[query])
    answer = await raw.ask(CONSUMER + "ListOffsets", request.SerializeToString())
    return c.ListOffsetsResponse.FromString(answer.data[5:]).answers[0].offset


STAMPED = "base_offset", "last_offset_delta", "leader_epoch", "append_time_ms", "attributes"
LIES = {
    "a count lie": {"records": RECORDS, "record_count": 2},
    "a negative count": {"records": RECORDS, "record_count": -1},
    "a wrong checksum": {"records": RECORDS, "records_crc": zlib.crc32(RECORDS) ^ 1},
    "a size lie": {"records": b"\x0a\x7fx"},
    "an overflowing varint": {"records": b"\x0a" + b"\xff" * 10 + b"\x01"},
    "a negative length": {"records": b"\x0a" + b"\xff" * 9 + b"\x01"},
    "a negative sequence": {"records": RECORDS, "producer_id": 5, "base_sequence": -1},
    "an unknown codec": {"records": RECORDS, "codec": 77},
    "no records": {},
    **{f"{name} set": {"records": RECORDS, name: 1} for name in STAMPED},
}


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.replace(" ", "-"))
async def test_a_batch_that_lies_is_refused_and_nothing_is_stored(raw, lie):
    """N24."""
    before = await log_end(raw)
    error = await produced(raw, **LIES[lie])
    assert error is not None, lie
    assert error.outcome == e.OUTCOME_NOTHING_HAPPENED
    assert await log_end(raw) == before


async def test_a_batch_with_fields_that_nobody_knows_is_refused(raw):
    """N24: they could not be kept, and nobody would ever see what was lost."""
    before = await log_end(raw)
    batch = RecordBatch(records=RECORDS)
    batch.MergeFromString(b"\xf2\x07\x03abc")
    error = await produced(raw, records=RECORDS)
    assert error is None
    each = p.PartitionBatch(topic=TOPIC, partition=0, batch=batch)
    request = p.ProduceRequest(batches=[each])
    answer = await raw.ask(PRODUCER + "Produce", request.SerializeToString())
    (result,) = p.ProduceResponse.FromString(answer.data[5:]).results
    assert result.error.reason == e.ERROR_REASON_INVALID_RECORD
    assert await log_end(raw) == before + 1


BOMB = RecordSet(records=[Record(value=bytes(16 * MIB))]).SerializeToString()
HUGE_WINDOW = b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(30)
HUGE_SIZE = b"\x28\xb5\x2f\xfd\xe0" + (2**60).to_bytes(8, "little") + bytes(30)


async def test_bombs_are_refused_at_the_price_of_one_batch(broker, raw):
    """N25: small batches that become large, nested ones, torn ones, and windows of gigabytes."""
    before = await log_end(raw)
    packed = {codec: codecs.compress(codec, BOMB) for codec in (2, 3, 4)}
    broker.forget_peak()
    start = broker.rss_bytes()
    for codec, data in packed.items():
        error = await produced(raw, records=data[: 900 * 1024], codec=codec)
        assert error.reason in (e.ERROR_REASON_BATCH_TOO_LARGE, e.ERROR_REASON_INVALID_RECORD)
        torn = await produced(raw, records=codecs.compress(codec, RECORDS)[:-3], codec=codec)
        assert torn.reason == e.ERROR_REASON_INVALID_RECORD
    nested = codecs.compress(3, packed[3])
    for data in (nested, HUGE_WINDOW, HUGE_SIZE):
        error = await produced(raw, records=data, codec=3)
        assert error.outcome == e.OUTCOME_NOTHING_HAPPENED
    assert await log_end(raw) == before
    assert broker.peak_bytes() - start < 64 * MIB


@pytest.mark.parametrize("form", ["flat", "batch", "text"])
async def test_a_million_empty_records_are_refused_before_they_are_looked_at(broker, raw, form):
    """N26."""
    broker.forget_peak()
    start = broker.rss_bytes()
    if form == "flat":
        request = b"\x0a\x08negative\x10\x00" + b"\x1a\x00" * 1_500_000
        answer = await raw.ask(PRODUCER + "Produce", request, 30)
        error = error_of(answer)
        assert error.reason == e.ERROR_REASON_LIMIT_EXCEEDED
    elif form == "text":
        request = b"\x0a\x08negative\x10\x00" + b"\x2a\x00" * 1_500_000
        answer = await raw.ask("/riverrun.v1.TextService/Produce", request, 30)
        assert error_of(answer).reason == e.ERROR_REASON_LIMIT_EXCEEDED
    else:
        error = await produced(raw, records=b"\x0a\x00" * 500_000)
        assert error.reason == e.ERROR_REASON_BATCH_TOO_LARGE
    # upb takes some 90 bytes for each while it parses; a list of them took 300 more.
    assert broker.peak_bytes() - start < 250 * MIB


IMPOSSIBLE = {
    "too many partitions": a.CreateTopicRequest(topic="n31", partitions=2**31 - 1),
    "a negative count": a.CreateTopicRequest(topic="n31", partitions=-1),
    "too many replicas": a.CreateTopicRequest(topic="n31", replication_factor=2**31 - 1),
    "a huge map": a.CreateTopicRequest(
        topic="n31", configs={f"key-{n}": "v" for n in range(100_000)}
    ),
    "a huge value": a.CreateTopicRequest(topic="n31", configs={"fsync": "v" * 3_000_000}),
    "a long name": a.CreateTopicRequest(topic="n" * 3_000_000),
}


@pytest.mark.parametrize("what", IMPOSSIBLE, ids=lambda what: what.replace(" ", "-"))
async def test_an_impossible_topic_is_refused_in_few_words(raw, what):
    """N31."""
    answer = await raw.ask(ADMIN + "CreateTopic", IMPOSSIBLE[what].SerializeToString(), 30)
    assert len(error_of(answer).message) <= 1024
    assert sum(len(k) + len(v) for k, v in answer.headers.items()) < 8192


async def test_topics_are_made_until_the_broker_holds_enough(broker, raw):
    """N31: what one client makes stops at limits.max_partitions, and the next refusal says so."""
    refused = None
    for number in range(broker.limits.partitions):
        request = a.CreateTopicRequest(topic=f"many-{number}", partitions=100)
        answer = await raw.ask(ADMIN + "CreateTopic", request.SerializeToString(), 30)
        if answer.status:
            refused = error_of(answer)
            break
    assert refused.reason == e.ERROR_REASON_LIMIT_EXCEEDED
    assert "limits.max_partitions" in refused.message
    for each in range(number):
        request = a.DeleteTopicRequest(topic=f"many-{each}")
        await raw.ask(ADMIN + "DeleteTopic", request.SerializeToString(), 30)


async def test_a_fetch_that_waits_for_ever_is_bounded_and_leaves_places_to_others(broker, raw):
    """N32: half of the calls may wait; a write finds a place whatever they do."""
    request = c.FetchRequest(
        positions=[c.StartPosition(topic=TOPIC, partition=3)], min_bytes=2**31 - 1
    )
    request.max_wait.seconds = 315_576_000_000
    async with Crowd(broker.address) as crowd:
        calls, refused = broker.limits.calls, 0
        patient = await crowd.connect()
        streams = []
        for _ in range(calls):
            streams.append(patient.call(CONSUMER + "Fetch"))
            await patient.send(streams[-1], framed(request.SerializeToString()), end=True)
        while refused < calls // 2 and await patient.hear(5.0):
            refused = sum(patient.answers[stream].ended for stream in streams)
        assert refused == calls // 2
        (first,) = {
            error_of(patient.answers[s]).reason for s in streams if patient.answers[s].ended
        }
        assert first == e.ERROR_REASON_OVERLOADED
        assert await produced(raw, records=RECORDS) is None


async def test_producers_and_groups_beyond_the_limit_are_refused_and_metrics_do_not_grow(
    broker, raw
):
    """N33: 5,000 producers of a partition are remembered, and none is forgotten for another one."""
    before = len((await metrics(broker)).splitlines())
    refused, number = None, 0
    while refused is None and number < 10_000:
        batches = [
            p.PartitionBatch(
                topic=TOPIC,
                partition=1,
                batch=RecordBatch(records=RECORDS, producer_id=10_000 + number + n),
            )
            for n in range(500)
        ]
        number += 500
        request = p.ProduceRequest(batches=batches)
        answer = await raw.ask(PRODUCER + "Produce", request.SerializeToString(), 30)
        results = p.ProduceResponse.FromString(answer.data[5:]).results
        refused = next((r.error for r in results if r.HasField("error")), None)
    assert refused.reason == e.ERROR_REASON_LIMIT_EXCEEDED
    assert number <= 5_500
    for group in range(200):
        offset = c.OffsetCommit(topic=TOPIC, partition=1, offset=0, metadata="m" * 4097)
        commit = c.CommitOffsetRequest(group_id=f"n33-{group}", offsets=[offset])
        answer = await raw.ask(CONSUMER + "CommitOffset", commit.SerializeToString())
        (result,) = c.CommitOffsetResponse.FromString(answer.data[5:]).results
        assert result.error.reason == e.ERROR_REASON_LIMIT_EXCEEDED
    assert len((await metrics(broker)).splitlines()) < before + 150


async def metrics(broker):
    url = f"http://{broker.http_address}/metrics"
    return await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=20).read().decode())


async def test_names_cannot_write_lines_into_the_log_or_the_answer(broker, raw):
    """N37."""
    evil = 'x\r\n{"level": "error", "event": "forged"}\x1b[2J'
    requests = {
        ADMIN + "CreateTopic": a.CreateTopicRequest(topic=evil),
        ADMIN + "DeleteTopic": a.DeleteTopicRequest(topic=evil),
        CONSUMER + "FetchOffsets": c.FetchOffsetsRequest(group_id=evil),
        CONSUMER + "Read": c.ReadRequest(topic=evil),
        PRODUCER + "Produce": p.ProduceRequest(topic=evil, records=[Record()]),
    }
    for method, request in requests.items():
        answer = await raw.ask(method, request.SerializeToString())
        assert error_of(answer).message.isprintable(), method
    agent = raw.call(ADMIN + "ListTopics", ("user-agent", "forged\x1b[2J agent"))
    await raw.send(agent, framed(b""), end=True)
    await raw.answer(agent)
    logged = broker.logs()
    assert "\x1b" not in logged
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    assert "forged" not in [line["event"] for line in lines]
    # A line ends where its event does, so what was named stands escaped within one.
    assert len(lines) == len(logged.splitlines()) - logged.count("\nready ")
    # What they wrote stands in the lines of their own calls, and nowhere else.
    written = [line for line in lines if "forged" in json.dumps(line)]
    assert {line["event"] for line in written} <= {"call ended", "stream ended"}
    assert {line["level"] for line in written} <= {"info"}


async def test_the_port_for_probes_shows_no_records_and_serves_nothing_else(broker, raw):
    """N39."""
    secret = "payload-that-nobody-shows"
    await produced(
        raw,
        records=RecordSet(records=[Record(value=secret.encode())]).SerializeToString(),
    )
    assert broker.http_address.startswith("127.0.0.1:")
    for page in ("metrics", "livez", "readyz"):
        url = f"http://{broker.http_address}/{page}"
        text = await asyncio.to_thread(lambda u=url: urllib.request.urlopen(u, timeout=20).read())
        assert secret.encode() not in text
    for page in ("", "debug/pprof", "../../etc/passwd", "metrics/../../data"):
        url = f"http://{broker.http_address}/{page}"
        with pytest.raises(urllib.error.HTTPError) as caught:
            await asyncio.to_thread(lambda u=url: urllib.request.urlopen(u, timeout=20))
        assert caught.value.code == 404
        caught.value.close()


async def test_a_topics_name_never_becomes_a_path(broker, raw):
    """N41."""
    inside = {path for path in broker.data_dir.rglob("*") if path.suffix != ".log"}
    for name in ("..", "../../escaped", "/escaped", "a/b", "a\0b", ".", "", "\uff0e\uff0e/x"):
        request = a.CreateTopicRequest(topic=name)
        answer = await raw.ask(ADMIN + "CreateTopic", request.SerializeToString())
        assert error_of(answer).reason == e.ERROR_REASON_INVALID_NAME
    ok = a.CreateTopicRequest(topic="..still-a-name", if_not_exists=True)
    assert (await raw.ask(ADMIN + "CreateTopic", ok.SerializeToString())).status == 0
    names = {str(path.relative_to(broker.data_dir)) for path in broker.data_dir.rglob("*")}
    assert not any("escaped" in name or "still" in name for name in names)
    assert inside  # the folder that was looked at is the broker's


async def test_no_stored_value_is_ever_unpickled(broker, raw):
    """N45: rocksdict pickles in its other mode, so every store says that it is raw."""
    assert await produced(raw, records=RECORDS) is None
    found = list(broker.data_dir.rglob("rocksdict-config.json"))
    assert found
    for path in found:
        assert '"raw_mode":true' in path.read_text().replace(" ", "")


async def test_the_log_holds_what_well_behaved_clients_wrote_and_nothing_else(broker, raw):
    """After everything that the other tests did, whichever they were."""
    assert await produced(raw, records=RECORDS) is None
    known = {b"v", b"payload-that-nobody-shows"}
    async with (
        riverrun.Client(broker.address) as client,
        client.consumer(TOPIC, stop_at_end=True) as consumer,
    ):
        values = {record.value async for record in consumer}
    assert b"v" in values
    assert values <= known
