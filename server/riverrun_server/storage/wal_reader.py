"""Reads write-ahead logs past damage, for what RocksDB itself then cannot tell any more.

RocksDB 9.8 can be told to skip damaged records, but where one of several fragments is followed by
another such record it fails ("Write batch content corrupted": its running checksum is not begun
anew). Then a log that nothing was promised about, a torn tail, would keep the store from opening.

A log is blocks of 32 KiB of fragments: checksum (4 bytes), length (2), type (1). A record is one
fragment, or first, middle and last ones. All numbers are little-endian. The checksum is CRC-32C of
type and content, rotated and moved by a constant.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from riverrun_server.storage import keys, rows
from riverrun_server.storage.rocks_errors import translated

_BLOCK: Final = 32768
_HEADER: Final = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = range(1, 5)
_MASK_DELTA: Final = 0xA282EAD8
_POLYNOMIAL: Final = 0x82F63B78
# Every write ends with the row that numbers it: key and value, each behind its length.
_NUMBER: Final = bytes([len(keys.CLAIM)]) + keys.CLAIM + bytes([len(rows.pack_claim(0, 0))])
_ROW_BYTES: Final = len(rows.pack_claim(0, 0))


class _Fragment(NamedTuple):
    begin: int
    kind: int
    checksum: int
    content: bytes

    def is_whole(self) -> bool:
        crc = _crc32c(bytes([self.kind]) + self.content)
        return self.checksum == (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def newest_claim(store: Path) -> tuple[int, int]:
    """Return (number of the newest write that can be read, the durable number it carried).

    Zeros where none can.

    Raises:
        StorageError: a log cannot be read.
    """
    found: list[tuple[int, int, _Fragment]] = []
    for log in logs_of(store):
        for fragment in _fragments(_content(log)):
            claim = _claim_at_end(fragment)
            if claim is not None:
                found.append((*claim, fragment))
    # Checksums are slow to take here, and only the newest whole one is needed.
    for number, durable, fragment in sorted(found, key=lambda each: each[:2], reverse=True):
        if fragment.is_whole():
            return number, durable
    return 0, 0


def cut_at_damage(log: Path) -> None:
    """Let a log end before its first damaged record.

    Raises:
        StorageError: it could not be cut.
    """
    content, end = _content(log), 0
    for fragment in _fragments(content):
        if not fragment.is_whole():
            break
        if fragment.kind in (_FULL, _LAST):
            end = fragment.begin + _HEADER.size + len(fragment.content)
    with translated(f"cutting {log}"):
        os.truncate(log, end)


def logs_of(store: Path) -> list[Path]:
    """Return the write-ahead logs of a database, oldest first."""
    return sorted(store.glob("*.log"))


def _content(log: Path) -> bytes:
    with translated(f"reading {log}"):
        return log.read_bytes()


def _fragments(content: bytes) -> Iterator[_Fragment]:
    """Yield what looks like a fragment; behind one that does not, go on with the next block."""
    at = 0
    while at + _HEADER.size <= len(content):
        block_end = min(at - at % _BLOCK + _BLOCK, len(content))
        begin = at + _HEADER.size
        if begin > block_end:
            at = block_end
            continue
        checksum, length, kind = _HEADER.unpack_from(content, at)
        if not _FULL <= kind <= _LAST or begin + length > block_end:
            at = at - at % _BLOCK + _BLOCK
            continue
        yield _Fragment(at, kind, checksum, content[begin : begin + length])
        at = begin + length


def _claim_at_end(fragment: _Fragment) -> tuple[int, int] | None:
    if fragment.kind not in (_FULL, _LAST):
        return None
    row = fragment.content[-_ROW_BYTES:]
    # Where the number itself is in two fragments, the write before it has to do.
    if fragment.content[-_ROW_BYTES - len(_NUMBER) : -_ROW_BYTES] != _NUMBER:
        return None
    return rows.unpack_claim(row) if row[:1] == rows.pack_claim(0, 0)[:1] else None


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return table


_TABLE: Final = _table()


def _crc32c(data: bytes) -> int:
    crc, table = 0xFFFFFFFF, _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF
