"""How the embedded store's keys and its revision stand in a table of the broker's own store."""

from __future__ import annotations

import struct
from typing import Final

from riverrun_server.ports.log import CorruptData, Table
from riverrun_server.ports.metadata import Entry, Event

FORMAT_VERSION: Final = 1

_REVISION_KEY: Final = b"metadata/revision"
_ENTRY_PREFIX: Final = b"metadata/key/"
_REVISION = struct.Struct(">BQ")
_ENTRY = struct.Struct(">BQQQQ")


class Rows:
    """Reads everything once, writes revisions."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def load(self) -> tuple[int, list[Entry]]:
        """Return the revision and all entries.

        Raises:
            CorruptData: a row is malformed, or of a format that this version does not know.
        """
        stored = self._table.get(_REVISION_KEY)
        revision = 0
        if stored is not None:
            _check(_REVISION_KEY, stored, _REVISION)
            revision = _REVISION.unpack(stored)[1]
        entries = [_entry(key, row) for key, row in self._table.scan(_ENTRY_PREFIX)]
        newest = max((entry.mod_revision for entry in entries), default=0)
        if newest > revision:
            raise CorruptData(f"metadata of revision {newest} in a store at revision {revision}")
        return revision, entries

    def write(self, revision: int, events: tuple[Event, ...]) -> None:
        """Write what a revision changed in one atomic step.

        Raises:
            StorageError: nothing was written.
        """
        puts = [(_REVISION_KEY, _REVISION.pack(FORMAT_VERSION, revision))]
        deletes = []
        for event in events:
            key = _ENTRY_PREFIX + event.key.encode()
            if event.entry is None:
                deletes.append(key)
            else:
                puts.append((key, _row(event.entry)))
        self._table.write(puts, deletes)

    def keys(self) -> list[bytes]:
        """Return the keys of all rows: without them the metadata is not here any more."""
        return [_REVISION_KEY, *(key for key, _ in self._table.scan(_ENTRY_PREFIX))]


def _row(entry: Entry) -> bytes:
    header = _ENTRY.pack(
        FORMAT_VERSION, entry.create_revision, entry.mod_revision, entry.version, entry.lease
    )
    return header + entry.value


def _entry(key: bytes, row: bytes) -> Entry:
    _check(key, row[: _ENTRY.size], _ENTRY)
    _, create_revision, mod_revision, version, lease = _ENTRY.unpack_from(row)
    name = key[len(_ENTRY_PREFIX) :].decode()
    return Entry(name, row[_ENTRY.size :], create_revision, mod_revision, version, lease)


def _check(key: bytes, row: bytes, layout: struct.Struct) -> None:
    if len(row) != layout.size:
        raise CorruptData(f"row {key!r} has {len(row)} B, expected {layout.size}")
    if row[0] != FORMAT_VERSION:
        raise CorruptData(
            f"row {key!r} has format {row[0]}, this version knows {FORMAT_VERSION}; the data was "
            "written by another version of the broker"
        )
