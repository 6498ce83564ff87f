"""A copy of a store that is repaired beside it and takes its place when it is complete.

Tables are linked and not copied. A crash in between leaves either of them, and the next start
completes or undoes what it finds.
"""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

from riverrun_server.storage.durable_file import sync_directory
from riverrun_server.storage.rocks_errors import translated


def copy_of(store: Path) -> Path:
    """Return where the copy of a store stands."""
    return store.with_name(store.name + ".salvaged")


def copy_store(store: Path, copy: Path) -> None:
    """Copy a store that nobody has open; what is left of an earlier copy goes."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for file in store.iterdir():
        if file.suffix == ".sst":
            os.link(file, copy / file.name)  # tables are never changed, only deleted
        elif file.is_file() and not file.name.startswith(("LOCK", "LOG")):
            shutil.copyfile(file, copy / file.name)


def swap(store: Path, copy: Path) -> None:
    """Let a complete copy take the place of a store, so that a power cut leaves either of them."""
    for file in copy.iterdir():
        _sync(file)
    sync_directory(copy)
    store.rename(_free_name(store))
    sync_directory(store.parent)
    copy.rename(store)
    sync_directory(store.parent)
    _drop_tables(store)


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _free_name(store: Path) -> Path:
    """Return where a replaced store goes: each has a folder of its own, numbered from the second on."""
    first = store.with_name(store.name + ".damaged")
    if not first.exists():
        return first
    return next(
        path for number in itertools.count(2) if not (path := Path(f"{first}.{number}")).exists()
    )


def _drop_tables(store: Path) -> None:
    """Delete the tables of replaced stores: what is good of them is linked into the store."""
    for table in store.parent.glob(f"{store.name}.damaged*/*.sst"):
        table.unlink()


def finish_swap(store: Path) -> None:
    """Complete or undo what a crash has left of a repair.

    Raises:
        StorageError: it could be neither.
    """
    copy = copy_of(store)
    with translated(f"cleaning up beside {store}"):
        if copy.exists() and not store.exists():
            copy.rename(store)
            sync_directory(store.parent)
            _drop_tables(store)
        shutil.rmtree(copy, ignore_errors=True)
