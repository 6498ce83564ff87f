"""The two checksums of a stored batch, taken again by the reader.

The first covers the records as they stand. The second ties the batch to its place: topic id,
partition and every header field in one fixed little-endian layout without padding, so that a batch
that is intact but stands in the wrong place is as wrong as a damaged one.
"""

from __future__ import annotations

import struct
from typing import Protocol
from zlib import crc32

from riverrun.errors import CorruptDataError, Reason

_LAYOUT = struct.Struct("<16siiIiqiqqqqiiqqii")

FORMAT_VERSION = 1


class Batch(Protocol):
    """The fields of riverrun.v1.RecordBatch."""

    records_crc: int
    record_count: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    base_offset: int
    last_offset_delta: int
    leader_epoch: int
    append_time_ms: int
    partition_max_timestamp_ms: int
    attributes: int
    format_version: int
    placement_crc: int

    @property
    def codec(self) -> int: ...


def placement_crc(topic_id: bytes, partition: int, batch: Batch) -> int:
    """Return the CRC-32 over a batch's place and header fields."""
    return crc32(
        _LAYOUT.pack(
            topic_id,
            partition,
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


def verify(topic: str, topic_id: bytes, partition: int, batch: Batch, records: bytes) -> None:
    """Check both checksums.

    Args:
        topic: where the batch stands.
        topic_id: of it.
        partition: where in the topic.
        batch: its header.
        records: the batch's own, taken once: each access to the field copies them.

    Raises:
        CorruptDataError: one is wrong, or the batch has a format that this version does not know.
    """
    if batch.format_version != FORMAT_VERSION:
        raise _corrupt(
            topic,
            partition,
            batch,
            f"has format version {batch.format_version} and this client knows {FORMAT_VERSION}; "
            "upgrade the client",
        )
    actual = crc32(records)
    if actual != batch.records_crc:
        raise _corrupt(
            topic,
            partition,
            batch,
            f"says that the CRC-32 of its records is {batch.records_crc:#010x} and it is "
            f"{actual:#010x}; read it again, and if that does not help, from another replica",
        )
    actual = placement_crc(topic_id, partition, batch)
    if actual != batch.placement_crc:
        raise _corrupt(
            topic,
            partition,
            batch,
            f"says that its placement checksum is {batch.placement_crc:#010x} and it is "
            f"{actual:#010x}: its header is damaged, or it belongs to another place",
        )


def _corrupt(topic: str, partition: int, batch: Batch, text: str) -> CorruptDataError:
    return CorruptDataError(
        f"the batch at offset {batch.base_offset} of {topic}[{partition}] {text}",
        reason=Reason.CORRUPT_DATA,
    )
