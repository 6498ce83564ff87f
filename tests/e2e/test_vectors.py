"""The golden vectors, held against the broker, the Python client, and what a running broker stores."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path

import grpc
import pytest

from riverrun._core import checksums, partitioner
from riverrun.errors import CorruptDataError
from riverrun.v1.admin_pb2 import CreateTopicRequest
from riverrun.v1.admin_pb2_grpc import AdminServiceStub
from riverrun.v1.consumer_pb2 import FORM_BATCHES, ReadRequest
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.producer_pb2 import ProduceRequest
from riverrun.v1.producer_pb2_grpc import ProducerServiceStub
from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.log import CorruptData
from riverrun_server.rpc.partitioning import key_partition
from riverrun_server.wire import ingress, placement, stored

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = json.loads((ROOT / "proto" / "riverrun" / "v1" / "test-vectors.json").read_text())
CALL_TIMEOUT_S = 20.0
# The layout of docs/format.md: how many bytes each field has, after topic id and partition.
WIDTHS = {
    "codec": 4,
    "records_crc": 4,
    "record_count": 4,
    "producer_id": 8,
    "producer_epoch": 4,
    "base_sequence": 8,
    "first_timestamp_ms": 8,
    "max_timestamp_ms": 8,
    "base_offset": 8,
    "last_offset_delta": 4,
    "leader_epoch": 4,
    "append_time_ms": 8,
    "partition_max_timestamp_ms": 8,
    "attributes": 4,
    "format_version": 4,
}
MASKS = {4: (1 << 32) - 1, 8: (1 << 64) - 1}


def packed(topic_id: bytes, partition: int, batch: RecordBatch) -> bytes:
    """Lay a batch out as docs/format.md says, without any code of the broker or the client."""
    parts = [topic_id, partition.to_bytes(4, "little")]
    for name, width in WIDTHS.items():
        parts.append((getattr(batch, name) & MASKS[width]).to_bytes(width, "little"))
    return b"".join(parts)


@pytest.fixture(params=range(len(GOLDEN["stamp"])))
def stamp(request):
    return GOLDEN["stamp"][request.param]


@pytest.fixture
def place(stamp):
    return PartitionId(bytes.fromhex(stamp["topic_id_hex"]), stamp["partition"])


@pytest.fixture
def batch(stamp):
    return RecordBatch.FromString(bytes.fromhex(stamp["batch_hex"]))


def test_the_vectors_are_what_their_tool_writes():
    done = subprocess.run(
        [sys.executable, "tools/vectors.py", "--check"], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_documented_layout_is_the_one_of_the_vectors(stamp, place, batch):
    assert packed(place.topic_id, place.partition, batch).hex() == stamp["packed_hex"]
    assert {name: str(getattr(batch, name)) for name in WIDTHS} == stamp["fields"]
    assert zlib.crc32(bytes.fromhex(stamp["packed_hex"])) == stamp["placement_crc"]


def test_broker_and_client_compute_the_same_placement(stamp, place, batch):
    assert placement.placement_crc(place, batch) == stamp["placement_crc"]
    assert checksums.placement_crc(*place, batch) == stamp["placement_crc"]


def test_broker_and_client_trust_a_stored_vector(stamp, place, batch):
    scanned = stored.scan_batch(place, bytes.fromhex(stamp["batch_hex"]))
    assert (scanned.header.record_count, scanned.stamp.last_offset_delta) == (3, 2)
    checksums.verify("t", *place, batch, batch.records)


def test_no_bit_of_a_stored_vector_changes_a_value_unnoticed(stamp, place, batch):
    data = bytes.fromhex(stamp["batch_hex"])
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            stored.scan_batch(place, bytes(damaged))
        except CorruptData:
            continue
        # The upper bits of a varint's last byte say nothing: neither value nor checksum has them.
        assert RecordBatch.FromString(bytes(damaged)) == batch, bit


def test_a_stored_vector_in_another_place_is_noticed(stamp, place, batch):
    for elsewhere in (
        place._replace(partition=place.partition ^ 1),
        place._replace(topic_id=bytes([place.topic_id[0] ^ 1]) + place.topic_id[1:]),
    ):
        with pytest.raises(CorruptData):
            stored.scan_batch(elsewhere, bytes.fromhex(stamp["batch_hex"]))
        with pytest.raises(CorruptDataError):
            checksums.verify("t", *elsewhere, batch, batch.records)


@pytest.mark.parametrize("vector", GOLDEN["records_crc"], ids=lambda vector: vector["name"])
def test_the_broker_accepts_the_golden_checksum_and_no_other(vector):
    limits = ingress.IngressLimits(max_batch_bytes=1 << 20)
    records = bytes.fromhex(vector["records_hex"])
    now_ms = 1_800_000_000_000
    accepted = ingress.accept(
        RecordBatch(records=records, records_crc=vector["crc"]), limits, now_ms
    )
    assert accepted.header.record_count == len(RecordSet.FromString(records).records)
    with pytest.raises(ingress.Refusal, match="records_crc"):
        ingress.accept(RecordBatch(records=records, records_crc=vector["crc"] ^ 1), limits, now_ms)


@pytest.mark.parametrize("vector", GOLDEN["key_hash"], ids=lambda vector: vector["key_hex"][:16])
def test_broker_and_client_send_a_key_to_the_same_partition(vector):
    key = bytes.fromhex(vector["key_hex"])
    for count, partition in vector["partitions"].items():
        assert key_partition(key, int(count)) == partition
        assert partitioner.route_maker("crc32")("t", int(count), 0).choose(key, b"") == partition


def test_a_running_broker_stamps_by_the_documented_layout(shared_broker, topic):
    with grpc.insecure_channel(shared_broker.address) as channel:
        create = CreateTopicRequest(topic=topic, partitions=3)
        AdminServiceStub(channel).CreateTopic(create, timeout=CALL_TIMEOUT_S)
        produce = ProduceRequest(topic=topic, records=[Record(key=b"k", value=b"v")] * 5)
        (result,) = ProducerServiceStub(channel).Produce(produce, timeout=CALL_TIMEOUT_S).results
        assert result.partition == zlib.crc32(b"k") % 3
        read = ReadRequest(topic=topic, form=FORM_BATCHES, stop_at_end=True)
        replies = list(ConsumerServiceStub(channel).Read(read, timeout=CALL_TIMEOUT_S))
    (delivery,) = [reply.delivery for reply in replies if reply.HasField("delivery")]
    (batch,) = delivery.batches
    place = packed(delivery.topic_id, delivery.partition, batch)
    assert batch.records_crc == zlib.crc32(batch.records)
    assert batch.placement_crc == zlib.crc32(place)
    assert (batch.record_count, batch.last_offset_delta, batch.format_version) == (5, 4, 1)
