"""Our record sets are, byte for byte, what protobuf makes of the same records."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from riverrun._core.encoding import (
    MAX_BATCH_RECORDS,
    encode_pairs,
    encode_rows,
    encode_values,
    size_bound,
)
from riverrun._core.varints import TABLE
from riverrun.v1.records_pb2 import Header, RecordSet

NO_LIMIT = 1 << 40
LONG = st.integers(TABLE - 2, TABLE + 2).map(lambda length: b"x" * length)
PART = st.one_of(st.binary(max_size=200), LONG)
MAYBE = st.one_of(st.none(), PART)
TIMES = st.one_of(
    st.integers(0, 1 << 42), st.sampled_from([0, 1, TABLE - 1, TABLE, -1, 2**63 - 1, -(2**63)])
)
HEADERS = st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=50)), max_size=3)
ROWS = st.tuples(MAYBE, MAYBE, TIMES, HEADERS)


def by_protobuf(rows) -> bytes:
    record_set = RecordSet()
    for key, value, timestamp_ms, headers in rows:
        record_set.records.add(
            key=key,
            value=value,
            timestamp_ms=timestamp_ms,
            headers=[Header(key=name, value=content) for name, content in headers],
        )
    return record_set.SerializeToString()


@given(rows=st.lists(ROWS, min_size=1, max_size=40))
@settings(deadline=None, max_examples=200)
def test_rows_with_anything_missing_or_extra(rows):
    assert encode_rows(rows, NO_LIMIT) == (by_protobuf(rows), len(rows))


@given(values=st.lists(PART, min_size=1, max_size=40), time=TIMES)
@settings(deadline=None, max_examples=200)
def test_values_of_mixed_lengths(values, time):
    rows = [(None, value, time, ()) for value in values]
    assert encode_values(values, time, NO_LIMIT) == (by_protobuf(rows), len(rows))


@given(length=st.sampled_from([0, 1, 100, 127, 128, TABLE, 70_000]), count=st.integers(1, 5))
def test_values_of_one_length(length, count):
    values = [bytes([number]) * length for number in range(count)]
    rows = [(None, value, 5, ()) for value in values]
    assert encode_values(values, 5, NO_LIMIT) == (by_protobuf(rows), count)


@given(pairs=st.lists(st.tuples(PART, PART), min_size=1, max_size=40), time=TIMES)
@example(pairs=[(b"k", b"1"), (b"kk", b"1"), (b"k", b"1")], time=1)
@settings(deadline=None, max_examples=200)
def test_pairs_of_mixed_lengths(pairs, time):
    rows = [(key, value, time, ()) for key, value in pairs]
    assert encode_pairs(pairs, time, NO_LIMIT) == (by_protobuf(rows), len(rows))


@given(
    key=st.sampled_from([0, 8, 200, TABLE]),
    value=st.sampled_from([0, 100, 130, TABLE]),
    count=st.integers(1, 5),
)
def test_pairs_of_one_length(key, value, count):
    pairs = [(bytes([n]) * key, bytes([n + 9]) * value) for n in range(count)]
    rows = [(k, v, 1_700_000_000_000, ()) for k, v in pairs]
    assert encode_pairs(pairs, 1_700_000_000_000, NO_LIMIT) == (by_protobuf(rows), count)


@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=60),
    limit=st.integers(0, 3000),
    shape=st.sampled_from(["values", "pairs", "rows"]),
)
@settings(deadline=None, max_examples=300)
def test_as_many_as_fit_are_taken_and_at_least_one(lengths, limit, shape):
    values = [b"v" * length for length in lengths]
    rows = [(b"k" if shape != "values" else None, value, 9, ()) for value in values]
    if shape == "values":
        data, count = encode_values(values, 9, limit)
    elif shape == "pairs":
        data, count = encode_pairs([(b"k", value) for value in values], 9, limit)
    else:
        data, count = encode_rows(rows, limit)
    assert data == by_protobuf(rows[:count])
    assert count == 1 or len(data) <= limit
    assert count == len(rows) or len(by_protobuf(rows[: count + 1])) > limit


def test_no_batch_has_more_records_than_a_broker_takes():
    values = [b""] * (MAX_BATCH_RECORDS + 1)
    pairs = [(b"", b"")] * (MAX_BATCH_RECORDS + 1)
    assert encode_values(values, 1, NO_LIMIT).record_count == MAX_BATCH_RECORDS
    assert encode_pairs(pairs, 1, NO_LIMIT).record_count == MAX_BATCH_RECORDS
    rows = [(None, b"", 1, ())] * (MAX_BATCH_RECORDS + 1)
    assert encode_rows(rows, NO_LIMIT).record_count == MAX_BATCH_RECORDS


@given(row=ROWS)
@settings(deadline=None)
def test_a_record_takes_no_more_than_its_bound(row):
    key, value, _, headers = row
    assert len(by_protobuf([row])) <= size_bound(key, value, headers)


@pytest.mark.parametrize(
    "values",
    [
        [b"a", "b"],
        [b"a", None],
        [b"a", 5],
        [b"a", (b"b",)],
        [memoryview(b"abcd").cast("i"), memoryview(b"abcd").cast("i")],
    ],
)
def test_what_is_not_bytes_is_a_type_error_and_never_encoded_wrongly(values):
    with pytest.raises(TypeError):
        encode_values(values, 1, NO_LIMIT)
    with pytest.raises((TypeError, ValueError)):
        encode_pairs([(value, value) for value in values], 1, NO_LIMIT)


@pytest.mark.parametrize("odd", [(b"a",), (b"a", b"b", b"c"), b"ab", b"abc"])
def test_what_is_no_pair_is_never_encoded_as_one(odd):
    for pairs in ([(b"a", b"b"), odd, (b"a", b"b")], [(b"a", b"bb"), odd, (b"a", b"b")]):
        with pytest.raises((TypeError, ValueError)):
            encode_pairs(pairs, 1, NO_LIMIT)
