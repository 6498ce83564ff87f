"""Marks what RocksDB never comes past, or passes without a word, before it reads a log.

RocksDB 9.8 takes some types of fragments for those of a recycled log. Where the log did not begin with
one it neither steps over the fragment nor says a word: it reads it for ever, in every mode of
recovery, with the interpreter's lock held. One bit makes such a type of an ordinary one, and what a power cut
leaves at a log's end is one of them in fifty times. Logs here are never recycled, so the fragment is
damaged in any case; another type, which nobody writes, has RocksDB say so.

A header of zeroes ends a block without a word too. At the end of the newest log that is right: a power cut
leaves it. With something behind it writes are missing in between.

The manifest has the same format and the same reader.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from riverrun_server.storage.rocks_errors import translated
from riverrun_server.storage.wal_reader import BLOCK, HEADER, Fragment, logs_of

_log = structlog.stdlib.get_logger(__name__)

_CHUNK: Final = 32 * BLOCK
_KIND_AT: Final = HEADER.size - 1
_FULL, _LAST = 1, 4
# Recycled ones: full, first, middle and last, and sizes of timestamps. A test tries all 256.
_ENDLESS: Final = frozenset({5, 6, 7, 8, 11})
_MARK: Final = 0x7F


class _Oddity(NamedTuple):
    """Where in a file RocksDB meets a header that is none, and what follows.

    Attributes:
        at: where the header begins.
        kind: its type.
        blank: it is zeroes.
        followed: another block with something in it comes later.
    """

    at: int
    kind: int
    blank: bool
    followed: bool


def screen(store: Path) -> None:
    """Mark damage that RocksDB does not report, in a store that is not open.

    A mark takes nothing: it changes the type of a fragment that cannot be read as it is. Reads all
    write-ahead logs once, with about half a megabyte at a time in memory.

    Raises:
        StorageError: a file cannot be read or written.
    """
    for manifest in store.glob("MANIFEST-*"):
        _screen(manifest, is_last=True)
    later = False
    for log in reversed(logs_of(store)):
        _screen(log, is_last=not later)
        with translated(f"looking at {log}"):
            later = later or log.stat().st_size > 0


def _screen(path: Path, *, is_last: bool) -> None:
    with translated(f"reading {path}"):
        marks = [odd for odd in _oddities(path) if _is_silent(odd, is_last=is_last)]
    if not marks:
        return
    for odd in marks:
        _log.warning(
            "damaged header in a log, marked so that it is noticed",
            file=path.name,
            at=odd.at + _KIND_AT,
            was=odd.kind,
            now=_MARK,
        )
    with translated(f"marking damage in {path}"), path.open("r+b") as file:
        for odd in marks:
            file.seek(odd.at + _KIND_AT)
            file.write(bytes([_MARK]))
        file.flush()
        os.fsync(file.fileno())


def _is_silent(odd: _Oddity, *, is_last: bool) -> bool:
    return odd.kind in _ENDLESS or (odd.blank and (odd.followed or not is_last))


def _oddities(path: Path) -> Iterator[_Oddity]:
    """Yield where RocksDB stops to read a block before its end, but for damage that it reports."""
    waiting: list[_Oddity] = []
    begin = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            for block in range(0, len(chunk), BLOCK):
                end = min(block + BLOCK, len(chunk))
                at = _end_of_fragments(chunk, block, end)
                if at > block and waiting:
                    # Of a row of blank blocks the first tells it.
                    yield waiting[0]._replace(followed=True)
                    waiting.clear()
                if at + HEADER.size > end:
                    continue
                kind, is_blank = chunk[at + _KIND_AT], not any(chunk[at + 4 : at + 7])
                if not (is_blank or kind in _ENDLESS) or not _is_reached(chunk, block, at):
                    continue
                if is_blank:
                    waiting.append(_Oddity(begin + at, kind, True, False))
                else:
                    yield _Oddity(begin + at, kind, False, False)
            begin += len(chunk)
    yield from waiting[:1]


def _end_of_fragments(content: bytes, at: int, end: int) -> int:
    """Return where in a block the first header stands that is none."""
    last = end - HEADER.size
    while at <= last:
        if not _FULL <= content[at + 6] <= _LAST:
            return at
        at += 7 + content[at + 4] + (content[at + 5] << 8)
    return end


def _is_reached(content: bytes, block: int, at: int) -> bool:
    """Return whether RocksDB comes here: at the first wrong checksum it leaves the block."""
    where = block
    while where < at:
        checksum, length, kind = HEADER.unpack_from(content, where)
        begin = where + HEADER.size
        if not Fragment(where, kind, checksum, content[begin : begin + length]).is_whole():
            return False
        where = begin + length
    return True
