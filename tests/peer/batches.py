"""Stored batches as brokers send them to each other."""

from __future__ import annotations

from riverrun.v1.records_pb2 import RecordBatch
from riverrun_server.wire.stored import stored_batch


def batch(base, count=1, epoch=3, size=1):
    """Return a batch of so many records, whose bytes are no record set."""
    data = RecordBatch(
        records=bytes(size), base_offset=base, last_offset_delta=count - 1, leader_epoch=epoch
    ).SerializeToString()
    return stored_batch(data)
