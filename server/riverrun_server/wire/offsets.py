"""Committed offsets as records of the internal offsets topic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from riverrun.v1.records_pb2 import ReceivedRecord, Record
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.ports.log import CorruptData
from riverrun_server.wire.stored import received_records
from riverrun_server.wire.v1.internal_records_pb2 import OffsetCommitKey, OffsetCommitValue

# No batch is larger, so that nothing of one is left out.
_WHOLE_BATCH_BYTES = 64 << 20
# Tag and length of a record in its set.
_RECORD_OVERHEAD_BYTES = 5


class LoggedRecord(NamedTuple):
    """A record of the offsets topic and where it stands; None for kinds that are not offsets."""

    offset: int
    record: OffsetRecord | None


def to_record(record: OffsetRecord) -> Record:
    """Return an offset as the record to append."""
    key = OffsetCommitKey(
        group_id=record.group_id,
        topic_id=record.partition.topic_id,
        partition=record.partition.partition,
    ).SerializeToString()
    value = record.value
    if value is None:
        return Record(key=key)
    return Record(
        key=key,
        value=OffsetCommitValue(
            offset=value.offset,
            leader_epoch=value.leader_epoch,
            metadata=value.metadata,
            commit_time_ms=value.commit_time_ms,
        ).SerializeToString(),
    )


def packed_bytes(records: Sequence[Record]) -> int:
    """Return about how large a batch of these records is, rather too large than too small."""
    return sum([record.ByteSize() + _RECORD_OVERHEAD_BYTES for record in records])


def from_record(record: ReceivedRecord) -> OffsetRecord | None:
    """Return what a record of the offsets topic says, or None where it is of another kind.

    Raises:
        CorruptData: it cannot be read.
    """
    try:
        key = OffsetCommitKey.FromString(record.key)
        if len(key.topic_id) != 16:
            return None
        value = OffsetCommitValue.FromString(record.value) if record.HasField("value") else None
    except DecodeError as error:
        raise CorruptData(f"offsets record at offset {record.offset}: {error}") from error
    return OffsetRecord(
        key.group_id,
        PartitionId(key.topic_id, key.partition),
        None
        if value is None
        else CommittedOffset(
            value.offset,
            value.leader_epoch if value.HasField("leader_epoch") else None,
            value.metadata,
            value.commit_time_ms,
        ),
    )


def read_batches(batches: Sequence[StoredBatch], first: int) -> list[LoggedRecord]:
    """Return all records of some batches from offset `first` on; for large ones in a thread.

    Raises:
        CorruptData: a batch or a record is damaged.
    """
    return [
        LoggedRecord(record.offset, from_record(record))
        for batch in batches
        for record in received_records(batch.data, first, batch.next_offset, _WHOLE_BATCH_BYTES)
    ]
