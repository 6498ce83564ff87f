"""Small files that are replaced as a whole: after a crash there is the old one or the new one."""

from __future__ import annotations

import os
from pathlib import Path

from riverrun_server.storage.rocks_errors import translated


def replace_file(path: Path, content: bytes) -> None:
    """Write a file and return once it is on the disk under its name.

    Raises:
        StorageError: the old file is still there.
    """
    new = path.with_name(path.name + ".new")
    with translated(f"writing {path}"):
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make names that were made, changed or removed in a directory durable.

    Raises:
        OSError: nobody knows which of them are on the disk.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
