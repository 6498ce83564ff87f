"""A small ordered map in the family `meta`, beside the slot map and other tables."""

from __future__ import annotations

from collections.abc import Sequence

from riverrun_server.storage import keys
from riverrun_server.storage.journal import Journal
from riverrun_server.storage.rocks import Batch


class RocksTable:
    """Implements ports.log.Table.

    Args:
        journal: takes the writes.
        name: 1 to 255 bytes, of the table's own.
    """

    def __init__(self, journal: Journal, name: bytes) -> None:
        self._journal = journal
        self._begin = keys.table(name)

    def get(self, key: bytes) -> bytes | None:
        """Return a value.

        Raises:
            CorruptData: it cannot be read.
        """
        return self._journal.meta.one(self._begin + key)

    def scan(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """Return all rows whose key begins with `prefix`, in order.

        Raises:
            CorruptData: one cannot be read.
        """
        begin = self._begin + prefix
        own = len(self._begin)
        return [
            (key[own:], value) for key, value in self._journal.meta.scan(begin, keys.after(begin))
        ]

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes] = ()) -> None:
        """Write and delete rows in one atomic step; of a key in both, the put counts.

        Raises:
            StorageStalled, StorageFull, StorageFailed: nothing was written.
        """
        write = Batch()
        for key in deletes:
            write.delete(self._journal.meta, self._begin + key)
        for key, value in puts:
            write.put(self._journal.meta, self._begin + key, value)
        self._journal.commit(write)
