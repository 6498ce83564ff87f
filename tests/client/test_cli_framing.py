"""Cutting bytes into records, whatever chunks they come in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.cli.framing import DelimiterFramer, RecordTooLongError, SizeFramer

few_bytes = st.binary(max_size=60).map(lambda data: bytes(byte % 3 + 97 for byte in data))
delimiters = st.sampled_from([b"a", b"ab", b"aa", b"aba", b"abc", b"\n", b"\0", b"\r\n"])


def chunks_of(data, cuts):
    """Cut data at the places given."""
    places = sorted({min(cut, len(data)) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def framed(framer, chunks):
    """Feed chunks and finish."""
    records = []
    for chunk in chunks:
        records += framer.feed(chunk)
    return records + framer.finish()


@given(few_bytes, delimiters, st.lists(st.integers(0, 60), max_size=8))
@settings(max_examples=400, deadline=None)
def test_chunks_make_no_difference_to_where_a_delimiter_cuts(data, delimiter, cuts):
    expected = data.split(delimiter)
    if not expected[-1]:
        expected.pop()
    assert framed(DelimiterFramer(delimiter), chunks_of(data, cuts)) == expected


@given(st.lists(st.binary(max_size=20)), delimiters, st.lists(st.integers(0, 200), max_size=6))
@settings(max_examples=200, deadline=None)
def test_records_written_with_a_delimiter_behind_each_come_back(records, delimiter, cuts):
    records = [record.replace(delimiter[:1], b"-") for record in records]
    data = b"".join(record + delimiter for record in records)
    assert framed(DelimiterFramer(delimiter), chunks_of(data, cuts)) == records


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"\n\n", [b"", b""]),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\n\nb", [b"a", b"", b"b"]),
        (b"\xff\x00\n\xfe", [b"\xff\x00", b"\xfe"]),
        (b"a\r\nb\r\n", [b"a\r", b"b\r"]),
    ],
)
def test_empty_lines_are_records_and_a_missing_newline_loses_nothing(data, records):
    assert framed(DelimiterFramer(b"\n"), [data]) == records


@given(st.binary(max_size=80), st.integers(1, 30), st.lists(st.integers(0, 80), max_size=8))
@settings(max_examples=200, deadline=None)
def test_records_of_a_fixed_size_come_together_again(data, size, cuts):
    records = framed(SizeFramer(size), chunks_of(data, cuts))
    assert b"".join(records) == data
    assert all(len(record) == size for record in records[:-1])
    assert all(0 < len(record) <= size for record in records)


def test_a_record_without_end_is_refused_with_what_to_do():
    framer = DelimiterFramer(b"\n", record_bytes_max=10)
    assert framer.feed(b"12345\n1234567890") == [b"12345"]
    with pytest.raises(RecordTooLongError, match="--record-size"):
        framer.feed(b"1")


def test_bytes_that_are_looked_at_twice_count_once():
    framer = DelimiterFramer(b"\r\n\r\n", record_bytes_max=10)
    for _ in range(10):
        assert framer.feed(b"x") == []
    with pytest.raises(RecordTooLongError):
        framer.feed(b"x")


def test_a_long_record_in_many_chunks_is_joined_once():
    framer = DelimiterFramer(b"\r\n")
    for _ in range(1000):
        assert framer.feed(b"x" * 100) == []
    assert framer.feed(b"\r") == []
    assert framer.feed(b"\ny") == [b"x" * 100_000]
    assert framer.finish() == [b"y"]
