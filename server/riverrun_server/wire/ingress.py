"""Everything that is checked of a batch, once, by the broker that it reaches first.

A malformed record that got in would stop its consumers for ever, so the whole record set is parsed
here once; from then on its bytes are opaque.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import BatchHeader, PartitionId, Stamp
from riverrun_server.wire import codecs
from riverrun_server.wire.placement import placement_crc
from riverrun_server.wire.varints import varint

MAX_BATCH_RECORDS = 65_536

# RecordBatch.records = 1 and RecordSet.records = 1, length-delimited, as protobuf would write them.
_RECORDS_TAG = b"\x0a"


@dataclass(frozen=True, slots=True)
class IngressLimits:
    """What a batch must keep to.

    Attributes:
        max_batch_bytes: of the record set, as it stands and expanded.
        timestamp_ahead_max_ms: how far beyond the broker's clock a timestamp may lie. One batch
            stamped in microseconds would poison every later lookup by time.
    """

    max_batch_bytes: int
    timestamp_ahead_max_ms: int = 3_600_000


class AcceptedBatch:
    """A validated batch; implements core.log.batch.IncomingBatch."""

    __slots__ = ("_fields", "_records", "header")

    def __init__(self, batch: RecordBatch, records: bytes, header: BatchHeader) -> None:
        # Apart from each other: protobuf would copy the records twice to serialise them.
        batch.ClearField("records")
        self._fields = batch
        self._records = records
        self.header = header

    def stamped(self, partition: PartitionId, stamp: Stamp) -> bytes:
        """Return the bytes to store: the batch with its stamp and the checksum over its place."""
        batch = self._fields
        batch.base_offset = stamp.base_offset
        batch.last_offset_delta = stamp.last_offset_delta
        batch.leader_epoch = stamp.leader_epoch
        batch.append_time_ms = stamp.append_time_ms
        batch.partition_max_timestamp_ms = stamp.partition_max_timestamp_ms
        batch.attributes = stamp.attributes
        batch.format_version = stamp.format_version
        batch.placement_crc = placement_crc(partition, batch)
        return self.unstamped()

    def unstamped(self) -> bytes:
        """Return the bytes as they are now, for `take_over` by the broker that stamps them."""
        records = self._records
        fields = self._fields.SerializeToString()
        return b"".join((_RECORDS_TAG, varint(len(records)), records, fields))


def take_over(data: bytes) -> AcceptedBatch:
    """Return a batch that another broker has validated; only that it came whole is checked.

    Raises:
        Refusal: INVALID_RECORD.
    """
    try:
        batch = RecordBatch.FromString(data)
    except DecodeError as error:
        raise Refusal(
            Reason.INVALID_RECORD, f"what a broker passed on is no batch: {error}"
        ) from error
    _refuse_foreign_fields(batch)
    records = batch.records
    if not batch.record_count or zlib.crc32(records) != batch.records_crc:
        raise Refusal(
            Reason.INVALID_RECORD,
            f"a batch of {batch.record_count} records and {len(records)} bytes was damaged between "
            "two brokers: its checksum is wrong, or its count is missing; send it again",
        )
    return AcceptedBatch(batch, records, _header(batch, len(records)))


def accept(batch: RecordBatch, limits: IngressLimits, now_ms: int) -> AcceptedBatch:
    """Validate a batch; the caller gives it up, for the stamp is set in place.

    Compressed batches cost milliseconds: call it in a thread for those.

    Raises:
        Refusal: INVALID_RECORD, INVALID_TIMESTAMP, BATCH_TOO_LARGE, UNSUPPORTED_CODEC,
            INVALID_REQUEST for impossible producer fields.
    """
    _refuse_foreign_fields(batch)
    records = batch.records
    size = len(records)
    _check_size(size, batch.record_count, limits)
    if batch.HasField("records_crc"):
        actual = zlib.crc32(records)
        if actual != batch.records_crc:
            raise Refusal(
                Reason.INVALID_RECORD,
                f"records_crc is {batch.records_crc:#010x} but the CRC-32 of the {size} bytes of "
                f"records is {actual:#010x}; they were damaged on the way, or the checksum was not "
                "taken from the bytes as they stand (after compression)",
            )
    else:
        batch.records_crc = zlib.crc32(records)
    record_set = _parse(codecs.expand(batch.codec, records, limits.max_batch_bytes))
    count = len(record_set.records)
    _check_count(count, batch.record_count)
    batch.record_count = count
    if not batch.max_timestamp_ms:
        first, latest, all_timed = _times(record_set.records)
        batch.first_timestamp_ms = first
        batch.max_timestamp_ms = _latest_of_batch(latest, all_timed, now_ms)
        _check_timestamp(latest, limits, now_ms)
    _check_not_negative(min(batch.max_timestamp_ms, batch.first_timestamp_ms))
    _check_timestamp(max(batch.max_timestamp_ms, batch.first_timestamp_ms), limits, now_ms)
    return AcceptedBatch(batch, records, _header(batch, size))


class PackedRecords(NamedTuple):
    """Validated records as they stand in a record set, and what their batch has to say of them.

    Attributes:
        data: a serialised RecordSet of theirs; joined to that of others it is one of all.
        records: how many.
        first_timestamp_ms: of the first; 0 where it has none.
        latest_ms: the largest timestamp; 0 where none has one.
        all_timed: whether each has one.
    """

    data: bytes
    records: int
    first_timestamp_ms: int
    latest_ms: int
    all_timed: bool


def pack_records(records: Sequence[Record], limits: IngressLimits, now_ms: int) -> PackedRecords:
    """Serialise typed records, as validated as a batch that came as bytes.

    Raises:
        Refusal: INVALID_RECORD, INVALID_TIMESTAMP, BATCH_TOO_LARGE.
    """
    # Each look at a repeated field makes its elements anew for Python.
    records = records[:]
    _check_count(len(records), 0)
    data = _record_set(records)
    _check_size(len(data), len(records), limits)
    first, latest, all_timed = _times(records)
    _check_timestamp(max(first, latest), limits, now_ms)
    return PackedRecords(data, len(records), first, latest, all_timed)


def join(packed: Sequence[PackedRecords], now_ms: int) -> AcceptedBatch:
    """Make one batch of records that were packed apart, in order."""
    first = packed[0]
    if len(packed) == 1:
        data, count, _, latest, all_timed = first
    else:
        data = b"".join([each.data for each in packed])
        count = sum([each.records for each in packed])
        latest = max([each.latest_ms for each in packed])
        all_timed = all(each.all_timed for each in packed)
    batch = RecordBatch(
        records_crc=zlib.crc32(data),
        record_count=count,
        first_timestamp_ms=first.first_timestamp_ms,
        max_timestamp_ms=_latest_of_batch(latest, all_timed, now_ms),
    )
    return AcceptedBatch(batch, data, _header(batch, len(data)))


def pack(records: Sequence[Record], limits: IngressLimits, now_ms: int) -> AcceptedBatch:
    """Make a batch of typed records.

    Raises:
        Refusal: as `pack_records`.
    """
    return join([pack_records(records, limits, now_ms)], now_ms)


def _record_set(records: Iterable[Record]) -> bytes:
    """Return what a RecordSet of these records serialises to, without copying them into one."""
    parts: list[bytes] = []
    for record in records:
        data = record.SerializeToString()
        parts += (_RECORDS_TAG, varint(len(data)), data)
    return b"".join(parts)


def _refuse_foreign_fields(batch: RecordBatch) -> None:
    if (
        batch.base_offset
        or batch.last_offset_delta
        or batch.leader_epoch
        or batch.append_time_ms
        or batch.partition_max_timestamp_ms
        or batch.attributes
        or batch.format_version
        or batch.placement_crc
    ):
        names = [field.name for field, _ in batch.ListFields() if field.number >= 100]
        raise Refusal(
            Reason.INVALID_RECORD,
            f"fields {', '.join(names)} are the broker's stamp; leave them out",
        )
    if unknown := len(UnknownFieldSet(batch)):
        raise Refusal(
            Reason.INVALID_RECORD,
            f"the batch has {unknown} fields that this broker does not know and could not keep; "
            "leave them out or ask GetServerInfo for the broker's version",
        )
    if batch.producer_id < 0 or batch.producer_epoch < 0 or batch.base_sequence < 0:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"producer_id {batch.producer_id}, producer_epoch {batch.producer_epoch} and "
            f"base_sequence {batch.base_sequence} must not be negative",
        )


def _check_size(size: int, records: int, limits: IngressLimits) -> None:
    if size <= limits.max_batch_bytes:
        return
    allowed = f"the topic allows {limits.max_batch_bytes} (max.batch.bytes)"
    if records == 1:
        text = f"this one record takes {size} bytes and {allowed}; raise the setting"
    else:
        text = f"the batch has {size} bytes of records and {allowed}; send smaller batches"
        text += " or raise the setting"
    raise Refusal(Reason.BATCH_TOO_LARGE, text)


def _parse(data: bytes) -> RecordSet:
    try:
        return RecordSet.FromString(data)
    except DecodeError as error:
        raise Refusal(
            Reason.INVALID_RECORD,
            f"the records are no serialised RecordSet: {error}; if they are compressed, say so in "
            "`codec`",
        ) from error


def _check_count(count: int, declared: int) -> None:
    if not count:
        raise Refusal(Reason.INVALID_RECORD, "the batch has no records; send at least one")
    if count > MAX_BATCH_RECORDS:
        raise Refusal(
            Reason.BATCH_TOO_LARGE,
            f"the batch has {count} records and {MAX_BATCH_RECORDS} are allowed; send smaller ones",
        )
    if declared and declared != count:
        raise Refusal(
            Reason.INVALID_RECORD,
            f"record_count is {declared} but there are {count} records; leave it out or count them",
        )


def _times(records: Iterable[Record]) -> tuple[int, int, bool]:
    """Return (the first record's timestamp, the largest one, whether each has one); 0 is none.

    Raises:
        Refusal: INVALID_TIMESTAMP: one lies below 0.
    """
    times = [record.timestamp_ms if record.HasField("timestamp_ms") else None for record in records]
    if times.count(None) == len(times):
        return 0, 0, False
    known = [time for time in times if time is not None]
    _check_not_negative(min(known))
    return times[0] or 0, max(known), len(known) == len(times)


def _latest_of_batch(latest_ms: int, all_timed: bool, now_ms: int) -> int:
    """Return a batch's largest timestamp; 0 stands for the time of the append.

    So it stays where a record without a time may be the latest one: the append is never earlier
    than now, and a lookup by time must not pass over it.
    """
    return latest_ms if all_timed or latest_ms > now_ms else 0


def _check_not_negative(earliest: int) -> None:
    if earliest < 0:
        raise Refusal(
            Reason.INVALID_TIMESTAMP,
            f"timestamp {earliest} lies below 0; timestamps are milliseconds since 1970, and a record "
            "without one leaves the field out, which takes the time of the append",
        )


def _check_timestamp(latest: int, limits: IngressLimits, now_ms: int) -> None:
    if latest > now_ms + limits.timestamp_ahead_max_ms:
        raise Refusal(
            Reason.INVALID_TIMESTAMP,
            f"timestamp {latest} lies {latest - now_ms} ms ahead of the broker's clock and "
            f"{limits.timestamp_ahead_max_ms} ms are allowed (setting "
            f"limits.timestamp_ahead_max_ms); timestamps are milliseconds since 1970"
            f"{_other_unit(latest, now_ms)}",
        )


def _other_unit(timestamp: int, now_ms: int) -> str:
    """Say in which unit a timestamp would be near now, for that is what was most likely meant."""
    for unit, per_ms in (("microseconds", 1000), ("nanoseconds", 1_000_000)):
        if now_ms // 2 < timestamp // per_ms < now_ms * 2:
            return f", and this looks like {unit}: divide it by {per_ms}"
    return ""


def _header(batch: RecordBatch, size: int) -> BatchHeader:
    return BatchHeader(
        batch.record_count,
        size,
        batch.producer_id,
        batch.producer_epoch,
        batch.base_sequence,
        batch.max_timestamp_ms,
    )
