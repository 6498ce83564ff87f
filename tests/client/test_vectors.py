"""The golden vectors beside the protos hold for this client too."""

from __future__ import annotations

import json
from pathlib import Path
from zlib import crc32

import pytest

from riverrun._core.checksums import placement_crc
from riverrun._core.partitioner import route_maker
from riverrun.v1.records_pb2 import RecordBatch

VECTORS = json.loads(
    (Path(__file__).parents[2] / "proto" / "riverrun" / "v1" / "test-vectors.json").read_text()
)


@pytest.mark.parametrize("vector", VECTORS["records_crc"], ids=lambda v: v["name"])
def test_records_crc(vector):
    assert crc32(bytes.fromhex(vector["records_hex"])) == vector["crc"]


@pytest.mark.parametrize("vector", VECTORS["key_hash"], ids=lambda v: v["key_hex"][:16] or "empty")
def test_key_hash(vector):
    key = bytes.fromhex(vector["key_hex"])
    for partitions, partition in vector["partitions"].items():
        assert route_maker("crc32")("t", int(partitions), 0).choose(key, b"") == partition


@pytest.mark.parametrize("vector", VECTORS["stamp"])
def test_stamp(vector):
    batch = RecordBatch(**{name: int(value) for name, value in vector["fields"].items()})
    topic_id = bytes.fromhex(vector["topic_id_hex"])
    assert placement_crc(topic_id, vector["partition"], batch) == vector["placement_crc"]
