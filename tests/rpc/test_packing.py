"""What the broker packs of typed records is what protobuf would have made of them."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.v1.records_pb2 import Header, Record, RecordBatch, RecordSet
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId, Stamp
from riverrun_server.wire.ingress import IngressLimits, accept, pack

NOW_MS = 1_700_000_000_000

_records = st.builds(
    Record,
    key=st.none() | st.binary(max_size=200),
    value=st.none() | st.binary(max_size=20_000),
    timestamp_ms=st.none() | st.integers(0, NOW_MS),
    headers=st.lists(st.builds(Header, key=st.text(max_size=5), value=st.binary(max_size=5))),
)


@given(st.lists(_records, min_size=1, max_size=8))
def test_a_packed_batch_holds_a_record_set_as_protobuf_writes_it(records):
    packed = pack(records, IngressLimits(1 << 20), NOW_MS)
    stored = packed.stamped(
        PartitionId(bytes(16), 0), Stamp(5, len(records) - 1, 1, NOW_MS, NOW_MS)
    )
    batch = RecordBatch.FromString(stored)
    assert batch.records == RecordSet(records=records).SerializeToString()
    assert batch.records_crc == zlib.crc32(batch.records)
    assert batch.record_count == len(records)


@pytest.mark.parametrize("wrong", [-1, -(2**63)])
def test_a_timestamp_below_0_is_refused_whatever_stands_beside_it(wrong):
    limits = IngressLimits(1 << 20)
    records = [
        Record(timestamp_ms=5),
        Record(),
        Record(timestamp_ms=wrong),
        Record(timestamp_ms=NOW_MS),
    ]
    data = RecordSet(records=records).SerializeToString()
    few = RecordSet(records=[Record(value=b"v")]).SerializeToString()
    for refused in (
        lambda: pack(records, limits, NOW_MS),
        lambda: accept(RecordBatch(records=data), limits, NOW_MS),
        lambda: accept(RecordBatch(records=few, max_timestamp_ms=wrong), limits, NOW_MS),
        lambda: accept(
            RecordBatch(records=few, first_timestamp_ms=wrong, max_timestamp_ms=5), limits, NOW_MS
        ),
    ):
        with pytest.raises(Refusal, match=f"timestamp {wrong} lies below 0") as caught:
            refused()
        assert caught.value.reason is Reason.INVALID_TIMESTAMP


def test_a_header_may_have_an_empty_name():
    record = Record(headers=[Header(key="", value=b"v")])
    assert pack([record], IngressLimits(1 << 20), NOW_MS).header.record_count == 1


@pytest.mark.parametrize(
    ("ahead", "unit"),
    [
        (NOW_MS * 1000, "microseconds"),
        (NOW_MS * 1_000_000, "nanoseconds"),
        (NOW_MS + 7_200_000, ""),
    ],
)
def test_a_timestamp_too_far_ahead_is_told_with_its_setting_and_the_unit_it_looks_like(ahead, unit):
    with pytest.raises(Refusal) as caught:
        pack([Record(timestamp_ms=ahead)], IngressLimits(1 << 20), NOW_MS)
    assert "limits.timestamp_ahead_max_ms" in caught.value.message
    assert caught.value.message.count("looks like") == bool(unit)
    assert f"looks like {unit}" in caught.value.message or not unit
