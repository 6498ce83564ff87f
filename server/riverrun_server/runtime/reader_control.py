"""What the reader of a stream says after the start, obeyed one by one between two messages.

That is why nothing from an old position can follow SeekDone. What concerns one partition and cannot
be done fails that partition only; the reader hears of it by a PartitionError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias, assert_never

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import OffsetCommit
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.control import (
    Broken,
    Commit,
    Control,
    Grant,
    HalfClosed,
    PartitionName,
    Pause,
    Resume,
    Seek,
)
from riverrun_server.core.reading.events import CommitDone, CommitOutcome, PartitionFailed
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import PlaceKind, Position
from riverrun_server.core.reading.subscription import Subscription
from riverrun_server.ports.partitions import Directory, PartitionAccess
from riverrun_server.runtime.offsets import GroupOffsets
from riverrun_server.runtime.places import position_at, settled
from riverrun_server.runtime.sources import Sources

# Stores how far the stream's group has come, as of an epoch of the member; an outcome for each, in order.
StoreOffsets: TypeAlias = Callable[
    [Sequence[OffsetCommit], int | None], Awaitable[list[CommitOutcome]]
]


class ReaderControl:
    """The control side of one stream.

    Args:
        machine: the stream's subscription.
        sources: its cursors.
        accesses: the partitions that it reads.
        directory: finds partitions by the names that the reader uses.
        offsets: what groups have committed.
        store: where commits go.
        group_id: whose offsets they are; empty where there is no group.
        limits: how much may wait.
        wake: called when there is something new to do or to say.
    """

    def __init__(
        self,
        machine: Subscription,
        sources: Sources,
        accesses: Mapping[PartitionId, PartitionAccess],
        directory: Directory,
        offsets: GroupOffsets,
        store: StoreOffsets,
        group_id: str,
        limits: ReadingLimits,
        wake: Callable[[], None],
    ) -> None:
        self._machine = machine
        self._sources = sources
        self._accesses = accesses
        self._directory = directory
        self._offsets = offsets
        self._store = store
        self._group_id = group_id
        self._wake = wake
        self._commits_max = limits.commits_waiting
        waiting = limits.member_control_waiting if machine.is_member else limits.control_waiting
        self._queue: asyncio.Queue[Control] = asyncio.Queue(waiting)
        self._commits: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        """Whether no commit is under way."""
        return not self._commits

    async def say(self, control: Control) -> None:
        """Take what the reader says, waiting while too much waits to be obeyed."""
        await self._queue.put(control)
        self._wake()

    def commit(self, commit: Commit, at_once_max: int) -> None:
        """Begin with a commit at once, whatever waits; refuse it where too many are under way.

        A member may have closed its ears, busy with what it has, and still has to commit that.
        """
        if len(self._commits) < at_once_max:
            self._begin_to_commit(commit)
            return
        refusal = Refusal(
            Reason.OVERLOADED,
            f"{len(self._commits)} commits of this stream wait for an answer and no more may; wait for one "
            "of them, or commit less often",
        )
        self._machine.events.append(CommitDone(commit.commit_id, _all_refused(commit, refusal)))
        self._wake()

    async def committed(self) -> None:
        """Wait until the commits that have been begun are answered."""
        if self._commits:
            await asyncio.wait([*self._commits])

    async def close(self) -> None:
        """Give up the commits under way: nobody is left to be told what became of them."""
        for commit in self._commits:
            commit.cancel()
        await asyncio.gather(*self._commits, return_exceptions=True)

    async def obey_next(self) -> bool:
        """Obey what was said next; return whether there was something.

        While too many commits wait to become durable, what is said after them waits behind them.

        Raises:
            Refusal: the reader broke the rules of the stream.
        """
        if self._queue.empty() or len(self._commits) >= self._commits_max:
            return False
        control = self._queue.get_nowait()
        match control:
            case Grant(records, size_bytes):
                self._machine.granted(records, size_bytes)
            case Seek():
                await self._seek(control)
            case Pause(names):
                dropped = self._machine.paused(self._read(names))
                if dropped is not None:
                    self._stand(self._machine.partitions[dropped].position)
            case Resume(names):
                self._machine.resumed(self._read(names))
            case Commit():
                self._begin_to_commit(control)
            case HalfClosed():
                self._machine.half_closed()
            case Broken(refusal):
                raise refusal
            case _:
                assert_never(control)
        return True

    async def _seek(self, seek: Seek) -> None:
        for partition in self._read([seek.name], seek.seek_id):
            try:
                position = await self._position(partition, seek)
            except Refusal as refusal:
                self._sources.drop(partition)
                self._machine.stopped(partition, refusal, seek.seek_id)
            else:
                self._stand(position)
                self._machine.sought(seek.seek_id, position)

    async def _position(self, partition: PartitionId, seek: Seek) -> Position:
        place = seek.place
        if isinstance(place, Refusal):
            raise place
        if place.kind is PlaceKind.COMMITTED:
            committed = await self._offsets.committed(self._group_id, [partition])
            place = settled(place, partition, committed)
        return await position_at(self._accesses[partition], place)

    def _stand(self, position: Position) -> None:
        self._sources.stand(self._accesses[position.id], position)

    def _read(self, names: Sequence[PartitionName], seek_id: int = 0) -> list[PartitionId]:
        """Return those of the partitions that this stream reads; the reader hears of the others."""
        if not names:
            return list(self._machine.partitions)
        found = []
        for name in names:
            try:
                found.append(self._read_one(name))
            except Refusal as refusal:
                self._machine.events.append(PartitionFailed(*name, refusal, seek_id))
        return found

    def _read_one(self, name: PartitionName) -> PartitionId:
        access = self._directory.partition(*name)
        reading = self._machine.partitions.get(access.id)
        if reading is not None and not reading.revoked:
            return access.id
        what = f"partition {name.partition} of {access.topic!r}"
        if self._machine.is_member:
            raise Refusal(
                Reason.PARTITION_NOT_ASSIGNED,
                f"{what} is not assigned to this member, or not any more; what the stream said last "
                "of its assignment holds",
            )
        raise Refusal(
            Reason.INVALID_REQUEST, f"the stream does not read {what}; name it in `start`"
        )

    def _begin_to_commit(self, commit: Commit) -> None:
        task = asyncio.create_task(self._commit(commit), name="stream: commit")
        self._commits.add(task)
        task.add_done_callback(self._committed)

    async def _commit(self, commit: Commit) -> None:
        offsets = commit.offsets
        try:
            self._check_group()
            outcomes = await self._store(offsets, commit.epoch)
        except Refusal as refusal:
            outcomes = _all_refused(commit, refusal)
        self._machine.events.append(CommitDone(commit.commit_id, outcomes))

    def _check_group(self) -> None:
        if not self._group_id:
            raise Refusal(
                Reason.INVALID_REQUEST,
                "the stream was started without a group and cannot commit; set `group_id` in "
                "`start`, or use CommitOffset",
            )

    def _committed(self, task: asyncio.Task[None]) -> None:
        self._commits.discard(task)
        self._wake()


def _all_refused(commit: Commit, refusal: Refusal) -> list[CommitOutcome]:
    return [
        CommitOutcome(each.topic, each.topic_id, each.partition, refusal) for each in commit.offsets
    ]
