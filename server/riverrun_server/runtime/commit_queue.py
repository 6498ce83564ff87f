"""Commits that wait for the offsets log, and the batches that they are gathered into."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from riverrun.v1.records_pb2 import Record
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import CommittedOffsets, OffsetRecord
from riverrun_server.wire.group_records import packed_bytes, to_record


@dataclass(slots=True, eq=False)
class _Commit:
    """The records of one call, which stay together in one batch: all are stored or none."""

    group_id: str
    records: list[OffsetRecord]
    packed: list[Record]
    size_bytes: int
    done: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class OffsetsBatch:
    """What is appended at once.

    Attributes:
        records: in the order of the log.
        packed: the same, as they are appended.
    """

    records: list[OffsetRecord] = field(default_factory=list)
    packed: list[Record] = field(default_factory=list)
    _commits: list[_Commit] = field(default_factory=list)
    _size_bytes: int = 0

    def add(self, commit: _Commit) -> None:
        """Add the records of a commit."""
        self._commits.append(commit)
        self.records += commit.records
        self.packed += commit.packed
        self._size_bytes += commit.size_bytes

    def fill(self, stale: Sequence[OffsetRecord], limit_bytes: int) -> None:
        """Add records that a rewrite appends again, as far as they fit.

        Those that a commit in this batch replaces are left out: an old value behind a new one
        would bring the old one back.
        """
        changing = {(record.group_id, record.partition) for record in self.records}
        for record in stale:
            if (record.group_id, record.partition) in changing:
                continue
            again = to_record(record)
            self._size_bytes += packed_bytes([again])
            if self._size_bytes > limit_bytes and self.records:
                return
            self.records.append(record)
            self.packed.append(again)

    def succeed(self) -> None:
        """Answer every commit: it is stored."""
        for commit in self._commits:
            if not commit.done.done():
                commit.done.set_result(None)

    def fail(self, refusal: Refusal) -> None:
        """Answer every commit: it is not stored, or nobody knows."""
        for commit in self._commits:
            _fail(commit, refusal)


class CommitQueue:
    """Commits in the order in which they came.

    Args:
        waiting_max: how many may wait.
        batch_bytes: what a batch aims at; one commit alone may be larger.
    """

    def __init__(self, waiting_max: int, batch_bytes: int) -> None:
        self._waiting: deque[_Commit] = deque()
        self._waiting_max = waiting_max
        self._batch_bytes = batch_bytes
        self._closed: Refusal | None = None

    def put(
        self, group_id: str, records: list[OffsetRecord], max_bytes: int
    ) -> asyncio.Future[None]:
        """Let a commit wait for its turn; the future says when it is stored, or why not.

        Raises:
            Refusal: OVERLOADED; LIMIT_EXCEEDED for one that fits no batch; why it was closed.
        """
        if self._closed is not None:
            raise again(self._closed)
        if len(self._waiting) >= self._waiting_max:
            raise Refusal(
                Reason.OVERLOADED,
                f"{len(self._waiting)} commits wait for the offsets log of group {group_id!r} and "
                "no more may; commit less often, or again after a moment",
            )
        packed = [to_record(record) for record in records]
        size = packed_bytes(packed)
        if size > max_bytes:
            raise Refusal(
                Reason.LIMIT_EXCEEDED,
                f"the offsets of this commit take {size} bytes and {max_bytes} are allowed; split "
                "it, or use shorter metadata",
            )
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Commit(group_id, records, packed, size, done))
        return done

    def gather(
        self, offsets: CommittedOffsets, stale: Sequence[OffsetRecord]
    ) -> OffsetsBatch | None:
        """Return what goes into the next batch, or None where nothing does.

        Commits for which there is no room in memory fail here, where everything before them is
        known.
        """
        batch = OffsetsBatch()
        packed = entries = size = 0
        while self._waiting:
            commit = self._waiting[0]
            if packed and packed + commit.size_bytes > self._batch_bytes:
                break
            self._waiting.popleft()
            if commit.done.done():
                continue
            more_entries, more_bytes = offsets.growth(commit.records)
            try:
                offsets.check_room(commit.group_id, entries + more_entries, size + more_bytes)
            except Refusal as refusal:
                _fail(commit, refusal)
                continue
            entries, size = entries + more_entries, size + more_bytes
            packed += commit.size_bytes
            batch.add(commit)
        batch.fill(stale, self._batch_bytes)
        return batch if batch.records else None

    def refuse(self, why: Callable[[str], Refusal]) -> None:
        """Fail what waits with a reason for its group; nothing of it was stored."""
        while self._waiting:
            commit = self._waiting.popleft()
            _fail(commit, why(commit.group_id))

    def close(self, why: Refusal) -> None:
        """Fail what waits, and whatever comes from now on; nothing of it was stored."""
        self._closed = why
        self.refuse(lambda _: again(why))


def again(refusal: Refusal) -> Refusal:
    """Return another one that says the same: one that is raised twice collects both tracebacks."""
    return Refusal(refusal.reason, refusal.message)


def _fail(commit: _Commit, refusal: Refusal) -> None:
    if not commit.done.done():
        commit.done.set_exception(refusal)
        # Its caller may be gone; nobody else has to hear of it.
        commit.done.exception()
