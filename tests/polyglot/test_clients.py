"""Clients in Go and Node on nothing but stubs, against a running broker."""

from __future__ import annotations

import gzip
import zlib

import grpc
import pytest
from backports.zstd import compress

import riverrun
from riverrun.v1.admin_pb2 import CreateTopicRequest
from riverrun.v1.admin_pb2_grpc import AdminServiceStub
from riverrun.v1.consumer_pb2 import FetchOffsetsRequest, ReadRequest
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.producer_pb2 import PartitionBatch, ProduceRequest
from riverrun.v1.producer_pb2_grpc import ProducerServiceStub
from riverrun.v1.records_pb2 import (
    CODEC_GZIP,
    CODEC_NONE,
    CODEC_ZSTD,
    Header,
    Record,
    RecordBatch,
    RecordSet,
)
from tests.polyglot import toolchain

pytestmark = [pytest.mark.polyglot, toolchain.BUILDS]

LANGUAGES = ["go", "node"]
CALL_TIMEOUT_S = 20.0


@pytest.fixture(scope="module", params=LANGUAGES)
def client(request):
    return toolchain.client(request.param)


@pytest.fixture
def channel(shared_broker):
    with grpc.insecure_channel(shared_broker.address) as channel:
        yield channel


def test_a_client_needs_only_stubs(client, shared_broker, channel, topic):
    seen = client.run("tour", shared_broker.address, topic)
    home = zlib.crc32(b"user-7") % 4
    assert seen == {
        "home": home,
        "flat": [home, 0, 1],
        "sealed": [home, 1, 3],
        "damaged": "ERROR_REASON_INVALID_RECORD",
        "damaged_outcome": "OUTCOME_NOTHING_HAPPENED",
        "first": ["v0", "v1", "v2", "v3"],
        "again": ["v2", "v3"],
        "commit_refused": False,
        "missing": {
            "code": grpc.StatusCode.NOT_FOUND.value[0],
            "reason": "ERROR_REASON_TOPIC_NOT_FOUND",
            "outcome": "OUTCOME_NOTHING_HAPPENED",
            "info": "riverrun.dev/TOPIC_NOT_FOUND",
        },
    }
    request = FetchOffsetsRequest(group_id=f"{topic}-group")
    (found,) = ConsumerServiceStub(channel).FetchOffsets(request, timeout=CALL_TIMEOUT_S).offsets
    assert (found.topic, found.partition) == (topic, home)
    assert (found.committed.offset, found.committed.metadata) == (4, "half way")


def test_languages_read_each_others_batches(shared_broker, channel, topic):
    AdminServiceStub(channel).CreateTopic(CreateTopicRequest(topic=topic), timeout=CALL_TIMEOUT_S)
    clients = {language: toolchain.client(language) for language in present()}
    produce_in_python(channel, topic)
    for client in clients.values():
        assert client.run("produce", shared_broker.address, topic) == []
    expected = as_the_broker_reads(channel, topic)
    assert len(expected) == 12 + 8 * len(clients)
    for client in clients.values():
        assert client.run("read", shared_broker.address, topic) == expected


async def test_the_python_client_reads_what_other_languages_wrote(shared_broker, channel, topic):
    AdminServiceStub(channel).CreateTopic(CreateTopicRequest(topic=topic), timeout=CALL_TIMEOUT_S)
    for language in present():
        written = toolchain.client(language).run("produce", shared_broker.address, topic)
        assert written == []
    async with (
        riverrun.Client(shared_broker.address) as client,
        client.consumer(topic, stop_at_end=True) as consumer,
    ):
        found = [
            {
                "offset": str(record.offset),
                "timestamp_ms": str(record.timestamp_ms),
                "key": None if record.key is None else record.key.hex(),
                "value": None if record.value is None else record.value.hex(),
                "headers": [[key, value.hex()] for key, value in record.headers],
            }
            async for record in consumer
        ]
    assert found == as_the_broker_reads(channel, topic)
    assert len(found) == 8 * len(present())


def present():
    """Return the languages that can run here; all of them, or a failure, where CI=true."""
    lacking = {language: toolchain.lacks(language) for language in LANGUAGES}
    here = [language for language in LANGUAGES if not lacking[language]]
    if not here or (toolchain.IN_CI and len(here) < len(LANGUAGES)):
        toolchain.missing("; ".join(filter(None, lacking.values())))
    return here


def produce_in_python(channel, topic):
    """Write what the other languages write, in the same way: batches with our own checksums."""
    records = [
        Record(key=b"python", value=b"timed", timestamp_ms=1_700_000_000_000),
        Record(value=b"\x00\xff\n"),
        Record(key="größe".encode()),
        Record(key=b"", value=b"", headers=[Header(key="h", value=b"1"), Header(key="h")]),
    ]
    data = RecordSet(records=records).SerializeToString()
    # The clients that read this do not know zstd: the broker expands it for them.
    forms = [(CODEC_NONE, data), (CODEC_GZIP, gzip.compress(data)), (CODEC_ZSTD, compress(data))]
    request = ProduceRequest()
    for codec, packed in forms:
        batch = RecordBatch(records=packed, codec=codec, records_crc=zlib.crc32(packed))
        request.batches.append(PartitionBatch(topic=topic, batch=batch))
    response = ProducerServiceStub(channel).Produce(request, timeout=CALL_TIMEOUT_S)
    assert [result.HasField("error") for result in response.results] == [False] * 3


def as_the_broker_reads(channel, topic):
    """Return every record as the broker takes its batch apart, in the clients' notation."""
    request = ReadRequest(topic=topic, stop_at_end=True)
    return [
        {
            "offset": str(record.offset),
            "timestamp_ms": str(record.timestamp_ms),
            "key": record.key.hex() if record.HasField("key") else None,
            "value": record.value.hex() if record.HasField("value") else None,
            "headers": [[header.key, header.value.hex()] for header in record.headers],
        }
        for message in ConsumerServiceStub(channel).Read(request, timeout=CALL_TIMEOUT_S)
        for record in message.delivery.records
    ]
