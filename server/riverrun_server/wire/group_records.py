"""The records of the internal offsets topic as bytes: four kinds, told apart by their keys.

What a broker does not know it must not drop, and it drops what it does not know whenever it shortens
the log. So a key or a value that only a newer version can have written makes the whole partition
unreadable here, and whoever asks is told why.

Not here: the values (wire/group_values, wire/assignments).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from riverrun.v1.records_pb2 import ReceivedRecord
from riverrun.v1.records_pb2 import Record as TopicRecord
from riverrun_server.core.groups.members import (
    AssignmentRecord,
    GroupRecord,
    MemberRecord,
    Record,
)
from riverrun_server.core.groups.offsets import OffsetRecord
from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.ports.log import CorruptData
from riverrun_server.wire import assignments, group_values
from riverrun_server.wire.group_values import NewerVersion, WrongValue
from riverrun_server.wire.stored import received_records
from riverrun_server.wire.v1 import internal_records_pb2 as wire

# No batch is larger, so that nothing of one is left out.
_WHOLE_BATCH_BYTES: Final = 64 << 20
# Tag and length of a record in its set.
_RECORD_OVERHEAD_BYTES: Final = 5
_TOPIC_ID_BYTES: Final = 16


class UnknownRecord(CorruptData):
    """Only a newer version can have written it; this one must not serve the partition."""


class LoggedRecord(NamedTuple):
    """A record of the offsets topic and where it stands."""

    offset: int
    record: Record


def to_record(record: Record) -> TopicRecord:
    """Return a record as it is to be appended."""
    key = wire.OffsetsTopicKey(group_id=record.group_id)
    value: bytes | None = None
    match record:
        case OffsetRecord():
            key.topic_id, key.partition = record.partition
            if record.value is not None:
                value = group_values.offset_bytes(record.value)
        case GroupRecord():
            key.kind = wire.OFFSETS_TOPIC_KIND_GROUP
            if record.value is not None:
                value = group_values.group_bytes(record.value)
        case MemberRecord():
            key.kind, key.member_id = wire.OFFSETS_TOPIC_KIND_MEMBER, record.member_id
            if record.value is not None:
                value = group_values.member_bytes(record.value)
        case AssignmentRecord():
            key.kind, key.member_id = wire.OFFSETS_TOPIC_KIND_ASSIGNMENT, record.member_id
            if record.value is not None:
                value = assignments.assignment_bytes(record.value)
    return TopicRecord(key=key.SerializeToString(), value=value)


def packed_bytes(records: Sequence[TopicRecord]) -> int:
    """Return about how large a batch of these records is, rather too large than too small."""
    return sum([record.ByteSize() + _RECORD_OVERHEAD_BYTES for record in records])


def from_record(record: ReceivedRecord) -> Record:
    """Return what a record of the offsets topic says.

    Raises:
        CorruptData: it cannot be read.
        UnknownRecord: this version does not know what it says.
    """
    try:
        key = wire.OffsetsTopicKey.FromString(record.key)
        _check_known(key)
        return _READERS[key.kind](key, record.value if record.HasField("value") else None)
    except NewerVersion as newer:
        raise UnknownRecord(
            f"record at offset {record.offset} of the offsets topic: {newer}, which a newer version "
            "of the broker has written; run that version here, or let a broker lead that does"
        ) from newer
    except (DecodeError, WrongValue) as error:
        raise CorruptData(
            f"record at offset {record.offset} of the offsets topic: {error}"
        ) from error


def read_batches(batches: Sequence[StoredBatch], first: int) -> list[LoggedRecord]:
    """Return all records of some batches from offset `first` on; for large ones in a thread.

    Raises:
        CorruptData: a batch or a record is damaged.
        UnknownRecord: this version does not know what one of them says.
    """
    return [
        LoggedRecord(record.offset, from_record(record))
        for batch in batches
        for record in received_records(batch.data, first, batch.next_offset, _WHOLE_BATCH_BYTES)
    ]


def _check_known(key: wire.OffsetsTopicKey) -> None:
    if key.kind not in _READERS:
        raise NewerVersion(f"its key is of kind {key.kind}")
    if len(UnknownFieldSet(key)):
        # Records that differ in it are different ones, and would be taken for the same.
        raise NewerVersion("its key has a field that is not known here")


def _offset(key: wire.OffsetsTopicKey, value: bytes | None) -> Record:
    if len(key.topic_id) != _TOPIC_ID_BYTES or key.partition < 0 or key.member_id:
        raise WrongValue(
            f"its key is of an offset and names topic id {key.topic_id.hex()!r}, partition "
            f"{key.partition}, member {key.member_id!r}"
        )
    return OffsetRecord(
        key.group_id,
        PartitionId(key.topic_id, key.partition),
        None if value is None else group_values.offset_from_bytes(value),
    )


def _group(key: wire.OffsetsTopicKey, value: bytes | None) -> Record:
    _check_names(key, has_member=False)
    return GroupRecord(
        key.group_id, None if value is None else group_values.group_from_bytes(value)
    )


def _member(key: wire.OffsetsTopicKey, value: bytes | None) -> Record:
    _check_names(key, has_member=True)
    return MemberRecord(
        key.group_id,
        key.member_id,
        None if value is None else group_values.member_from_bytes(value),
    )


def _assignment(key: wire.OffsetsTopicKey, value: bytes | None) -> Record:
    _check_names(key, has_member=True)
    return AssignmentRecord(
        key.group_id,
        key.member_id,
        None if value is None else assignments.assignment_from_bytes(value),
    )


def _check_names(key: wire.OffsetsTopicKey, *, has_member: bool) -> None:
    if key.topic_id or key.partition or bool(key.member_id) is not has_member:
        raise WrongValue(
            f"its key is of kind {key.kind} and names topic id {key.topic_id.hex()!r}, partition "
            f"{key.partition}, member {key.member_id!r}"
        )


_READERS: Final[dict[int, Callable[[wire.OffsetsTopicKey, bytes | None], Record]]] = {
    wire.OFFSETS_TOPIC_KIND_UNSPECIFIED: _offset,
    wire.OFFSETS_TOPIC_KIND_GROUP: _group,
    wire.OFFSETS_TOPIC_KIND_MEMBER: _member,
    wire.OFFSETS_TOPIC_KIND_ASSIGNMENT: _assignment,
}
