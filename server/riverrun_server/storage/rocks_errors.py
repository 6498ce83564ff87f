"""What rocksdict's exceptions mean: all it gives is a bare `Exception` with RocksDB's text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rocksdict import DbClosedError

from riverrun_server.ports.log import (
    CorruptData,
    StorageError,
    StorageFailed,
    StorageFull,
    StorageStalled,
)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise what goes wrong within as one of our errors; their text begins with `doing`.

    Raises:
        StorageError: one of its kinds.
    """
    try:
        yield
    except Exception as error:
        if type(error) is Exception or isinstance(error, (DbClosedError, OSError)):
            raise meaning(error, doing) from None
        raise


def meaning(error: Exception, doing: str) -> StorageError:
    """Return which of our errors it is."""
    # RocksDB breaks lines; whoever starts a broker gets one.
    text = f"{doing}: {' '.join(str(error).split())}"
    if isinstance(error, DbClosedError):
        return StorageFailed(f"{doing}: the store is closed")
    if "Write stall" in text:
        return StorageStalled(f"{text}; RocksDB is behind with writing tables, try again")
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return StorageFull(text)
    if "Corruption" in text:
        return CorruptData(text)
    # A read or a look around that fails says nothing about what is on the disk; a write or a sync
    # that fails does, and whoever did it knows.
    return StorageError(text)
