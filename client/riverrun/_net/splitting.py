"""Cut a batch that is too large for its topic into two."""

from __future__ import annotations

from dataclasses import replace

from riverrun._core import codecs
from riverrun._core.outgoing import OutgoingBatch
from riverrun.v1.records_pb2 import Record, RecordSet


def halve(batch: OutgoingBatch) -> tuple[OutgoingBatch, OutgoingBatch] | None:
    """Return two batches with the records of one, in order; None where it has only one record."""
    if batch.record_count == 1:
        return None
    records = RecordSet.FromString(codecs.expand(batch.codec, batch.records)).records
    middle = len(records) // 2
    reserved = batch.reserved_bytes // 2
    first = _part(batch, records[:middle], 0, reserved)
    return first, _part(batch, records[middle:], middle, batch.reserved_bytes - reserved)


def _part(
    batch: OutgoingBatch, records: list[Record], skipped: int, reserved_bytes: int
) -> OutgoingBatch:
    times = [record.timestamp_ms for record in records]
    return replace(
        batch,
        records=RecordSet(records=records).SerializeToString(),
        record_count=len(records),
        first_timestamp_ms=times[0],
        max_timestamp_ms=max(times),
        reserved_bytes=reserved_bytes,
        first_index=batch.first_index + skipped,
        codec=0,
        crc=None,
        base_sequence=None,
        tag=0,
    )
