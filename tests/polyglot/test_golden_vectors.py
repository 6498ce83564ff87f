"""The golden vectors, held against the checksums and the key hash of the Go and Node clients."""

from __future__ import annotations

import json

import pytest

from tests.polyglot import toolchain

pytestmark = [pytest.mark.polyglot, toolchain.BUILDS]

VECTORS = toolchain.ROOT / "proto" / "riverrun" / "v1" / "test-vectors.json"
GOLDEN = json.loads(VECTORS.read_text())


@pytest.fixture(scope="module", params=["go", "node"])
def client(request):
    return toolchain.client(request.param)


def test_every_vector_holds(client):
    assert client.run("vectors", VECTORS) == {part: len(GOLDEN[part]) for part in GOLDEN}


def flipped(text):
    """Return hex digits with one bit of the tenth byte changed."""
    data = bytearray.fromhex(text)
    data[9] ^= 1
    return data.hex()


# What is changed, and what the client must complain about.
WRONG = {
    "records_crc": lambda golden: golden["records_crc"][1].update(crc=1),
    "key_hash": lambda golden: golden["key_hash"][1].update(crc=1),
    "key_hash of 00": lambda golden: golden["key_hash"][4]["partitions"].update({"16": 4}),
    "stamp layout": lambda golden: golden["stamp"][1].update(topic_id_hex="ff" * 16),
    "stamp field base_sequence": lambda golden: golden["stamp"][1]["fields"].update(
        base_sequence="1099511627780"
    ),
    "stamp placement_crc": lambda golden: golden["stamp"][0].update(placement_crc=1),
    "records_crc is": lambda golden: golden["stamp"][0].update(
        batch_hex=flipped(golden["stamp"][0]["batch_hex"])
    ),
}


@pytest.mark.parametrize("complaint", WRONG)
def test_a_wrong_vector_is_noticed(client, tmp_path, complaint):
    golden = json.loads(VECTORS.read_text())
    WRONG[complaint](golden)
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(golden))
    done = client.try_run("vectors", wrong)
    assert done.returncode != 0
    assert complaint in done.stderr
