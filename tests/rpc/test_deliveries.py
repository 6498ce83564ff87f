"""Messages joined from bytes are the messages that protobuf would have made."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.v1 import consumer_pb2
from riverrun.v1.consumer_pb2 import FetchResponse, ReadResponse, SubscribeResponse
from riverrun.v1.records_pb2 import Header, ReceivedRecord, RecordBatch, RecordSet
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.core.reading.events import (
    CaughtUp,
    CommitDone,
    CommitOutcome,
    Delivery,
    GoingAway,
    Heartbeat,
    PartitionFailed,
    PositionReset,
    SeekDone,
    Started,
)
from riverrun_server.core.reading.places import Position
from riverrun_server.rpc.errors import to_proto
from riverrun_server.wire import codecs, forms
from riverrun_server.wire.deliveries import (
    BATCHES_TAG,
    HEADER_BYTES_MAX,
    RECORDS_TAG,
    delivery_frame,
    event_frame,
    fetch_response,
    varint,
)
from riverrun_server.wire.placement import placement_crc
from riverrun_server.wire.stored import EXPLICIT_OFFSETS, received_records, scan_batch
from riverrun_server.wire.unpacking import (
    Source,
    codec_of,
    expanded,
    into_codecs,
    into_records,
    into_text,
)
from tests.rpc.fake_partitions import FakePartition

P = PartitionId(b"\x01" * 16, 3)
AT = Position("t", P, 5, 9, 2, 1)
MOST = (1 << 63) - 1


def stored(*values, codec=codecs.NONE, **fields):
    partition = FakePartition("t", P)
    partition.append(*values, codec=codec, **fields)
    return partition.batches[0]


def delivery(pieces, **fields):
    every = {
        "topic": "t",
        "id": P,
        "first_offset": 1,
        "next_offset": 2,
        "high_watermark": 3,
        "log_start_offset": 0,
        "pieces": pieces,
        "records": 1,
        "charged_bytes": 4,
        "leader_epoch": 5,
    }
    return Delivery(**{**every, **fields})


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 40_000), max_size=4),
    st.integers(0, MOST),
    st.text(max_size=20),
    st.booleans(),
)
def test_a_delivery_is_read_by_every_stub_as_it_was_meant(sizes, number, topic, batches):
    if batches:
        payloads = [RecordBatch(records=b"x" * size, base_offset=number) for size in sizes]
    else:
        payloads = [ReceivedRecord(value=b"x" * size, offset=number) for size in sizes]
    pieces = [StoredBatch(0, 1, 1, each.SerializeToString()) for each in payloads]
    meant = consumer_pb2.Delivery(
        topic=topic,
        topic_id=P.topic_id,
        partition=3,
        first_offset=1,
        next_offset=number,
        high_watermark=3,
        charged_bytes=4,
        leader_epoch=5,
        batches=payloads if batches else [],
        records=[] if batches else payloads,
    )
    tag = BATCHES_TAG if batches else RECORDS_TAG
    made = delivery(pieces, topic=topic, next_offset=number)
    frame = delivery_frame(made, tag)
    assert SubscribeResponse.FromString(frame) == SubscribeResponse(delivery=meant)
    assert ReadResponse.FromString(frame) == ReadResponse(delivery=meant)
    response = fetch_response([made, made], tag, [], to_proto)
    assert FetchResponse.FromString(response) == FetchResponse(deliveries=[meant, meant])


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16_383, 16_384, (1 << 32) - 1])
def test_lengths_are_written_as_protobuf_does(value):
    assert b"\x08" + varint(value) == (
        consumer_pb2.Credit(records=value).SerializeToString() if value else b"\x08\x00"
    )


def test_everything_but_records_fits_the_room_left_for_it():
    most = delivery(
        [],
        topic="ö" * 124 + "t",
        id=PartitionId(b"\xff" * 16, (1 << 31) - 1),
        first_offset=MOST,
        next_offset=MOST,
        high_watermark=MOST,
        log_start_offset=MOST,
        charged_bytes=MOST,
        leader_epoch=(1 << 31) - 1,
    )
    assert len(delivery_frame(most, RECORDS_TAG)) <= HEADER_BYTES_MAX


@pytest.mark.parametrize(
    ("event", "kind", "check"),
    [
        (Started([AT], 3.0), "started", lambda m: m.heartbeat_interval.ToSeconds() == 3),
        (SeekDone(7, AT), "seek_done", lambda m: (m.seek_id, m.position.offset) == (7, 5)),
        (
            PositionReset(AT, 1, Refusal(Reason.OFFSET_OUT_OF_RANGE, "gone")),
            "position_reset",
            lambda m: (m.old_offset, m.cause.message) == (1, "gone"),
        ),
        (CaughtUp(AT), "caught_up", lambda m: m.position.high_watermark == 9),
        (
            PartitionFailed("t", P.topic_id, 3, Refusal(Reason.CORRUPT_DATA, "bad"), 8),
            "partition_error",
            lambda m: (m.partition, m.error.message, m.seek_id) == (3, "bad", 8),
        ),
        (
            CommitDone(4, [CommitOutcome("t", P.topic_id, 3)]),
            "commit_result",
            lambda m: m.commit_id == 4 and not m.results[0].HasField("error"),
        ),
        (
            Heartbeat([AT], None, 0),
            "heartbeat",
            lambda m: (
                m.lags[0].position == 5
                and not m.credit_left.HasField("records")
                and m.credit_left.HasField("bytes")
            ),
        ),
        (GoingAway(1.5, "bye"), "going_away", lambda m: m.reconnect_after.nanos == 500_000_000),
    ],
)
def test_every_event_has_its_message(event, kind, check):
    message = SubscribeResponse.FromString(event_frame(event, to_proto))
    assert message.WhichOneof("kind") == kind
    assert check(getattr(message, kind))
    if kind not in ("seek_done", "commit_result"):
        read = ReadResponse.FromString(event_frame(event, to_proto))
        assert read.WhichOneof("kind") == kind
    assert forms.TEXT.event(event, to_proto) is None


@pytest.mark.parametrize("codec", sorted(codecs.NAMES))
def test_the_codec_is_found_without_parsing(codec):
    assert codec_of(stored(b"x" * 5, codec=codec).data) == codec
    assert codec_of(stored(b"x" * 70_000, codec=codec).data) == codec


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_bytes_that_are_no_batch_have_no_codec_that_anyone_accepts_by_accident(data):
    codec = codec_of(data)
    assert -1 <= codec < 128


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=6),
    st.integers(0, 12),
    st.integers(1, 400),
    st.sampled_from([codecs.NONE, codecs.GZIP, codecs.ZSTD, codecs.LZ4]),
)
def test_steps_of_any_size_give_every_record_once(counts, first, limit, codec):
    partition = FakePartition("t", P)
    for count in counts:
        partition.append(*[b"v%d" % n for n in range(count)], codec=codec, key=b"k")
    end = partition.log_end_offset
    first = min(first, end)
    rest = [each for each in partition.batches if each.next_offset > first]
    position, records, steps = first, [], 0
    while rest:
        step = into_records(Source("t", P), rest, position, limit)
        assert step.pieces
        assert [piece.base_offset for piece in step.pieces] == list(
            range(position, step.next_offset)
        )
        assert sum(len(piece.data) for piece in step.pieces[:-1]) < limit
        records += [ReceivedRecord.FromString(piece.data) for piece in step.pieces]
        position, rest, steps = step.next_offset, step.rest, steps + 1
    assert position == end
    expected = [
        record
        for batch in partition.batches
        for record in received_records(batch.data, first, end, 1 << 20)
    ]
    assert records == expected


def test_records_keep_absent_apart_from_empty():
    batch = stored(None, b"", key=b"", headers=[Header(key="h", value=b"v")] * 2)
    pieces = into_records(Source("t", P), [batch], 0, 1 << 20).pieces
    tombstone, empty = [ReceivedRecord.FromString(piece.data) for piece in pieces]
    assert not tombstone.HasField("value")
    assert empty.HasField("value")
    assert empty.HasField("key")
    assert len(empty.headers) == 2
    assert not ReceivedRecord.FromString(
        into_records(Source("t", P), [stored(b"x")], 0, 1).pieces[0].data
    ).HasField("key")


def test_a_rewritten_batch_has_its_own_offsets():
    batch = RecordBatch.FromString(stored(b"a", b"b", b"c").data)
    records = RecordSet.FromString(batch.records)
    for record, delta in zip(records.records, (2, 5, 9), strict=True):
        record.offset_delta = delta
    batch.records = records.SerializeToString()
    batch.records_crc = zlib.crc32(batch.records)
    batch.attributes, batch.last_offset_delta = EXPLICIT_OFFSETS, 11
    batch.placement_crc = placement_crc(P, batch)
    rewritten = StoredBatch(0, 12, 1, batch.SerializeToString())
    step = into_records(Source("t", P), [rewritten], 3, 1 << 20)
    assert [piece.base_offset for piece in step.pieces] == [5, 9]
    assert step.next_offset == 12


def test_expanding_verifies_first_and_takes_the_checksums_anew():
    batch = stored(b"a" * 100, b"b" * 100, codec=codecs.ZSTD)
    plain = expanded(P, batch)
    assert (plain.base_offset, plain.next_offset) == (0, 2)
    scanned = scan_batch(P, plain.data)
    assert scanned.header.record_count == 2
    assert codec_of(plain.data) == codecs.NONE


@pytest.mark.parametrize("field", ["records_crc", "append_time_ms", "base_sequence"])
@pytest.mark.parametrize("unpack", [into_codecs(frozenset()), into_records, into_text])
def test_damage_is_found_before_anything_is_rewritten(field, unpack):
    batch = RecordBatch.FromString(stored(b"a" * 100, codec=codecs.ZSTD).data)
    setattr(batch, field, getattr(batch, field) + 1)
    damaged = StoredBatch(0, 1, 1, batch.SerializeToString())
    with pytest.raises(Refusal) as caught:
        unpack(Source("t", P), [damaged], 0, 100)
    assert caught.value.reason is Reason.CORRUPT_DATA
    assert "seek" in caught.value.message


def test_batches_in_accepted_codecs_are_left_as_they_are():
    plain, zipped = stored(b"a"), stored(b"b", codec=codecs.GZIP)._replace(base_offset=1)
    unpack = into_codecs(frozenset({0, 1}))
    step = unpack(Source("t", P), [plain, plain], 0, 1 << 20)
    assert [piece.data for piece in step.pieces] == [plain.data] * 2
    assert forms.batches([]).unpacks([plain]) is None
    assert forms.batches([codecs.GZIP]).unpacks([plain, zipped]) is None
    assert forms.batches([codecs.ZSTD]).unpacks([plain, zipped]) is not None


def test_expansion_goes_in_steps():
    many = [stored(b"x" * 1000, codec=codecs.ZSTD)] * 10
    step = into_codecs(frozenset())(Source("t", P), many, 0, 2500)
    assert (len(step.pieces), len(step.rest)) == (3, 7)
