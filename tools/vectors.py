"""Write the golden test vectors of checksums, key hash and stamp, or check that they still hold.

They are computed here from the documented layout and zlib alone, not with the broker's code: the
tests hold the broker, the Python client and the Go and Node clients against the same file.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from pathlib import Path

from riverrun.v1.records_pb2 import CODEC_NONE, Header, Record, RecordBatch, RecordSet

TARGET = Path(__file__).resolve().parent.parent / "proto" / "riverrun" / "v1" / "test-vectors.json"
LAYOUT = struct.Struct("<16siiIiqiqqqqiiqqii")
FIELDS = [
    "codec",
    "records_crc",
    "record_count",
    "producer_id",
    "producer_epoch",
    "base_sequence",
    "first_timestamp_ms",
    "max_timestamp_ms",
    "base_offset",
    "last_offset_delta",
    "leader_epoch",
    "append_time_ms",
    "partition_max_timestamp_ms",
    "attributes",
    "format_version",
]


def record_sets() -> dict[str, RecordSet]:
    """Return record sets that hold every case of presence."""
    return {
        "one empty record": RecordSet(records=[Record()]),
        "empty value": RecordSet(records=[Record(value=b"")]),
        "tombstone": RecordSet(records=[Record(key=b"k", timestamp_ms=1_700_000_000_000)]),
        "three records": RecordSet(
            records=[
                Record(key=b"a", value=b"1", timestamp_ms=1_700_000_000_000),
                Record(value=b"\x00\xff" * 20),
                Record(
                    key=b"c",
                    value=b"3",
                    headers=[Header(key="h", value=b"v"), Header(key="h", value=b"")],
                ),
            ]
        ),
    }


def stamps() -> list[tuple[bytes, int, RecordBatch]]:
    """Return stamped batches with small, large and negative numbers in their headers."""
    data = record_sets()["three records"].SerializeToString()
    plain = RecordBatch(
        records=data, records_crc=zlib.crc32(data), record_count=3, format_version=1
    )
    plain.last_offset_delta = 2
    full = RecordBatch(
        records=data,
        codec=CODEC_NONE,
        records_crc=zlib.crc32(data),
        record_count=3,
        producer_id=(1 << 62) + 7,
        producer_epoch=(1 << 31) - 1,
        base_sequence=(1 << 40) + 5,
        first_timestamp_ms=-1,
        max_timestamp_ms=1_700_000_000_000,
        base_offset=(1 << 50) + 11,
        last_offset_delta=2,
        leader_epoch=77,
        append_time_ms=1_700_000_000_123,
        partition_max_timestamp_ms=1_800_000_000_000,
        attributes=8,
        format_version=1,
    )
    return [(bytes(16), 0, plain), (bytes(range(16)), 2_147_483_647, full)]


def vectors() -> dict[str, object]:
    """Return everything that goes into the file."""
    keys = [b"", b"a", b"key-0001", "größe".encode(), bytes(range(256))]
    stamped = []
    for topic_id, partition, batch in stamps():
        values = {name: getattr(batch, name) for name in FIELDS}
        packed = LAYOUT.pack(topic_id, partition, *values.values())
        batch.placement_crc = zlib.crc32(packed)
        stamped.append(
            {
                "topic_id_hex": topic_id.hex(),
                "partition": partition,
                # As strings: JSON numbers of other languages end at 2^53.
                "fields": {name: str(value) for name, value in values.items()},
                "packed_hex": packed.hex(),
                "placement_crc": batch.placement_crc,
                "batch_hex": batch.SerializeToString(deterministic=True).hex(),
            }
        )
    return {
        "records_crc": [
            {"name": name, "records_hex": data.hex(), "crc": zlib.crc32(data)}
            for name, data in ((k, v.SerializeToString()) for k, v in record_sets().items())
        ],
        "key_hash": [
            {
                "key_hex": key.hex(),
                "crc": zlib.crc32(key),
                "partitions": {str(n): zlib.crc32(key) % n for n in (1, 3, 16, 1000)},
            }
            for key in keys
        ],
        "stamp": stamped,
    }


def main() -> None:
    """Write the file, or with --check fail where it differs: it must never change again."""
    text = json.dumps(vectors(), indent=2) + "\n"
    if "--check" in sys.argv[1:]:
        if text != TARGET.read_text():
            sys.exit(f"{TARGET.name} no longer holds: the format must not change")
        print("vectors hold")
    else:
        TARGET.write_text(text)


if __name__ == "__main__":
    main()
