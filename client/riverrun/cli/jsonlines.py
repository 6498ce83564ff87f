"""A record as one JSON object a line: what `consume --output json` writes and `produce` reads.

    {"topic": "t", "partition": 0, "offset": 7, "timestamp": 1700000000000,
     "key": "k", "value": "v", "headers": [{"key": "h", "value": "x"}]}

Bytes that are not UTF-8 stand in base64 under `key_base64` and `value_base64` instead, so that
every record survives the way out and back in. `null` is an absent key, or a tombstone.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass

from riverrun.cli.places import PlaceError, parse_instant_ms
from riverrun.cli.template import Printable

_DATA = {"key", "key_base64", "value", "value_base64"}
_KNOWN = frozenset({"topic", "partition", "offset", "timestamp", "headers"} | _DATA)
_INT64_MAX = 2**63 - 1


class JsonLineError(ValueError):
    """A line that is not a record; the message says why and what is."""


@dataclass(frozen=True, slots=True)
class ParsedRecord:
    """A record as a line of JSON gives it; None where it says nothing."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp_ms: int | None = None
    partition: int | None = None


def write_record(record: Printable) -> bytes:
    """Write a record as one JSON object without a line break."""
    fields: dict[str, object] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp_ms,
    }
    _put(fields, "key", record.key)
    _put(fields, "value", record.value)
    headers: list[dict[str, object]] = []
    for name, value in record.headers:
        header: dict[str, object] = {"key": name}
        _put(header, "value", value)
        headers.append(header)
    fields["headers"] = headers
    return json.dumps(fields, ensure_ascii=False).encode()


def read_record(line: bytes) -> ParsedRecord:
    """Read one line; `topic` and `offset` are passed over, so that consumed lines can be produced.

    Raises:
        JsonLineError: it is not an object, a field is unknown, or a value has the wrong type.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise JsonLineError(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise JsonLineError(
            f'JSON, but {_kind(fields)}, not an object such as {{"key": "k", "value": "v"}}'
        )
    unknown = sorted(fields.keys() - _KNOWN)
    if unknown:
        raise JsonLineError(f"unknown field {unknown[0]!r}; there are {', '.join(sorted(_KNOWN))}")
    if "value" not in fields and "value_base64" not in fields:
        raise JsonLineError('no "value" or "value_base64"; null is a tombstone')
    return ParsedRecord(
        value=_data(fields, "value"),
        key=_data(fields, "key"),
        headers=_headers(fields.get("headers")),
        timestamp_ms=_timestamp(fields.get("timestamp")),
        partition=_integer(fields.get("partition"), "partition", 2**31 - 1),
    )


def _put(fields: dict[str, object], name: str, data: bytes | None) -> None:
    """Set a field as text, or under another name in base64 where it is not UTF-8."""
    if data is None:
        fields[name] = None
        return
    try:
        fields[name] = data.decode()
    except UnicodeDecodeError:
        fields[f"{name}_base64"] = base64.b64encode(data).decode()


def _data(fields: dict[str, object], name: str, of: str = "") -> bytes | None:
    """Read a field of bytes from whichever of its two names it has; `of` says whose it is."""
    text, encoded = fields.get(name), fields.get(f"{name}_base64")
    if text is not None and encoded is not None:
        raise JsonLineError(f'{of}both "{name}" and "{name}_base64"; give one')
    if encoded is not None:
        if not isinstance(encoded, str):
            raise JsonLineError(f'{of}"{name}_base64" is {_kind(encoded)}, not a string')
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise JsonLineError(f'{of}"{name}_base64" is not base64: {error}') from None
    if text is None:
        return None
    if not isinstance(text, str):
        raise JsonLineError(
            f'{of}"{name}" is {_kind(text)}, not a string; write JSON payloads as a quoted string'
        )
    return _utf8(text, name, of)


def _headers(given: object) -> Sequence[tuple[str, bytes]]:
    """Read headers from an object of strings, or from a list where order and repeats count."""
    match given:
        case None:
            return ()
        case dict():
            pairs: list[dict[str, object]] = [{"key": k, "value": v} for k, v in given.items()]
        case list():
            pairs = given
        case _:
            raise JsonLineError(f'"headers" is {_kind(given)}, not an object or a list')
    headers: list[tuple[str, bytes]] = []
    for pair in pairs:
        name = pair.get("key") if isinstance(pair, dict) else None
        if not isinstance(name, str):
            raise JsonLineError('a header in a list is {"key": "name", "value": "text"}')
        value = _data(pair, "value", f"header {name!r}: ")
        if value is None:
            raise JsonLineError(f'header {name!r} has no "value"; it may be empty, but not absent')
        _check_name(name)
        headers.append((name, value))
    return tuple(headers)


def _timestamp(given: object) -> int | None:
    """Read a timestamp from ms since 1970 or from ISO 8601."""
    if isinstance(given, str):
        try:
            return parse_instant_ms(given)
        except PlaceError as error:
            raise JsonLineError(f'"timestamp": {error}') from None
    if isinstance(given, int) and given < 0:
        raise JsonLineError(
            f'"timestamp" is {given}; it is in ms since 1970, not below 0: leave it out, or null, for none'
        )
    return _integer(given, "timestamp", _INT64_MAX)


def _integer(given: object, name: str, highest: int) -> int | None:
    """Read an integer from 0 to `highest`."""
    if given is None:
        return None
    if not isinstance(given, int) or isinstance(given, bool):
        raise JsonLineError(f'"{name}" is {_kind(given)}, not an integer')
    if not 0 <= given <= highest:
        raise JsonLineError(f'"{name}" is {given}; it goes from 0 to {highest}')
    return given


def _utf8(text: str, name: str, of: str = "") -> bytes:
    """Encode text; JSON can escape lone surrogates, which UTF-8 cannot hold."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise JsonLineError(f'{of}"{name}" has a lone surrogate; use "{name}_base64"') from None


def _check_name(name: str) -> None:
    """Refuse the name of a header that UTF-8 cannot hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise JsonLineError(f"the header name {name!r} has a lone surrogate") from None


def _kind(value: object) -> str:
    """Name a JSON type as JSON does, with its article."""
    match value:
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return "null"
