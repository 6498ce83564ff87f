"""What `--from`, `--until` and `--at` take: named places, offsets, times, and the last N records.

An integer is an offset. A time is ISO 8601 (UTC unless it says otherwise), `@UNIX_MS`, a span
before now such as `10m-ago` or `1h30m-ago`, or `now`, `today` or `yesterday`: the midnights of UTC that
these days begin with. `-N` is the last N records of each partition.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_SPAN_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdw])")
_SPAN = re.compile(rf"(?:{_SPAN_PART.pattern})+")
_INT64_MAX = 2**63 - 1
_INSTANT_FORMS = "an ISO 8601 time such as 2026-01-31T12:00:00Z, or @UNIX_MS"
TIME_FORMS = (
    "an ISO 8601 time such as 2026-01-31T12:00:00Z, @UNIX_MS, a span such as 10m-ago, or now, today or "
    "yesterday (midnight UTC)"
)
TIME_WORDS = ("now", "today", "yesterday")


@dataclass(frozen=True, slots=True)
class AtOffset:
    """A place given by its offset."""

    offset: int


@dataclass(frozen=True, slots=True)
class AtTime:
    """The first record whose timestamp is this or later, in ms since 1970."""

    time_ms: int


@dataclass(frozen=True, slots=True)
class LastRecords:
    """So many records before the end."""

    count: int


Named: TypeAlias = Literal["earliest", "latest", "committed"]
Place: TypeAlias = Named | AtOffset | AtTime | LastRecords
Bound: TypeAlias = AtOffset | AtTime


class PlaceError(ValueError):
    """The text is not a place; the message says what is."""


def parse_place(text: str, now_ms: int) -> Place:
    """Read what `--from` takes; `now_ms` is the moment that `10m-ago` counts back from."""
    match text:
        case "earliest" | "latest" | "committed":
            return text
    if re.fullmatch(r"-[0-9]+", text):
        return LastRecords(_bounded(text[1:]))
    if re.fullmatch(r"[0-9]+", text):
        return AtOffset(_bounded(text))
    try:
        return AtTime(parse_time_ms(text, now_ms))
    except PlaceError:
        raise PlaceError(
            f"{text!r} is not a place: give earliest, latest, committed, an offset, "
            f"-N for the last N records, {TIME_FORMS}"
        ) from None


def parse_bound(text: str, now_ms: int) -> Bound:
    """Read what `--until` takes: an offset or a time."""
    if re.fullmatch(r"[0-9]+", text):
        return AtOffset(_bounded(text))
    try:
        return AtTime(parse_time_ms(text, now_ms))
    except PlaceError:
        raise PlaceError(f"{text!r} is neither an offset nor {TIME_FORMS}") from None


def parse_time_ms(text: str, now_ms: int) -> int:
    """Read a time as ms since 1970; `now_ms` is what spans and words such as `today` go by."""
    if text.endswith("-ago"):
        return max(0, now_ms - parse_span_ms(text.removesuffix("-ago")))
    midnight_ms = now_ms - now_ms % _MS["d"]
    match text:
        case "now":
            return now_ms
        case "today":
            return midnight_ms
        case "yesterday":
            return max(0, midnight_ms - _MS["d"])
    return _instant_ms(text, TIME_FORMS)


def parse_instant_ms(text: str) -> int:
    """Read a time that is the same whenever it is read, as ms since 1970."""
    return _instant_ms(text, _INSTANT_FORMS)


def _instant_ms(text: str, forms: str) -> int:
    """Read one; without a zone it is UTC, a bare date is its midnight."""
    if re.fullmatch(r"@[0-9]+", text):
        return _bounded(text[1:])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise PlaceError(f"{text!r} is not a time: give {forms}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    time_ms = round(moment.timestamp() * 1000)
    if time_ms < 0:
        raise PlaceError(f"{text!r} lies before 1970, where timestamps begin")
    return time_ms


def parse_span_ms(text: str) -> int:
    """Read a span such as `90s`, `1h30m` or `1.5d` as ms."""
    if not _SPAN.fullmatch(text):
        raise PlaceError(f"{text!r} is not a span: give numbers with {', '.join(_MS)}, as in 1h30m")
    span_ms = sum(float(count) * _MS[unit] for count, unit in _SPAN_PART.findall(text))
    if span_ms > _INT64_MAX:
        raise PlaceError(f"{text!r} is too long: spans end at {_INT64_MAX} ms")
    return round(span_ms)


def format_time(time_ms: int) -> str:
    """Write ms since 1970 as ISO 8601 in UTC, in a form that `parse_time_ms` reads back."""
    try:
        moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"@{time_ms}"
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1000:03d}Z"


def write_place(place: Place) -> str:
    """Write a place in a form that `parse_place` reads back."""
    match place:
        case AtOffset(offset):
            return str(offset)
        case AtTime(time_ms):
            return format_time(time_ms)
        case LastRecords(count):
            return f"-{count}"
        case named:
            return named


def _bounded(digits: str) -> int:
    """Read digits as an int64, which is what offsets and times are on the wire."""
    if len(digits) > len(str(_INT64_MAX)) or int(digits) > _INT64_MAX:
        raise PlaceError(f"{digits} is too large: offsets and times end at {_INT64_MAX}")
    return int(digits)
