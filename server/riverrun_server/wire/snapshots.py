"""Producer snapshots as bytes, for the store and later for replicas."""

from __future__ import annotations

from array import array

from riverrun_server.core.producers import ProducerEntry, ProducersSnapshot
from riverrun_server.wire.v1 import internal_records_pb2 as wire


def encode_snapshot(snapshot: ProducersSnapshot) -> bytes:
    """Return a snapshot as a serialised ProducerSnapshot."""
    return wire.ProducerSnapshot(
        offset=snapshot.offset,
        producers=[
            wire.ProducerEntry(
                producer_id=entry.producer_id,
                producer_epoch=entry.producer_epoch,
                last_sequence=entry.last_sequence,
                last_append_time_ms=entry.last_append_time_ms,
                batches=entry.batches,
            )
            for entry in snapshot.producers
        ],
    ).SerializeToString()


def decode_snapshot(data: bytes) -> ProducersSnapshot:
    """Return the snapshot that `encode_snapshot` was given.

    Raises:
        google.protobuf.message.DecodeError: the bytes are no snapshot.
    """
    snapshot = wire.ProducerSnapshot.FromString(data)
    return ProducersSnapshot(
        snapshot.offset,
        tuple(
            ProducerEntry(
                entry.producer_id,
                entry.producer_epoch,
                entry.last_sequence,
                entry.last_append_time_ms,
                array("q", entry.batches),
            )
            for entry in snapshot.producers
        ),
    )
