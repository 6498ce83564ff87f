"""Choosing partitions for records whose producer leaves it to the broker: by key, else sticky.

CRC-32 of the key modulo partitions is librdkafka's `consistent`: in every standard library, and in
proto/riverrun/v1/test-vectors.json, so that a client that chooses itself chooses the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from riverrun.v1.records_pb2 import Record


def key_partition(key: bytes, partition_count: int) -> int:
    """Return the partition of a key."""
    return zlib.crc32(key) % partition_count


def choose_partitions(
    records: Sequence[Record], partition_count: int, sticky: int = 0
) -> dict[int, list[Record]]:
    """Return the records by partition, in order; those without a key all go to `sticky`."""
    if partition_count == 1:
        return {0: list(records)}
    chosen: dict[int, list[Record]] = {}
    for record in records:
        if record.HasField("key"):
            partition = key_partition(record.key, partition_count)
        else:
            partition = sticky % partition_count
        chosen.setdefault(partition, []).append(record)
    return chosen
