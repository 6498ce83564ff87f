"""Reads RocksDB's write-ahead logs, so that damage can be aimed at a chosen write.

A log is blocks of 32 KiB of fragments: checksum (4 bytes), length (2), type (1), and for a recycled
log its number (4). A record is one fragment or first, middle and last ones; it holds one WriteBatch:
sequence number (8), count (4), and the operations. All numbers are little-endian. Checksums are not
looked at: the logs that are read here are whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from riverrun_server.storage import keys, rows

_BLOCK = 32768
_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_PREFIX = struct.Struct("<QI")


class WalRecord(NamedTuple):
    """One write in a write-ahead log.

    Attributes:
        begin: where the header of its first fragment begins in the file,
        end: and where its last fragment ends.
        number: of the write, as the journal counts.
        durable: the number of the last write that was known to be on the disk by then.
        data: its WriteBatch.
    """

    begin: int
    end: int
    number: int
    durable: int
    data: bytes


def wal_records(path: Path) -> list[WalRecord]:
    """Return every write in a log, in order.

    Raises:
        ValueError: it holds something that is not described above.
    """
    found, data, begin = [], b"", 0
    for at, kind, fragment in _fragments(path.read_bytes()):
        if kind in (_FULL, _FIRST):
            data, begin = b"", at
        data += fragment
        if kind in (_FULL, _LAST):
            number, durable = _claim(data)
            end = at + _HEADER.size + len(fragment)
            found.append(WalRecord(begin, end, number, durable, data))
    return found


def _fragments(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (where it begins, type, content) of each fragment."""
    at = 0
    while at + _HEADER.size <= len(content):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER.size:
            at += left  # the trailer of a block is zeroes
            continue
        _, length, kind = _HEADER.unpack_from(content, at)
        if not kind and not length:
            return  # what was allocated and not written
        if not _FULL <= kind <= _LAST:
            raise ValueError(f"a fragment of type {kind} at {at}, expected {_FULL} to {_LAST}")
        yield at, kind, content[at + _HEADER.size : at + _HEADER.size + length]
        at += _HEADER.size + length


def _claim(data: bytes) -> tuple[int, int]:
    """Return the write number of a WriteBatch, and the durable number it claims."""
    at = data.rfind(keys.CLAIM)
    if at < 0:
        raise ValueError(f"a write of {len(data)} bytes has no number")
    at += len(keys.CLAIM)
    size = data[at]  # the row is short, so its length is one byte
    return rows.unpack_claim(data[at + 1 : at + 1 + size])
