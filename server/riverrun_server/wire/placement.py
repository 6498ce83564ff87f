"""The checksum that ties a stamped batch to its place.

It covers the topic id and the partition beside every header field, so that a batch that is intact
but stands in the wrong place (CVE-2026-35554 was one) is as wrong as a damaged one. The layout is
fixed, little-endian and without padding; docs/format.md has it in words and
proto/riverrun/v1/test-vectors.json in examples.
"""

from __future__ import annotations

import struct
import zlib

from riverrun.v1.records_pb2 import RecordBatch
from riverrun_server.core.log.batch import PartitionId

_LAYOUT = struct.Struct("<16siiIiqiqqqqiiqqii")


def placement_crc(partition: PartitionId, batch: RecordBatch) -> int:
    """Return the CRC-32 over a stamped batch's place and header fields."""
    return zlib.crc32(
        _LAYOUT.pack(
            partition.topic_id,
            partition.partition,
            batch.codec,
            batch.records_crc,
            batch.record_count,
            batch.producer_id,
            batch.producer_epoch,
            batch.base_sequence,
            batch.first_timestamp_ms,
            batch.max_timestamp_ms,
            batch.base_offset,
            batch.last_offset_delta,
            batch.leader_epoch,
            batch.append_time_ms,
            batch.partition_max_timestamp_ms,
            batch.attributes,
            batch.format_version,
        )
    )
