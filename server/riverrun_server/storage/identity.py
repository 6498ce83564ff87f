"""Who a data directory is: its format, its broker and cluster, its two incarnations, its lock."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from riverrun_server.ports.clock import Dice
from riverrun_server.ports.log import StorageFailed
from riverrun_server.storage.durable_file import replace_file
from riverrun_server.storage.rocks_errors import translated

NAME: Final = "identity.json"
LOCK: Final = "lock"
FORMAT_VERSION: Final = 1
INCARNATION_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """What a data directory says of itself.

    Attributes:
        cluster_id: empty until the broker has joined a cluster that has a name.
        broker_id: the only broker that may use it.
        fsync: the incarnation that counts for topics whose writes are synced; new when the store
            was found to have lost any.
        relaxed: the one for topics with `fsync` relaxed; new also after every stop that was not
            clean.
    """

    broker_id: int
    fsync: bytes
    relaxed: bytes
    cluster_id: str = ""

    @classmethod
    def new(cls, broker_id: int, cluster_id: str, dice: Dice) -> Identity:
        """Return the identity of a data directory that begins empty."""
        return cls(
            broker_id,
            dice.token(INCARNATION_BYTES),
            dice.token(INCARNATION_BYTES),
            cluster_id,
        )

    def reborn(self, dice: Dice, *, intact: bool) -> Identity:
        """Return what it becomes after a stop that was not clean."""
        fsync = self.fsync if intact else dice.token(INCARNATION_BYTES)
        return replace(self, fsync=fsync, relaxed=dice.token(INCARNATION_BYTES))


class DirectoryLock:
    """One process at a time; the kernel lets go when the process ends, however it ends.

    Args:
        folder: the data directory.

    Raises:
        StorageFailed: another process has it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        with translated(f"locking {folder}"):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise StorageFailed(
                f"the data directory {folder} is in use by another broker (process "
                f"{holder or 'unknown'}); stop it, or give this one --data-dir DIR and --listen "
                "HOST:PORT of its own"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process have the directory."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


def check_free(folder: Path) -> None:
    """Fail where another process has a data directory now; one that is not there is free.

    Raises:
        StorageFailed: another process has it.
    """
    if (folder / LOCK).exists():
        DirectoryLock(folder).release()


def read_identity(folder: Path, broker_id: int, cluster_id: str) -> Identity | None:
    """Return who a data directory is, None where it is new.

    Raises:
        StorageFailed: it is damaged, of a newer format, or belongs to somebody else.
    """
    path = folder / NAME
    with translated(f"reading {path}"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
    version, identity = _parse(path, data)
    if version > FORMAT_VERSION:
        raise StorageFailed(
            f"{folder} has format version {version}, this broker knows {FORMAT_VERSION} at most; "
            "run the version that wrote it or a newer one"
        )
    if identity is None:
        raise StorageFailed(f"{path} makes no sense; restore it from a backup")
    if identity.broker_id != broker_id:
        raise StorageFailed(
            f"{folder} belongs to broker {identity.broker_id}, this is broker {broker_id}; set "
            "broker_id or the data directory right"
        )
    if cluster_id and identity.cluster_id and cluster_id != identity.cluster_id:
        raise StorageFailed(
            f"{folder} belongs to cluster {identity.cluster_id!r}, this broker is to join "
            f"{cluster_id!r}; set the cluster or the data directory right"
        )
    return replace(identity, cluster_id=identity.cluster_id or cluster_id)


def write_identity(folder: Path, identity: Identity) -> None:
    """Replace what a data directory says of itself; on the disk when this returns.

    Raises:
        StorageError: the old one is still there.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "cluster_id": identity.cluster_id,
        "broker_id": identity.broker_id,
        "incarnations": {"fsync": identity.fsync.hex(), "relaxed": identity.relaxed.hex()},
    }
    replace_file(folder / NAME, json.dumps(content, indent=2).encode() + b"\n")


def _parse(path: Path, data: bytes) -> tuple[int, Identity | None]:
    """Return the format version, and the identity where it makes sense in ours."""
    try:
        content = json.loads(data)
        version = int(content["format_version"])
    except (ValueError, KeyError, TypeError):
        raise StorageFailed(f"{path} names no format version; restore it from a backup") from None
    try:
        lives = content["incarnations"]
        identity = Identity(
            int(content["broker_id"]),
            bytes.fromhex(lives["fsync"]),
            bytes.fromhex(lives["relaxed"]),
            str(content.get("cluster_id", "")),
        )
    except (ValueError, KeyError, TypeError):
        return version, None
    whole = {len(identity.fsync), len(identity.relaxed)} == {INCARNATION_BYTES}
    return version, identity if whole else None
