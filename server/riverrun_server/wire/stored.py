"""Reading stored batches: their place alone, everything verified, or taken apart into records."""

from __future__ import annotations

import zlib

from google.protobuf.message import DecodeError

from riverrun.v1.records_pb2 import ReceivedRecord, RecordBatch, RecordSet
from riverrun_server.core.errors import Refusal
from riverrun_server.core.log.batch import (
    FORMAT_VERSION,
    BatchHeader,
    PartitionId,
    ScannedBatch,
    Stamp,
    StoredBatch,
)
from riverrun_server.ports.log import CorruptData
from riverrun_server.wire import codecs
from riverrun_server.wire.placement import placement_crc

# No batch was ever accepted that expands beyond this, whatever the topic allowed at the time.
EXPANDED_BYTES_MAX = 3 << 20
EXPLICIT_OFFSETS = 8


def stored_batch(data: bytes) -> StoredBatch:
    """Return a stored batch with its place, read from its header; checksums are not looked at.

    Raises:
        CorruptData: the bytes are no batch.
    """
    batch = _parse(data)
    base = batch.base_offset
    return StoredBatch(base, base + batch.last_offset_delta + 1, batch.leader_epoch, data)


def scan_batch(partition: PartitionId, data: bytes) -> ScannedBatch:
    """Return everything that a stored batch says, after both checksums have been verified.

    Raises:
        CorruptData: the bytes are no batch, are damaged, or belong somewhere else.
    """
    batch = _parse(data)
    where = f"batch at offset {batch.base_offset} of {partition}"
    if batch.format_version != FORMAT_VERSION:
        raise CorruptData(f"{where}: format version {batch.format_version}, not {FORMAT_VERSION}")
    if zlib.crc32(batch.records) != batch.records_crc:
        raise CorruptData(f"{where}: the records' checksum is wrong")
    if placement_crc(partition, batch) != batch.placement_crc:
        raise CorruptData(f"{where}: the placement checksum is wrong")
    return ScannedBatch(
        BatchHeader(
            batch.record_count,
            len(batch.records),
            batch.producer_id,
            batch.producer_epoch,
            batch.base_sequence,
            batch.max_timestamp_ms,
        ),
        Stamp(
            batch.base_offset,
            batch.last_offset_delta,
            batch.leader_epoch,
            batch.append_time_ms,
            batch.partition_max_timestamp_ms,
            batch.attributes,
            batch.format_version,
        ),
        data,
    )


def record_times(data: bytes) -> list[tuple[int, int]]:
    """Return (offset, timestamp in ms) of every record of a stored batch."""
    batch = _parse(data)
    base, explicit = batch.base_offset, batch.attributes & EXPLICIT_OFFSETS
    append_time = batch.append_time_ms
    return [
        (
            base + (record.offset_delta if explicit else index),
            record.timestamp_ms if record.HasField("timestamp_ms") else append_time,
        )
        for index, record in enumerate(_records(batch).records)
    ]


def received_records(data: bytes, first: int, end: int, limit_bytes: int) -> list[ReceivedRecord]:
    """Take a stored batch apart into the records whose offsets lie in [first, end).

    At least one record is returned where there is one, then as many as fit into `limit_bytes`.
    The records' checksum is verified first. Costs 1-2 us a record and the expansion: large or
    compressed batches belong into a thread.

    Raises:
        CorruptData: the records are damaged.
    """
    batch = _parse(data)
    base, explicit = batch.base_offset, batch.attributes & EXPLICIT_OFFSETS
    append_time, size = batch.append_time_ms, 0
    out: list[ReceivedRecord] = []
    for index, record in enumerate(_records(batch).records):
        offset = base + (record.offset_delta if explicit else index)
        if offset < first:
            continue
        if offset >= end:
            break
        received = ReceivedRecord(
            offset=offset,
            timestamp_ms=record.timestamp_ms if record.HasField("timestamp_ms") else append_time,
            key=record.key if record.HasField("key") else None,
            value=record.value if record.HasField("value") else None,
            headers=record.headers,
        )
        size += received.ByteSize()
        if out and size > limit_bytes:
            break
        out.append(received)
    return out


def _parse(data: bytes) -> RecordBatch:
    try:
        return RecordBatch.FromString(data)
    except DecodeError as error:
        raise CorruptData(f"{len(data)} stored bytes are no batch: {error}") from error


def _records(batch: RecordBatch) -> RecordSet:
    data = batch.records
    if zlib.crc32(data) != batch.records_crc:
        raise CorruptData(f"batch at offset {batch.base_offset}: the records' checksum is wrong")
    try:
        return RecordSet.FromString(codecs.expand(batch.codec, data, EXPANDED_BYTES_MAX))
    except (DecodeError, Refusal) as error:
        raise CorruptData(f"batch at offset {batch.base_offset}: {error}") from error
