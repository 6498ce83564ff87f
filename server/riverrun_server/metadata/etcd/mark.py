"""What a data directory remembers of the etcd that its metadata is in."""

from __future__ import annotations

import contextlib
import struct
from typing import Final

from riverrun_server.metadata.etcd.standing import Mark
from riverrun_server.ports.log import CorruptData, StorageError, Table

FORMAT_VERSION: Final = 1

_KEY: Final = b"metadata/etcd"
_HEADER: Final = struct.Struct(">BQQ")


class MarkRow:
    """The row: etcd's cluster, the newest revision seen, and the prefix of the keys.

    Args:
        table: of the broker's own store.
        prefix: what keys begin with in etcd.
    """

    def __init__(self, table: Table, prefix: str) -> None:
        self._table = table
        self._prefix = prefix.encode()

    @staticmethod
    def prefix_in(table: Table) -> str | None:
        """Return under which prefix the metadata stands in etcd; None where it does not."""
        row = table.get(_KEY)
        return None if row is None else row[_HEADER.size :].decode(errors="replace")

    def load(self) -> Mark:
        """Return the mark; an empty one where there is none.

        Raises:
            CorruptData: the row is malformed, or of a format that this version does not know.
        """
        row = self._table.get(_KEY)
        if row is None:
            return Mark()
        if len(row) < _HEADER.size or row[0] != FORMAT_VERSION:
            raise CorruptData(
                f"row {_KEY!r} of {len(row)} B has format {row[0] if row else 'none'}, this "
                f"version knows {FORMAT_VERSION}; the data was written by another version"
            )
        _, cluster_id, revision = _HEADER.unpack_from(row)
        return Mark(cluster_id, revision)

    def save(self, mark: Mark) -> None:
        """Write the mark; where the disk refuses, an older one stays, which proves less."""
        with contextlib.suppress(StorageError):
            self._table.write([self.row(mark)])

    def row(self, mark: Mark) -> tuple[bytes, bytes]:
        """Return the row of a mark."""
        header = _HEADER.pack(FORMAT_VERSION, mark.cluster_id, mark.revision)
        return _KEY, header + self._prefix
