"""Put records into a fake partition without a producer."""

from __future__ import annotations

from zlib import crc32

from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from tests.client.fake_log import FakePartition

FIRST_MS = 1_700_000_000_000


def fill(log: FakePartition, count: int, *, batch: int = 5, gap: int = 0) -> None:
    """Append so many records; each value is its offset, each time a millisecond later."""
    while count:
        some = min(batch, count)
        records = [
            Record(value=b"%d" % offset, timestamp_ms=FIRST_MS + offset)
            for offset in range(log.end, log.end + some)
        ]
        data = RecordSet(records=records).SerializeToString()
        made = RecordBatch(
            records=data,
            codec=1,
            records_crc=crc32(data),
            record_count=some,
            first_timestamp_ms=records[0].timestamp_ms,
            max_timestamp_ms=records[-1].timestamp_ms,
        )
        log.store(made, gap=gap)
        count -= some


def batch_of(values: list[bytes]) -> RecordBatch:
    """Return a batch of records with these values, as a producer sends it."""
    data = RecordSet(
        records=[Record(value=value, timestamp_ms=FIRST_MS) for value in values]
    ).SerializeToString()
    return RecordBatch(
        records=data,
        codec=1,
        records_crc=crc32(data),
        record_count=len(values),
        first_timestamp_ms=FIRST_MS,
        max_timestamp_ms=FIRST_MS,
    )
