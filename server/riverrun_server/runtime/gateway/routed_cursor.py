"""A reader's place in a partition, kept while its leadership moves from broker to broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from riverrun_server.core.errors import Refusal
from riverrun_server.ports.partitions import Chunk, Cursor
from riverrun_server.runtime.gateway.remote_cursor import RemoteCursor
from riverrun_server.runtime.gateway.services import AWAY, MOVED


class Sources(Protocol):
    """Where a cursor reads from: see RoutedPartition."""

    def read_local(self, offset: int, wake: Callable[[], None]) -> Cursor | None:
        """Return a cursor of this broker's replica, where it leads."""
        ...

    def read_remote(
        self, offset: int, last_epoch: int | None, wake: Callable[[], None]
    ) -> RemoteCursor | None:
        """Return a cursor at the leader, where one is known."""
        ...

    def park(self, cursor: RoutedCursor, why: Refusal | None) -> None:
        """Have a cursor `resumed` when there may be a leader to read from."""
        ...

    def arrived(self) -> None:
        """Learn that a cursor has been given something."""
        ...

    def forget(self, cursor: RoutedCursor) -> None:
        """Tell a cursor nothing any more."""
        ...


class RoutedCursor:
    """Implements ports.partitions.Cursor.

    It remembers the leader epoch of the last record read, so that each leader can tell whether its log
    has that record, and says so where it was lost (KIP-320).

    Transitions: resting -> reading here | reading at the leader -> parked, when that is none any more
    -> resting, when there may be another; any -> resting (`seek`, or the leadership moves) | closed.

    Args:
        sources: where it reads from.
        offset: where it begins.
        wake: see ports.partitions.
    """

    def __init__(self, sources: Sources, offset: int, wake: Callable[[], None]) -> None:
        self._sources = sources
        self._wake = wake
        self._position = offset
        self._last_epoch: int | None = None
        self._local: Cursor | None = None
        self._remote: RemoteCursor | None = None
        self._is_parked = False
        self._is_closed = False

    @property
    def position(self) -> int:
        """The next offset to be read."""
        return self._position

    @property
    def reads_ahead(self) -> bool:
        """Whether it reads, or holds something that was not taken yet, from elsewhere than memory."""
        inner = self._local or self._remote
        return inner is not None and inner.reads_ahead

    def in_memory(self, max_bytes: int) -> int | None:
        """Return how many bytes `take` would return from memory; None where it would have to read."""
        if self._is_parked:
            return 0
        try:
            if not self._open():
                return 0
        except Refusal:
            return 0  # which `take` says
        inner = self._local or self._remote
        return None if inner is None else inner.in_memory(max_bytes)

    def take(self, max_bytes: int, *, read_ahead: bool = True) -> Chunk | None:
        """Return the next chunk and move behind it, or None where nothing is ready, or nobody leads."""
        if self._is_parked:
            return None
        if not self._open():
            self._park(None)
            return None
        inner = self._local or self._remote
        assert inner is not None, "it is open"
        try:
            chunk = inner.take(max_bytes, read_ahead=read_ahead)
        except Refusal as refusal:
            if refusal.reason not in (MOVED if self._remote is None else AWAY):
                raise
            self._park(refusal)
            return None
        if chunk is not None:
            self._position = chunk.next_offset
            self._sources.arrived()
            if chunk.batches:
                self._last_epoch = chunk.batches[-1].leader_epoch
        return chunk

    def seek(self, offset: int, leader_epoch: int | None = None) -> None:
        """Go elsewhere; what was being read is dropped."""
        self._drop()
        self._position, self._last_epoch = offset, leader_epoch

    def close(self) -> None:
        """Let go of everything; `wake` is not called again."""
        self._is_closed = True
        self._drop()
        self._sources.forget(self)

    def resumed(self) -> None:
        """Learn that the leadership has moved, or that it is time to ask again."""
        self._drop()
        self._is_parked = False
        if not self._is_closed:
            self._wake()

    def _open(self) -> bool:
        """Begin to read where the leader is; return whether there is one."""
        if self._local is not None or self._remote is not None:
            return True
        self._local = self._sources.read_local(self._position, self._wake)
        if self._local is not None:
            if self._last_epoch is not None:
                self._local.seek(self._position, self._last_epoch)
            return True
        self._remote = self._sources.read_remote(self._position, self._last_epoch, self._wake)
        return self._remote is not None

    def _park(self, why: Refusal | None) -> None:
        self._drop()
        self._is_parked = True
        self._sources.park(self, why)

    def _drop(self) -> None:
        for inner in (self._local, self._remote):
            if inner is not None:
                inner.close()
        self._local = self._remote = None
