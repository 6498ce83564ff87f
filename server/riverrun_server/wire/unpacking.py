"""Taking stored batches apart for readers that cannot: into records, strings, or known codecs.

Every form ends in pieces in the shape of stored batches, whose `data` is what goes on the wire, so
that credit, frames and offsets are the same for all. This costs 1-3 us a record and more where a
batch is compressed, so the driver calls it in a thread unless the batches are small and plain.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from riverrun.v1.records_pb2 import CODEC_NONE, ReceivedRecord, Record, RecordBatch, RecordSet
from riverrun.v1.text_pb2 import TailResponse
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.ports.log import CorruptData
from riverrun_server.wire import codecs
from riverrun_server.wire.placement import placement_crc
from riverrun_server.wire.stored import EXPANDED_BYTES_MAX, EXPLICIT_OFFSETS


class Unpacked(NamedTuple):
    """What came of one step.

    Attributes:
        pieces: what goes on the wire.
        next_offset: the position behind them.
        rest: batches that are not, or not wholly, used up.
    """

    pieces: Sequence[StoredBatch]
    next_offset: int
    rest: Sequence[StoredBatch]


class Source(NamedTuple):
    """Where batches come from, for checksums and messages."""

    topic: str
    id: PartitionId


# (where from, batches, first offset wanted, about how many bytes of pieces) -> one step.
Unpack = Callable[[Source, Sequence[StoredBatch], int, int], Unpacked]


def into_records(
    source: Source, batches: Sequence[StoredBatch], first: int, limit_bytes: int
) -> Unpacked:
    """Return serialised ReceivedRecords, one a piece.

    Raises:
        Refusal: CORRUPT_DATA.
    """
    return _singly(source, batches, first, limit_bytes, _received)


def into_text(
    source: Source, batches: Sequence[StoredBatch], first: int, limit_bytes: int
) -> Unpacked:
    """Return serialised TailResponses, one a piece.

    Raises:
        Refusal: CORRUPT_DATA.
    """
    topic, partition = source.topic, source.id.partition

    def write(offset: int, timestamp_ms: int, record: Record) -> bytes:
        return tail_response(topic, partition, offset, timestamp_ms, record).SerializeToString()

    return _singly(source, batches, first, limit_bytes, write)


def into_codecs(accepted: frozenset[int]) -> Unpack:
    """Return the step for readers of batches that expand only these codecs."""

    def unpack(
        source: Source, batches: Sequence[StoredBatch], first: int, limit_bytes: int
    ) -> Unpacked:
        pieces: list[StoredBatch] = []
        size, at, after = 0, 0, first
        for batch in batches:
            if pieces and size >= limit_bytes:
                break
            known = codec_of(batch.data) in accepted
            piece = batch if known else expanded(source.id, batch)
            pieces.append(piece)
            size += len(piece.data)
            after = max(first, batch.next_offset)
            at += 1
        return Unpacked(pieces, after, batches[at:])

    return unpack


def expanded(partition: PartitionId, batch: StoredBatch) -> StoredBatch:
    """Return a batch that is not compressed, verified first and with checksums of its own.

    Raises:
        Refusal: CORRUPT_DATA.
    """
    try:
        rewritten = _verified(partition, batch.data)
        rewritten.records = codecs.expand(rewritten.codec, rewritten.records, EXPANDED_BYTES_MAX)
    except (CorruptData, DecodeError, Refusal) as error:
        raise _corrupt(partition, batch, error) from error
    rewritten.codec = CODEC_NONE
    rewritten.records_crc = zlib.crc32(rewritten.records)
    rewritten.placement_crc = placement_crc(partition, rewritten)
    return batch._replace(data=rewritten.SerializeToString())


def codec_of(data: bytes) -> int:
    """Return the codec of a stored batch without copying its records.

    The broker serialises fields in the order of their numbers: the codec stands right behind the
    records. Where it does not, -1 is returned, which is no codec.
    """
    if data[:1] != b"\x0a":
        return -1
    length = shift = 0
    at = 1
    for byte in data[1:11]:
        length |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if byte < 0x80:
            break
    tag, codec = data[at + length : at + length + 1], data[at + length + 1 : at + length + 2]
    if tag == b"\x10" and codec < b"\x80":
        return codec[0] if codec else -1
    return 0 if tag > b"\x10" else -1


def tail_response(
    topic: str, partition: int, offset: int, timestamp_ms: int, record: Record
) -> TailResponse:
    """Return a record in strings; what is not UTF-8 gets U+FFFD and says so."""
    lossy = False

    def text(data: bytes) -> str:
        nonlocal lossy
        try:
            return data.decode()
        except UnicodeDecodeError:
            lossy = True
            return data.decode(errors="replace")

    response = TailResponse(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp_ms=timestamp_ms,
        key=text(record.key) if record.HasField("key") else None,
        value=text(record.value) if record.HasField("value") else None,
    )
    for header in record.headers:  # one by one: a list of a million of them takes half a gigabyte
        response.headers.add(key=header.key, value=text(header.value))
    response.lossy = lossy
    return response


def _received(offset: int, timestamp_ms: int, record: Record) -> bytes:
    # Field by field, and headers only where there are some: 2 us a record instead of 5.
    received = ReceivedRecord(offset=offset, timestamp_ms=timestamp_ms)
    if record.HasField("key"):
        received.key = record.key
    if record.HasField("value"):
        received.value = record.value
    if record.headers:
        received.headers.extend(record.headers)
    return received.SerializeToString()


def _singly(
    source: Source,
    batches: Sequence[StoredBatch],
    first: int,
    limit_bytes: int,
    write: Callable[[int, int, Record], bytes],
) -> Unpacked:
    """Write records one by one until there is so much of them."""
    pieces: list[StoredBatch] = []
    size, position = 0, first
    for at, batch in enumerate(batches):
        for offset, timestamp_ms, record in _records(source.id, batch, position):
            if size >= limit_bytes and pieces:
                return Unpacked(pieces, position, batches[at:])
            data = write(offset, timestamp_ms, record)
            size += len(data)
            position = offset + 1
            pieces.append(StoredBatch(offset, position, batch.leader_epoch, data))
        position = max(position, batch.next_offset)
    return Unpacked(pieces, position, ())


def _records(
    partition: PartitionId, batch: StoredBatch, first: int
) -> Iterator[tuple[int, int, Record]]:
    """Yield (offset, timestamp, record) of a batch from an offset on, both checksums verified.

    Whoever gets records cannot verify anything any more: the broker is the last who can.
    """
    try:
        header = _verified(partition, batch.data)
        data = codecs.expand(header.codec, header.records, EXPANDED_BYTES_MAX)
        records = RecordSet.FromString(data).records
    except (CorruptData, DecodeError, Refusal) as error:
        raise _corrupt(partition, batch, error) from error
    base, append_time_ms = header.base_offset, header.append_time_ms
    explicit = header.attributes & EXPLICIT_OFFSETS
    # Without explicit offsets the index is the offset, and what comes before `first` is not touched.
    for at in range(0 if explicit else max(0, first - base), len(records)):
        record = records[at]
        offset = base + (record.offset_delta if explicit else at)
        if offset >= first:
            has_time = record.HasField("timestamp_ms")
            yield offset, record.timestamp_ms if has_time else append_time_ms, record


def _verified(partition: PartitionId, data: bytes) -> RecordBatch:
    batch = RecordBatch.FromString(data)
    if zlib.crc32(batch.records) != batch.records_crc:
        raise CorruptData("the records' checksum is wrong")
    if placement_crc(partition, batch) != batch.placement_crc:
        raise CorruptData("the placement checksum is wrong")
    return batch


def _corrupt(partition: PartitionId, batch: StoredBatch, error: object) -> Refusal:
    return Refusal(
        Reason.CORRUPT_DATA,
        f"the batch at offset {batch.base_offset} of partition {partition} cannot be read: "
        f"{error}; seek to offset {batch.next_offset} to go on without it",
    )
