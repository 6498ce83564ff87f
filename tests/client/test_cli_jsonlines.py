"""Records as lines of JSON, out and in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun import Record
from riverrun.cli.jsonlines import JsonLineError, ParsedRecord, read_record, write_record

records = st.builds(
    Record,
    topic=st.just("t"),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    timestamp_ms=st.integers(0, 2**63 - 1),
    key=st.none() | st.binary() | st.text().map(str.encode),
    value=st.none() | st.binary() | st.text().map(str.encode),
    headers=st.lists(st.tuples(st.text(), st.binary() | st.text().map(str.encode)), max_size=3),
)


@given(records)
@settings(max_examples=300, deadline=None)
def test_what_was_written_is_read_back(record):
    line = write_record(record)
    assert b"\n" not in line
    assert read_record(line) == ParsedRecord(
        record.value, record.key, tuple(record.headers), record.timestamp_ms, record.partition
    )


def test_the_form_of_a_line_is_golden():
    record = Record("t", 0, 7, 1_700_000_000_000, b"k", "é".encode(), (("h", b"\xff"),))
    assert write_record(record).decode() == (
        '{"topic": "t", "partition": 0, "offset": 7, "timestamp": 1700000000000, "key": "k", '
        '"value": "é", "headers": [{"key": "h", "value_base64": "/w=="}]}'
    )
    bare = Record("t", 1, 0, 0, None, None)
    assert write_record(bare).decode() == (
        '{"topic": "t", "partition": 1, "offset": 0, "timestamp": 0, "key": null, "value": null, '
        '"headers": []}'
    )
    assert json.loads(write_record(record._replace(value=b"\xc3")))["value_base64"] == "ww=="


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ('{"value": "v"}', ParsedRecord(b"v")),
        ('{"value": null}', ParsedRecord(None)),
        ('{"value": ""}', ParsedRecord(b"")),
        ('{"value_base64": "AP8="}', ParsedRecord(b"\0\xff")),
        (
            '{"value": "v", "key": "k", "headers": {"a": "1"}}',
            ParsedRecord(b"v", b"k", (("a", b"1"),)),
        ),
        (
            '{"value": "v", "headers": [{"key": "a", "value": "1"}, {"key": "a", "value": ""}]}',
            ParsedRecord(b"v", headers=(("a", b"1"), ("a", b""))),
        ),
        ('{"value": "v", "timestamp": 5, "partition": 2}', ParsedRecord(b"v", None, (), 5, 2)),
        (
            '{"value": "v", "timestamp": "2026-01-31T12:00:00Z"}',
            ParsedRecord(b"v", timestamp_ms=1_769_860_800_000),
        ),
        ('{"value": "v", "topic": "other", "offset": 9}', ParsedRecord(b"v")),
    ],
)
def test_the_forms_that_people_type_are_read(line, parsed):
    assert read_record(line.encode()) == parsed


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "JSON, but a list, not an object"),
        ("null", "JSON, but null, not an object"),
        ("[" * 100_000, "not JSON"),
        ("{}", "null is a tombstone"),
        ('{"vlaue": "v"}', "unknown field 'vlaue'"),
        ('{"value": {"a": 1}}', "is an object, not a string; .* quoted string"),
        ('{"value": 5}', "is a number, not a string"),
        ('{"value": "a", "value_base64": "YQ=="}', "give one"),
        ('{"value_base64": "%"}', "not base64"),
        ('{"value_base64": "YQ"}', "not base64"),
        ('{"value_base64": 5}', "is a number, not a string"),
        ('{"value": "v", "partition": -1}', "goes from 0"),
        ('{"value": "v", "partition": 2147483648}', "goes from 0"),
        ('{"value": "v", "partition": true}', "boolean, not an integer"),
        ('{"value": "v", "timestamp": 1.5}', "number, not an integer"),
        ('{"value": "v", "timestamp": "soon"}', "not a time"),
        ('{"value": "v", "headers": "a=1"}', "not an object or a list"),
        ('{"value": "v", "headers": [["a", "1"]]}', "a header in a list"),
        ('{"value": "v", "headers": [{"key": "a"}]}', 'no "value"'),
        ('{"value": "v", "headers": {"a": 1}}', "header 'a': \"value\" is a number, not a string"),
        ('{"value": "v", "headers": [{"key": "a", "value_base64": 1}]}', "header 'a': .* a number"),
        ('{"value": "v", "headers": {"a": "\\ud800"}}', "header 'a': .*use \"value_base64\""),
        (
            '{"value": "v", "timestamp": -1}',
            "-1; it is in ms since 1970, not below 0: leave it out",
        ),
        ('{"value": "\\ud800"}', "lone surrogate"),
        ('{"value": "v", "headers": {"\\ud800": "1"}}', "header name .* lone surrogate"),
        ('{"value": "\xff"}'.encode("latin-1"), "not JSON"),
    ],
)
def test_what_is_no_record_is_refused_with_the_reason(line, why):
    with pytest.raises(JsonLineError, match=why):
        read_record(line if isinstance(line, bytes) else line.encode())
