"""A batch view has exactly the records that were asked for, and nothing damaged."""

from __future__ import annotations

import gzip
from zlib import crc32

import lz4.frame
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun._core import codecs
from riverrun._core.batch_view import BatchView
from riverrun._core.checksums import placement_crc
from riverrun._core.records import Record, TopicPartition
from riverrun.errors import CorruptDataError, Reason
from riverrun.v1.records_pb2 import Header, RecordBatch, RecordSet
from riverrun.v1.records_pb2 import Record as WireRecord

PLACE, TOPIC_ID = TopicPartition("t", 3), bytes(range(16))
COMPRESS = {0: bytes, 1: bytes, 2: gzip.compress, 3: zstd.compress, 4: lz4.frame.compress}


def sign(batch: RecordBatch) -> RecordBatch:
    batch.records_crc = crc32(batch.records)
    batch.placement_crc = placement_crc(TOPIC_ID, PLACE.partition, batch)
    return batch


def batch_of(records, *, base=100, codec=1, attributes=0, span=None) -> RecordBatch:
    return sign(
        RecordBatch(
            records=COMPRESS[codec](RecordSet(records=records).SerializeToString()),
            codec=codec,
            record_count=len(records),
            base_offset=base,
            last_offset_delta=(span or len(records)) - 1,
            leader_epoch=4,
            append_time_ms=77,
            attributes=attributes,
            format_version=1,
        )
    )


def parse(data: bytes):
    return RecordSet.FromString(data).records


def view(batch: RecordBatch, first=0, end=1 << 60, topic_id=TOPIC_ID, place=PLACE):
    return BatchView(
        place, topic_id, batch, parse, first=first, end=end, next_offset=end, high_watermark=9
    )


def wire(number: int) -> WireRecord:
    return WireRecord(value=b"%d" % number)


@given(
    count=st.integers(1, 12),
    first=st.integers(95, 115),
    length=st.integers(0, 20),
    codec=st.sampled_from([0, 1, 2, 3, 4]),
)
@settings(deadline=None)
def test_only_the_records_asked_for_are_there(count, first, length, codec):
    records = [wire(100 + number) for number in range(count)]
    seen = view(batch_of(records, codec=codec), first, first + length)
    wanted = [n for n in range(100, 100 + count) if first <= n < first + length]
    assert [*seen.offsets] == wanted
    assert seen.values() == [b"%d" % n for n in wanted]
    assert len(seen) == len(wanted) == len(seen.records)
    assert [record.offset for record in seen] == wanted


@given(deltas=st.sets(st.integers(0, 30), min_size=1), first=st.integers(95, 135))
@settings(deadline=None)
def test_a_rewritten_batch_has_the_offsets_that_its_records_say(deltas, first):
    records = [WireRecord(value=b"%d" % d, offset_delta=d) for d in sorted(deltas)]
    seen = view(batch_of(records, attributes=8, span=40), first, first + 10)
    wanted = [100 + d for d in sorted(deltas) if first <= 100 + d < first + 10]
    assert [*seen.offsets] == wanted
    assert seen.values() == [b"%d" % (n - 100) for n in wanted]
    assert [record.offset for record in seen.to_records()] == wanted


def test_offset_deltas_mean_nothing_where_the_broker_did_not_set_them():
    records = [WireRecord(value=b"a", offset_delta=50), WireRecord(value=b"b", offset_delta=50)]
    assert [*view(batch_of(records)).offsets] == [100, 101]


def test_a_control_batch_has_no_records_for_applications():
    seen = view(batch_of([wire(1)], attributes=1))
    assert len(seen) == 0
    assert seen.values() == []


def test_a_batch_may_hold_no_records_at_all():
    assert len(view(batch_of([], attributes=8, span=5))) == 0


def test_absent_and_empty_are_told_apart():
    records = [
        WireRecord(),
        WireRecord(key=b"", value=b"", timestamp_ms=0),
        WireRecord(
            key=b"k", value=b"v", timestamp_ms=5, headers=[Header(key="h", value=b"1"), Header()]
        ),
    ]
    seen = view(batch_of(records))
    assert seen.values() == [None, b"", b"v"]
    assert seen.keys() == [None, b"", b"k"]
    assert seen.timestamps_ms() == [77, 0, 5]
    assert seen.to_records() == [
        Record("t", 3, 100, 77, None, None, ()),
        Record("t", 3, 101, 0, b"", b"", ()),
        Record("t", 3, 102, 5, b"k", b"v", (("h", b"1"), ("", b""))),
    ]


FIELDS = [
    field.name
    for field in RecordBatch.DESCRIPTOR.fields
    if field.name not in ("records", "records_crc", "placement_crc", "format_version")
]


@pytest.mark.parametrize("name", FIELDS)
def test_a_damaged_header_field_is_noticed(name):
    batch = batch_of([wire(1), wire(2)])
    setattr(batch, name, getattr(batch, name) + 1)
    with pytest.raises(CorruptDataError, match="placement"):
        view(batch)


def test_damaged_records_are_noticed():
    batch = batch_of([wire(1)])
    batch.records = batch.records[:-1] + b"?"
    with pytest.raises(CorruptDataError, match="CRC-32"):
        view(batch)


@pytest.mark.parametrize(
    ("topic_id", "place"), [(bytes(16), PLACE), (TOPIC_ID, TopicPartition("t", 4))]
)
def test_a_batch_from_another_place_is_noticed(topic_id, place):
    with pytest.raises(CorruptDataError, match="another place"):
        view(batch_of([wire(1)]), topic_id=topic_id, place=place)


def test_a_later_format_is_refused_by_its_number():
    batch = batch_of([wire(1)])
    batch.format_version = 2
    with pytest.raises(CorruptDataError, match="format version 2"):
        view(sign(batch))


def test_another_number_of_records_than_said_is_noticed():
    batch = batch_of([wire(1)])
    batch.record_count = 2
    with pytest.raises(CorruptDataError, match="2 records and has 1"):
        view(sign(batch)).values()


def test_bytes_that_are_no_record_set_are_noticed():
    batch = batch_of([wire(1)])
    batch.records = b"\xff\xff\xff"
    with pytest.raises(CorruptDataError, match="no record set"):
        view(sign(batch)).values()


@pytest.mark.parametrize("codec", [2, 3, 4])
def test_expansion_stops_at_its_bound(codec):
    bomb = COMPRESS[codec](bytes(4 << 20))
    with pytest.raises(CorruptDataError, match="more than"):
        codecs.expand(codec, bomb)
    assert codecs.expand(codec, COMPRESS[codec](bytes(1000)), 1000) == bytes(1000)
    with pytest.raises(CorruptDataError, match="more than"):
        codecs.expand(codec, COMPRESS[codec](bytes(1001)), 1000)


@pytest.mark.parametrize("codec", [2, 3, 4])
def test_a_frame_that_is_damaged_or_cut_short_is_corrupt(codec):
    frame = COMPRESS[codec](b"some text" * 50)
    for damaged in (frame[:-4], b"nothing", b""):
        with pytest.raises(CorruptDataError):
            codecs.expand(codec, damaged)


def test_a_codec_that_nobody_asked_for_is_corrupt():
    with pytest.raises(CorruptDataError, match="codec 9") as caught:
        codecs.expand(9, b"")
    assert caught.value.reason is Reason.CORRUPT_DATA


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_what_we_compress_we_expand(compression):
    codec = codecs.codec_for(compression)
    assert codecs.expand(codec, codecs.compress(codec, b"abc" * 1000)) == b"abc" * 1000
