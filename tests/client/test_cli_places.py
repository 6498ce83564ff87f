"""Places and times as people type them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.cli.places import (
    AtOffset,
    AtTime,
    LastRecords,
    PlaceError,
    format_time,
    parse_bound,
    parse_instant_ms,
    parse_place,
    parse_span_ms,
    parse_time_ms,
    write_place,
)

NOW_MS = 1_770_000_000_000


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("committed", "committed"),
        ("0", AtOffset(0)),
        ("20260131", AtOffset(20_260_131)),
        ("-1", LastRecords(1)),
        ("-250", LastRecords(250)),
        ("@1700000000000", AtTime(1_700_000_000_000)),
        ("10m-ago", AtTime(NOW_MS - 600_000)),
        ("1h30m-ago", AtTime(NOW_MS - 5_400_000)),
        ("1.5d-ago", AtTime(NOW_MS - 129_600_000)),
        ("250ms-ago", AtTime(NOW_MS - 250)),
        ("99999w-ago", AtTime(0)),
        ("now", AtTime(NOW_MS)),
        ("today", AtTime(1_769_990_400_000)),
        ("yesterday", AtTime(1_769_904_000_000)),
        ("2026-01-31T12:00:00Z", AtTime(1_769_860_800_000)),
        ("2026-01-31T12:00:00", AtTime(1_769_860_800_000)),
        ("2026-01-31T12:00Z", AtTime(1_769_860_800_000)),
        ("2026-01-31T14:00:00.250+02:00", AtTime(1_769_860_800_250)),
        ("2026-01-31 12:00:00", AtTime(1_769_860_800_000)),
        ("2026-01-31", AtTime(1_769_817_600_000)),
    ],
)
def test_each_form_of_a_place_is_read(text, place):
    assert parse_place(text, NOW_MS) == place


@pytest.mark.parametrize(
    "text",
    [
        "first",
        "1e3",
        "-",
        "--5",
        "-1.5",
        "10m",
        "m-ago",
        "10x-ago",
        "@",
        "@-5",
        "@1.5",
        "2026-13-01",
        "25:00",
        "+5",
        "1969-12-31",
        "٣",
        "@٣",
        "-٣",
        "٣m-ago",
        "",
        " 5",
        "5 ",
    ],
)
def test_what_is_no_place_is_refused_with_what_is(text):
    with pytest.raises(PlaceError) as refused:
        parse_place(text, NOW_MS)
    assert "10m-ago" in str(refused.value)


@pytest.mark.parametrize(
    "text", ["9" * 20, "-" + "9" * 20, "@" + "9" * 5000, "9" * 5000, "9" * 400 + "s-ago"]
)
def test_what_no_int64_holds_is_refused(text):
    with pytest.raises(PlaceError):
        parse_place(text, NOW_MS)
    assert parse_place(str(2**63 - 1), NOW_MS) == AtOffset(2**63 - 1)
    with pytest.raises(PlaceError):
        parse_place(str(2**63), NOW_MS)


def test_a_bound_is_an_offset_or_a_time_and_nothing_else():
    assert parse_bound("7", NOW_MS) == AtOffset(7)
    assert parse_bound("1s-ago", NOW_MS) == AtTime(NOW_MS - 1000)
    for text in ("-7", "earliest", "latest", "committed"):
        with pytest.raises(PlaceError, match="neither an offset nor"):
            parse_bound(text, NOW_MS)


def test_a_time_without_a_zone_is_utc_wherever_one_is(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        assert parse_time_ms("2026-01-31T12:00:00", NOW_MS) == 1_769_860_800_000
        assert format_time(1_769_860_800_000) == "2026-01-31T12:00:00.000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.integers(0, 253_402_300_799_999))
@settings(max_examples=200, deadline=None)
def test_a_time_that_was_written_is_read_back(time_ms):
    assert parse_time_ms(format_time(time_ms), NOW_MS) == time_ms
    assert parse_time_ms(f"@{time_ms}", NOW_MS) == time_ms


def test_a_time_beyond_the_calendar_is_written_as_a_number():
    assert format_time(2**62) == f"@{2**62}"
    assert parse_time_ms(format_time(2**62), NOW_MS) == 2**62


@given(st.lists(st.tuples(st.integers(0, 999), st.sampled_from(["ms", "s", "m", "h", "d"]))))
@settings(max_examples=100, deadline=None)
def test_a_span_is_the_sum_of_its_parts(parts):
    units = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    text = "".join(f"{count}{unit}" for count, unit in parts)
    if parts:
        assert parse_span_ms(text) == sum(count * units[unit] for count, unit in parts)
    else:
        with pytest.raises(PlaceError, match="not a span"):
            parse_span_ms(text)


@pytest.mark.parametrize("text", ["earliest", "latest", "committed", "7", "-3", "@1", "1h-ago"])
def test_a_place_that_was_written_is_read_back(text):
    place = parse_place(text, NOW_MS)
    assert parse_place(write_place(place), NOW_MS) == place


def test_today_begins_at_the_midnight_of_utc_and_yesterday_a_day_before():
    midnight_ms = parse_time_ms("2026-02-02", 0)
    for now_ms in (midnight_ms, midnight_ms + 1, midnight_ms + 86_399_999):
        assert parse_bound("today", now_ms) == AtTime(midnight_ms)
        assert parse_time_ms("yesterday", now_ms) == parse_time_ms("2026-02-01", 0)
        assert parse_time_ms("now", now_ms) == now_ms
    assert parse_time_ms("yesterday", 5) == 0


@pytest.mark.parametrize("text", ["today", "now", "yesterday", "10m-ago"])
def test_what_depends_on_when_it_is_read_is_no_time_of_a_record(text):
    with pytest.raises(PlaceError, match="is not a time: give an ISO 8601 time"):
        parse_instant_ms(text)
    assert parse_instant_ms("@5") == 5


@pytest.mark.parametrize("text", ["Today", "tomorrow", "today-ago", "nowish"])
def test_words_that_are_none_are_refused_with_those_that_are(text):
    with pytest.raises(PlaceError, match="span"):
        parse_place(text, NOW_MS)
