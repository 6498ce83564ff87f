"""A disk that fails when it is told to, for processes that are started with its environment.

The C library beside this is preloaded into the process. The two share a file: the rules, the
counts, and how much of each file has been synced.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOR_EVER = 1 << 62

_SOURCE = Path(__file__).with_name("faulty_disk.c")
_FILES = 16384
_ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}


class _Rule(ctypes.Structure):
    _fields_ = [
        ("spared", ctypes.c_uint64),
        ("failing", ctypes.c_uint64),
        ("error", ctypes.c_uint64),
        ("done", ctypes.c_uint64),
        ("failed", ctypes.c_uint64),
        ("failed_last", ctypes.c_uint64),
    ]


class _File(ctypes.Structure):
    _fields_ = [
        ("inode", ctypes.c_uint64),
        ("synced", ctypes.c_uint64),
        ("dropped_from", ctypes.c_uint64),
        ("dropped_to", ctypes.c_uint64),
    ]


class _State(ctypes.Structure):
    """The shared file, as the C source has it."""

    _fields_ = [
        ("sync_us", ctypes.c_uint64),
        ("sync", _Rule),
        ("write", _Rule),
        ("files", _File * _FILES),
    ]


class NoCompiler(RuntimeError):
    """This machine has no C compiler."""


class Unsynced(NamedTuple):
    """What a power cut may take of one file.

    Attributes:
        path: of the file.
        synced: up to here it is on the disk,
        size: and up to here it has been written.
        dropped: what a failed sync has lost, whatever was synced later on: from, to.
    """

    path: Path
    synced: int
    size: int
    dropped: tuple[int, int]


class FaultyDisk:
    """What is below one folder, as a disk that fails.

    What is there already counts as synced. One process at a time may run with `environ`; each one
    begins with the rules that are given here.

    Args:
        folder: made where it is missing.
        sync_ms: how long a sync takes at least.
        fail_sync: which syncs fail, counted from 1 in each process: "EIO@3", "ENOSPC@3+2".
        fail_write: the same for writes.
        only: failures, and their counts, are for files with this in their names.

    Attributes:
        folder: which.
        environ: what to start a process with.

    Raises:
        NoCompiler: the text says what to install.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sync_ms: float = 0,
        fail_sync: str = "",
        fail_write: str = "",
        only: str = "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        shared = self.folder.with_name(self.folder.name + ".disk")
        with shared.open("w+b") as file:
            file.truncate(ctypes.sizeof(_State))
            self._state = _State.from_buffer(mmap.mmap(file.fileno(), 0))
        self.environ = {
            "LD_PRELOAD": str(_library()),
            "FAULTY_DISK_STATE": str(shared),
            "FAULTY_DISK_FOLDER": str(self.folder),
            "FAULTY_DISK_FILES": only,
            "FAULTY_DISK_SYNC_MS": str(sync_ms),
            "FAULTY_DISK_FAIL_SYNC": fail_sync,
            "FAULTY_DISK_FAIL_WRITE": fail_write,
        }
        self.settle()

    # What has happened to the running process, or the last one.

    @property
    def syncs(self) -> int:
        """How many syncs there were, failed ones included."""
        return self._state.sync.done

    @property
    def failed_syncs(self) -> int:
        """How many syncs have failed."""
        return self._state.sync.failed

    @property
    def last_failed_sync(self) -> int:
        """Which sync was the last to fail, counted from 1."""
        return self._state.sync.failed_last

    @property
    def writes(self) -> int:
        """How many writes there were, failed ones included."""
        return self._state.write.done

    @property
    def failed_writes(self) -> int:
        """How many writes have failed, or were cut short."""
        return self._state.write.failed

    # Rules for the running process.

    def slow_down(self, sync_ms: float) -> None:
        """Have each sync that begins from now on take at least so long."""
        self._state.sync_us = round(1000 * sync_ms)

    def fail_syncs(self, error: str, count: int = 1, *, spared: int = 0) -> None:
        """Have syncs fail, with EIO or ENOSPC, after so many that are spared."""
        self._arm(self._state.sync, error, count, spared)

    def fail_writes(self, error: str, count: int = FOR_EVER, *, spared: int = 0) -> None:
        """Have writes fail, with EIO or ENOSPC, after so many that are spared."""
        self._arm(self._state.write, error, count, spared)

    def heal(self) -> None:
        """Have nothing fail any more."""
        self._state.sync.failing = self._state.write.failing = 0

    @staticmethod
    def _arm(rule: _Rule, error: str, count: int, spared: int) -> None:
        assert not rule.failing, "heal it first: the process counts down what is set here"
        rule.spared, rule.error = spared, _ERRORS[error]
        rule.failing = count

    # What a power cut finds, once the process is dead.

    def unsynced(self) -> Iterator[Unsynced]:
        """Yield every file that is not on the disk as it was written."""
        notes = {file.inode: file for file in self._state.files if file.inode}
        for path in sorted(self.folder.rglob("*")):
            if not path.is_file() or path.is_symlink():
                continue
            found = path.stat()
            note = notes.get(found.st_ino, _File())
            synced = min(note.synced, found.st_size)
            dropped = (note.dropped_from, min(note.dropped_to, found.st_size))
            if synced < found.st_size or dropped[0] < dropped[1]:
                yield Unsynced(path, synced, found.st_size, dropped)

    def settle(self) -> None:
        """Let everything count as synced that is there."""
        ctypes.memset(self._state.files, 0, ctypes.sizeof(self._state.files))
        for path in self.folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                found = path.stat()
                file = self._note_of(found.st_ino)
                file.inode, file.synced = found.st_ino, found.st_size

    def _note_of(self, inode: int) -> _File:
        for place in range(_FILES):
            file = self._state.files[(inode + place) % _FILES]
            if file.inode in (0, inode):
                return file
        raise AssertionError("too many files")


@functools.cache
def _library() -> Path:
    """Build the library, once in each process."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoCompiler("a faulty disk needs a C compiler (cc, gcc or clang); install one")
    library = Path(_library_folder.name) / "faulty_disk.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, _SOURCE]
    done = subprocess.run([*command, "-ldl"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{_SOURCE.name} does not compile:\n{done.stderr}")
    return library


# Removed when this process ends; what was started with the library has it open.
_library_folder = tempfile.TemporaryDirectory(prefix="riverrun-faulty-disk-")
