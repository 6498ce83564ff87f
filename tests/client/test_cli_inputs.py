"""What frames of standard input become."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun import NewRecord
from riverrun.cli.inputs import RecordReader, Run


def all_of(parsed):
    """Return the records of the only run."""
    assert parsed.error is None
    return [record for run in parsed.runs for record in run.records]


def test_raw_frames_are_values_and_are_not_copied():
    frames = [b"a", b"", b"\xff"]
    parsed = RecordReader().read(frames)
    assert parsed.runs == [Run(frames)]
    assert parsed.runs[0].records is frames


def test_nothing_makes_no_run():
    for reader in (RecordReader(), RecordReader("json"), RecordReader(null=b"")):
        assert reader.read([]).runs == []


def test_a_key_ends_at_the_first_separator():
    reader = RecordReader(key_separator=b"::")
    assert all_of(reader.read([b"k::v", b"::", b"a::b::c"])) == [
        (b"k", b"v"),
        (b"", b""),
        (b"a", b"b::c"),
    ]


@pytest.mark.parametrize("null", [None, b"NULL"])
def test_a_frame_without_separator_is_refused_behind_those_before_it(null):
    reader = RecordReader(key_separator=b":", null=null)
    reader.read([b"k:v"] * 3)
    parsed = reader.read([b"a:1", b"oops", b"b:2"])
    assert parsed.runs == [Run([(b"a", b"1")])]
    assert "record 5" in str(parsed.error)
    assert "'oops'" in str(parsed.error)


def test_exactly_the_null_text_is_absent():
    reader = RecordReader(null=b"NULL")
    assert all_of(reader.read([b"NULL", b"null", b"NULL ", b""])) == [
        (None, None),
        (None, b"null"),
        (None, b"NULL "),
        (None, b""),
    ]
    keyed = RecordReader(key_separator=b"\t", null=b"-")
    assert all_of(keyed.read([b"-\t-", b"k\t-", b"-\tv"])) == [
        (None, None),
        (b"k", None),
        (None, b"v"),
    ]


def test_an_empty_null_text_makes_empty_lines_tombstones():
    assert all_of(RecordReader(null=b"").read([b"", b"a"])) == [(None, None), (None, b"a")]


def test_headers_go_to_every_record():
    reader = RecordReader(headers=[("h", b"x")], key_separator=b":")
    assert all_of(reader.read([b"k:v"])) == [NewRecord(b"v", b"k", [("h", b"x")])]


@given(st.lists(st.tuples(st.binary(), st.binary()), min_size=1))
@settings(max_examples=60, deadline=None)
def test_hex_and_base64_hold_any_bytes(pairs):
    written = [f"{key.hex()}:{value.hex()}".encode() for key, value in pairs]
    assert all_of(RecordReader("hex", key_separator=b":").read(written)) == pairs
    written = [base64.b64encode(key) + b":" + base64.b64encode(value) for key, value in pairs]
    assert all_of(RecordReader("base64", key_separator=b":").read(written)) == pairs


@pytest.mark.parametrize(
    ("form", "frame", "why"),
    [
        ("hex", b"abc", "not hexadecimal"),
        ("hex", b"zz", "not hexadecimal"),
        ("hex", b"\xff", "not hexadecimal"),
        ("base64", b"YQ", "not base64"),
        ("base64", b"\xff", "not base64"),
        ("json", b"nope", "not JSON"),
    ],
)
def test_a_frame_that_cannot_be_read_is_named_by_its_number(form, frame, why):
    good = {"hex": b"00", "base64": b"AA==", "json": b'{"value": "v"}'}[form]
    parsed = RecordReader(form).read([good, good, frame, good])
    assert len(parsed.runs[0].records) == 2
    assert "record 3 of standard input" in str(parsed.error)
    assert why in str(parsed.error)


def test_a_timestamp_that_looks_like_seconds_is_noticed_once():
    reader = RecordReader("json")
    reader.read([b'{"value": "v", "timestamp": %d}' % at for at in (1_700_000_000_000, 5)])
    assert reader.like_seconds is None
    reader.read([b'{"value": "v", "timestamp": %d}' % at for at in (1_700_000_000, 1_700_000_001)])
    assert reader.like_seconds == 1_700_000_000


def test_json_records_are_gathered_by_the_partition_that_they_name():
    lines = [
        b'{"value": "a", "partition": 1}',
        b'{"value": "b"}',
        b"",
        b'{"value": "c", "partition": 1, "key": "k"}',
        b'{"value": "d", "timestamp": 5, "headers": {"h": "x"}}',
    ]
    parsed = RecordReader("json", headers=[("all", b"1")]).read(lines)
    assert parsed.error is None
    assert parsed.runs == [
        Run(
            [
                NewRecord(b"a", None, (("all", b"1"),)),
                NewRecord(b"c", b"k", (("all", b"1"),)),
            ],
            1,
        ),
        Run(
            [
                NewRecord(b"b", None, (("all", b"1"),)),
                NewRecord(b"d", None, (("all", b"1"), ("h", b"x")), 5),
            ]
        ),
    ]


def test_a_long_frame_is_not_quoted_whole():
    error = RecordReader("hex").read([b"z" * 10_000]).error
    assert len(str(error)) < 200
