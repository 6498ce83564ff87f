"""What can be told of a record before it is sent: the types of its parts, and that it is too large."""

from __future__ import annotations

from riverrun._core.encoding import Row
from riverrun.errors import Reason, UsageError

BATCH_BYTES_MAX = 3 << 20
"""What a batch may hold, before compression."""


def check_size(record_bytes: int) -> None:
    """Refuse a record that no broker takes: its message would break the stream for all others.

    Raises:
        UsageError: it is larger than a batch may be.
    """
    if record_bytes > BATCH_BYTES_MAX:
        raise UsageError(
            f"the record takes {record_bytes} bytes; a batch, and so a record, has at most "
            f"{BATCH_BYTES_MAX}: send it in parts, or where it can be fetched",
            reason=Reason.BATCH_TOO_LARGE,
        )


def check_row(row: Row) -> None:
    """Look at the types of a record's parts, while its sender can still be told.

    Raises:
        UsageError: a part has the wrong type, or a header's name cannot be encoded.
    """
    key, value, timestamp_ms, headers = row
    for name, part in (("key", key), ("value", value)):
        if part is not None and type(part) is not bytes:
            raise UsageError(
                f"the {name} is of type {type(part).__name__}; it must be bytes or None: encode it, "
                f"or give the producer a {name}_serializer",
                reason=Reason.INVALID_REQUEST,
            )
    if type(timestamp_ms) is not int or not 0 <= timestamp_ms < 1 << 63:
        raise UsageError(
            f"the timestamp is {timestamp_ms!r}; it must be an int, ms since 1970 and not below 0: "
            "leave it out, or None, for none",
            reason=Reason.INVALID_TIMESTAMP,
        )
    for name_part, content in headers:
        if type(name_part) is not str or type(content) is not bytes:
            raise _wrong_header(name_part, content)
        if not name_part.isascii():
            _check_utf8(name_part)


def _wrong_header(name: object, content: object) -> UsageError:
    """Say which part of a header is not what it must be."""
    if type(name) is not str:
        wrong = f"the header name {name!r} is of type {type(name).__name__}; it must be str"
        advice = "decode it" if isinstance(name, bytes) else "names are text"
    else:
        wrong = (
            f"the header {name!r} has a value of type {type(content).__name__}; it must be bytes"
        )
        advice = "encode it" if isinstance(content, str) else "make bytes of it"
    return UsageError(f"{wrong}: {advice}", reason=Reason.INVALID_REQUEST)


def _check_utf8(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the header name {name!r} is no UTF-8: {error.reason} at position {error.start}; "
            "names are text, only what they name may be any bytes",
            reason=Reason.INVALID_RECORD,
        ) from None
