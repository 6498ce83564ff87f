"""Cutting a stream of bytes into records: at a delimiter, or every so many bytes.

Both framers are fed chunks of any size and answer with the records that are complete. They know
nothing of what a record means; `inputs` reads that.
"""

from __future__ import annotations

from typing import Protocol

from riverrun._core.row_checks import BATCH_BYTES_MAX

RECORD_BYTES_MAX = BATCH_BYTES_MAX
"""The largest batch that any topic may allow: a record that is longer cannot be sent."""


class RecordTooLongError(ValueError):
    """A record would be longer than anything that can be sent."""


class Framer(Protocol):
    """Cuts chunks into records."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a chunk and return the records that it completes, in order."""

    def finish(self) -> list[bytes]:
        """Return what is left at the end of the input: one record or none."""


class DelimiterFramer:
    """Cuts at a delimiter, which belongs to no record.

    What stands behind the last delimiter is a record too unless it is empty, so a missing newline
    at the end of a file loses nothing and a present one adds nothing.
    """

    def __init__(self, delimiter: bytes, *, record_bytes_max: int = RECORD_BYTES_MAX) -> None:
        assert delimiter, "without a delimiter there is nothing to cut at"
        self._delimiter = delimiter
        self._record_bytes_max = record_bytes_max
        # The beginning of the next record, in the pieces it came in: joining them at each chunk
        # would make one long record cost the square of its length.
        self._pieces: list[bytes] = []
        self._pending_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a chunk and return the records that it completes, in order."""
        if self._pieces:
            chunk = self._with_overlap(chunk)
        records = chunk.split(self._delimiter)
        rest = records.pop()
        if records and self._pieces:
            records[0] = b"".join(self._pieces) + records[0]
        if records:
            self._pieces.clear()
            self._pending_bytes = 0
        if rest:
            self._pieces.append(rest)
            self._pending_bytes += len(rest)
        if self._pending_bytes > self._record_bytes_max:
            raise RecordTooLongError(
                f"this one record is too large: more than {self._record_bytes_max} bytes, the most "
                f"that any topic takes, came without {self._delimiter_name()}: check --delimiter, or "
                "cut the input with --record-size"
            )
        return records

    def finish(self) -> list[bytes]:
        """Return what stands behind the last delimiter, unless it is empty."""
        last = b"".join(self._pieces)
        self._pieces.clear()
        self._pending_bytes = 0
        return [last] if last else []

    def _delimiter_name(self) -> str:
        """Name the delimiter as one types it."""
        if self._delimiter == b"\n":
            return "a newline"
        return f"the delimiter {repr(self._delimiter)[1:]}"

    def _with_overlap(self, chunk: bytes) -> bytes:
        """Put before the chunk what may be the beginning of a delimiter that ends in it."""
        want = len(self._delimiter) - 1
        overlap = b""
        while self._pieces and len(overlap) < want:
            overlap = self._pieces.pop() + overlap
        keep = max(0, len(overlap) - want)
        if keep:
            self._pieces.append(overlap[:keep])
        self._pending_bytes -= len(overlap) - keep
        return overlap[keep:] + chunk


class SizeFramer:
    """Cuts every so many bytes, for binary data; the last record may be shorter."""

    def __init__(self, record_bytes: int) -> None:
        assert record_bytes > 0, "a record of a fixed size has at least one byte"
        self._record_bytes = record_bytes
        self._pieces: list[bytes] = []
        self._pending_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a chunk and return the records that it completes, in order."""
        self._pieces.append(chunk)
        self._pending_bytes += len(chunk)
        size = self._record_bytes
        if self._pending_bytes < size:
            return []
        data = b"".join(self._pieces)
        whole = len(data) - len(data) % size
        rest = data[whole:]
        self._pieces = [rest] if rest else []
        self._pending_bytes = len(rest)
        return [data[at : at + size] for at in range(0, whole, size)]

    def finish(self) -> list[bytes]:
        """Return the bytes that are fewer than a record, if any."""
        last = b"".join(self._pieces)
        self._pieces.clear()
        self._pending_bytes = 0
        return [last] if last else []
