"""Taking stored batches apart for readers that cannot: into records, strings, or known codecs.

Every form ends in pieces in the shape of stored batches, whose `data` is what goes on the wire, so
that credit, frames and offsets are the same for all. This costs 1-3 us a record and more where a
batch is compressed, so the driver calls it in a thread unless the batches are small and plain.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from riverrun.v1.records_pb2 import CODEC_NONE, ReceivedRecord, RecordBatch
from riverrun.v1.text_pb2 import TailResponse, TextHeader
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.ports.log import CorruptData
from riverrun_server.wire import codecs
from riverrun_server.wire.placement import placement_crc
from riverrun_server.wire.stored import EXPANDED_BYTES_MAX, received_records, scan_batch


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
    return _singly(source, batches, first, limit_bytes, ReceivedRecord.SerializeToString)


def into_text(
    source: Source, batches: Sequence[StoredBatch], first: int, limit_bytes: int
) -> Unpacked:
    """Return serialised TailResponses, one a piece.

    Raises:
        Refusal: CORRUPT_DATA.
    """
    topic, partition = source.topic, source.id.partition
    return _singly(
        source,
        batches,
        first,
        limit_bytes,
        lambda record: tail_response(topic, partition, record).SerializeToString(),
    )


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
        scan_batch(partition, batch.data)
        rewritten = RecordBatch.FromString(batch.data)
        rewritten.records = codecs.expand(rewritten.codec, rewritten.records, EXPANDED_BYTES_MAX)
    except (CorruptData, Refusal) as error:
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


def tail_response(topic: str, partition: int, record: ReceivedRecord) -> TailResponse:
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
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        key=text(record.key) if record.HasField("key") else None,
        value=text(record.value) if record.HasField("value") else None,
        headers=[TextHeader(key=header.key, value=text(header.value)) for header in record.headers],
    )
    response.lossy = lossy
    return response


def _singly(
    source: Source,
    batches: Sequence[StoredBatch],
    first: int,
    limit_bytes: int,
    write: Callable[[ReceivedRecord], bytes],
) -> Unpacked:
    pieces: list[StoredBatch] = []
    size, position = 0, first
    for at, batch in enumerate(batches):
        if pieces and size >= limit_bytes:
            return Unpacked(pieces, position, batches[at:])
        try:
            records = received_records(
                batch.data, position, batch.next_offset, max(1, limit_bytes - size)
            )
        except CorruptData as error:
            raise _corrupt(source.id, batch, error) from error
        for record in records:
            data = write(record)
            size += len(data)
            offset = record.offset
            pieces.append(StoredBatch(offset, offset + 1, batch.leader_epoch, data))
        if records and records[-1].offset + 1 < batch.next_offset:
            # Cut short by the limit, or the batch ends in a gap: the next step finds out.
            return Unpacked(pieces, records[-1].offset + 1, batches[at:])
        position = max(position, batch.next_offset)
    return Unpacked(pieces, position, ())


def _corrupt(partition: PartitionId, batch: StoredBatch, error: Exception) -> Refusal:
    return Refusal(
        Reason.CORRUPT_DATA,
        f"the batch at offset {batch.base_offset} of partition {partition} cannot be read: "
        f"{error}; seek behind offset {batch.next_offset} to go on without it",
    )
