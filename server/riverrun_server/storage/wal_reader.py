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

BLOCK: Final = 32768
HEADER: Final = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = range(1, 5)
_MASK_DELTA: Final = 0xA282EAD8
_POLYNOMIAL: Final = 0x82F63B78
# Every write ends with the row that numbers it: key and value, each behind its length.
_NUMBER: Final = bytes([len(keys.CLAIM)]) + keys.CLAIM + bytes([len(rows.pack_claim(0, 0))])
_ROW_BYTES: Final = len(rows.pack_claim(0, 0))
_CLAIM_BYTES: Final = len(_NUMBER) + _ROW_BYTES


class Fragment(NamedTuple):
    """A piece of a log.

    Attributes:
        begin: where its header begins.
        kind: its type, full, first, middle or last.
        checksum: as stored.
        content: what is behind the header.
    """

    begin: int
    kind: int
    checksum: int
    content: bytes

    def is_whole(self) -> bool:
        """Return whether the checksum is right; takes a millisecond for 10 KB."""
        crc = _crc32c(bytes([self.kind]) + self.content)
        return self.checksum == (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


class _Candidate(NamedTuple):
    """What looks like the end of a write; compared by its number."""

    number: int
    durable: int
    log: Path
    begin: int
    size: int

    def is_whole(self) -> bool:
        with translated(f"reading {self.log}"), self.log.open("rb") as file:
            file.seek(self.begin)
            found = next(_fragments(file.read(self.size)))
        return found.is_whole()


def ends_with(store: Path, number: int) -> bool:
    """Return whether the write-ahead logs end with this write, so that nothing stands behind it.

    Raises:
        StorageError: a log cannot be read.
    """
    for log in reversed(logs_of(store)):
        with translated(f"reading {log}"), log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if not size:
                continue
            file.seek(max(0, size - _CLAIM_BYTES))
            claim = _claim_at_end(file.read(_CLAIM_BYTES))
            return claim is not None and claim[0] == number
    return True


def newest_claim(store: Path) -> tuple[int, int]:
    """Return (number of the newest write that can be read, the durable number it carried).

    Zeros where none can. Looks at every write: a second for 128 MiB of small ones.

    Raises:
        StorageError: a log cannot be read.
    """
    found: list[_Candidate] = []
    for log in logs_of(store):
        for fragment in _fragments(_content(log)):
            claim = None
            if fragment.kind in (_FULL, _LAST):
                claim = _claim_at_end(fragment.content)
            if claim is not None:
                size = HEADER.size + len(fragment.content)
                found.append(_Candidate(*claim, log, fragment.begin, size))
    # Checksums are slow to take here, and only the newest whole one is needed.
    for candidate in sorted(found, reverse=True):
        if candidate.is_whole():
            return candidate.number, candidate.durable
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
            end = fragment.begin + HEADER.size + len(fragment.content)
    with translated(f"cutting {log}"):
        os.truncate(log, end)


def logs_of(store: Path) -> list[Path]:
    """Return the write-ahead logs of a database, oldest first."""
    return sorted(store.glob("*.log"))


def _content(log: Path) -> bytes:
    with translated(f"reading {log}"):
        return log.read_bytes()


def _fragments(content: bytes) -> Iterator[Fragment]:
    """Yield what stands where a fragment should; what is none of them is not whole.

    Behind what cannot be one it goes on behind the next number of a write in the same block, for
    that is where a fragment ends, or else with the next block.
    """
    at = 0
    while at + HEADER.size <= len(content):
        block_end = min(at - at % BLOCK + BLOCK, len(content))
        begin = at + HEADER.size
        if begin > block_end:
            at = block_end
            continue
        checksum, length, kind = HEADER.unpack_from(content, at)
        end = begin + length
        fragment = Fragment(at, kind, checksum, content[begin : min(end, block_end)])
        yield fragment
        if end > block_end or not _is_sound(fragment, fills=end == block_end):
            number = content.find(_NUMBER, begin, block_end)
            end = block_end if number < 0 else min(number + _CLAIM_BYTES, block_end)
        at = end


def _is_sound(fragment: Fragment, *, fills: bool) -> bool:
    """Return whether type and length can be right: first and middle ones fill their block."""
    if fragment.kind in (_FIRST, _MIDDLE):
        return fills
    content = fragment.content
    is_end = content[-_CLAIM_BYTES:-_ROW_BYTES] == _NUMBER or len(content) < _CLAIM_BYTES
    return fragment.kind in (_FULL, _LAST) and is_end


def _claim_at_end(content: bytes) -> tuple[int, int] | None:
    """Return the (number, durable number) with which every write ends.

    Where the number itself is in two fragments, the write before it has to do.
    """
    row = content[-_ROW_BYTES:]
    if content[-_CLAIM_BYTES:-_ROW_BYTES] != _NUMBER:
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
