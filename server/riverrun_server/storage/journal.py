"""Numbers every write, and knows which of them are on the disk.

RocksDB numbers writes too, but its manifest remembers the newest number when the write-ahead log
that held the writes is gone, so by its own count nothing is missing (measured). These numbers live
in a row of their own that every batch writes again, together with the newest number that was known
to be durable: after a crash the row says which write was the last to survive, and what it had been
promised.
"""

from __future__ import annotations

import threading

from riverrun_server.ports.log import StorageError, StorageFailed
from riverrun_server.storage import keys, rows
from riverrun_server.storage.rocks import Batch, Rocks


class Journal:
    """The one way to write into an open store.

    Args:
        rocks: the database.
        written: the number of the last write in it; all of them are on the disk.

    Transitions: open -> failed (a sync failed); failed is for good.
    """

    def __init__(self, rocks: Rocks, written: int) -> None:
        self.rocks = rocks
        self.index = rocks.column(keys.INDEX)
        self.meta = rocks.column(keys.META)
        self._written = self._durable = written
        self._failure: StorageFailed | None = None
        # Upkeep writes and syncs from its own thread.
        self._one_at_a_time = threading.Lock()

    @property
    def written(self) -> int:
        """The number of the last write."""
        return self._written

    @property
    def durable(self) -> int:
        """The number of the last write known to be on the disk."""
        return self._durable

    def commit(self, batch: Batch) -> None:
        """Write a batch as a whole, with its number; it is durable after the next sync.

        Raises:
            StorageStalled, StorageFull, StorageFailed: nothing was written.
        """
        if self._failure:
            raise self._failure
        with self._one_at_a_time:
            number = self._written + 1
            batch.put(self.index, keys.CLAIM, rows.pack_claim(number, self._durable))
            self.rocks.write(batch)
            self._written = number

    def sync(self) -> None:
        """Make everything written before this call durable; blocks, run it in a thread.

        Raises:
            StorageFailed: nobody knows what is on the disk; nothing can be written any more.
        """
        if self._failure:
            raise self._failure
        captured = self._written
        if captured == self._durable:
            return
        try:
            self.rocks.sync()
        except StorageError as error:
            self._failure = StorageFailed(str(error))
            raise self._failure from error
        if self._failure:
            raise self._failure  # another thread's sync failed meanwhile, and Linux says so once
        with self._one_at_a_time:
            self._durable = max(self._durable, captured)

    def flush(self) -> None:
        """Write everything into tables, all families side by side, and make it durable; blocks.

        Raises:
            StorageError: some of it may be in tables.
        """
        columns = [column for column in self.rocks.columns() if column.is_dirty]
        for column in columns:
            column.flush(wait=False)
        for column in columns:
            column.flush()
        self.sync()


def last_claim(rocks: Rocks) -> tuple[int, int]:
    """Return (number of the last write, the durable number it carried), zeros in a new database.

    Raises:
        CorruptData: the row cannot be read.
    """
    row = rocks.column(keys.INDEX).one(keys.CLAIM)
    return rows.unpack_claim(row) if row else (0, 0)
