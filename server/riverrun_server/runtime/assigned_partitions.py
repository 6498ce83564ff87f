"""The partitions that a group gives a stream and takes away while it runs.

Whoever speaks for the member says so at any time; where a partition begins is found beside the
deliveries of the others; cursors, room and what the reader is told follow between two messages.
Not here: what is told and when (core/reading/assignment), who is given what (the group's coordinator).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups.offsets import CommittedOffset
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.assignment import Assignment, Given
from riverrun_server.core.reading.events import MemberPartition
from riverrun_server.core.reading.places import Place, PlaceKind, Position
from riverrun_server.core.reading.subscription import Subscription
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.runtime.delivery_room import Room
from riverrun_server.runtime.offsets import GroupOffsets
from riverrun_server.runtime.places import position_at, settled
from riverrun_server.runtime.sources import Sources

# Lookups of one stream at once. Most ask for watermarks only, and those of partitions without a leader
# take some ten seconds, for which others should not wait. Lookups by time read the disk.
_LOOKUPS_AT_ONCE = 64
_BY_TIME_AT_ONCE = 8

_Committed: TypeAlias = Mapping[PartitionId, CommittedOffset] | Refusal


class NewPartition(NamedTuple):
    """A partition for a member.

    Attributes:
        access: the partition.
        place: where to begin.
        assignment_epoch: the member's epoch in which it was given.
    """

    access: PartitionAccess
    place: Place
    assignment_epoch: int


class AssignedPartitions:
    """The side of one stream that its member's group changes.

    Every method but `apply` and `close` may be called at any time from another task, also before the
    stream runs; what is said behind its end has no effect.

    Args:
        machine: the stream's subscription.
        sources: its cursors.
        accesses: the partitions that it reads, which this changes.
        room: what the stream holds.
        offsets: what groups have committed.
        group_id: whose offsets they are.
        wake: called when there is something new to do.
        fail: called with an error that is no refusal.
    """

    def __init__(
        self,
        machine: Subscription,
        sources: Sources,
        accesses: dict[PartitionId, PartitionAccess],
        room: Room,
        offsets: GroupOffsets,
        group_id: str,
        wake: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._machine = machine
        self._sources = sources
        self._accesses = accesses
        self._room = room
        self._offsets = offsets
        self._group_id = group_id
        self._wake = wake
        self._fail = fail
        self._assignment = Assignment(machine)
        # Those that the reader does not know of yet, each with the task that finds its place.
        self._coming: dict[PartitionId, tuple[PartitionAccess, asyncio.Task[None]]] = {}
        self._asking: set[asyncio.Task[_Committed]] = set()
        self._lookups = asyncio.Semaphore(_LOOKUPS_AT_ONCE)
        self._by_time = asyncio.Semaphore(_BY_TIME_AT_ONCE)
        # Who waits for what to be told: what is not applied yet, and what is but is not sent.
        self._waiting: list[asyncio.Future[bool]] = []
        self._telling: list[asyncio.Future[bool]] = []
        self._is_stirred = False
        self._is_closed = False

    # What the member's group says.

    def begin(
        self,
        epoch: int,
        partitions: Sequence[NewPartition],
        besides: Sequence[MemberPartition] = (),
    ) -> None:
        """Give a stream the first partitions, and tell its reader at once that these are all it has.

        Args:
            epoch: the member's.
            partitions: what it is given.
            besides: what it has, too, and is to give up.
        """
        if self._is_closed:
            return
        self._assignment.begun(epoch, map(_given, partitions), besides)
        self._wake()
        self.give(epoch, partitions)

    def give(self, epoch: int, partitions: Sequence[NewPartition]) -> None:
        """Read partitions, each once its place is found.

        A partition whose place cannot be found is assigned all the same, fails, and can be sought. One
        that the stream has, or is about to get, must be released or lost first.

        Args:
            epoch: the member's.
            partitions: what it is given.
        """
        if self._is_closed:
            return
        given = [_given(each) for each in partitions]
        self._assignment.given(epoch, given)
        committed = None
        if any(each.place.kind is PlaceKind.COMMITTED for each in partitions):
            asked = self._ask([each.id for each in given])
            committed = asyncio.create_task(asked, name="stream: committed offsets")
            self._asking.add(committed)
            committed.add_done_callback(self._asking.discard)
            committed.add_done_callback(self._done)
        for each, new in zip(given, partitions, strict=True):
            task = asyncio.create_task(self._find(each, new, committed), name="stream: place")
            task.add_done_callback(self._done)
            self._coming[each.id] = (new.access, task)

    def revoke(self, epoch: int, partitions: Collection[PartitionId]) -> list[PartitionId]:
        """Deliver nothing more of partitions, and ask the reader to acknowledge that.

        Returns:
            Those that it has never been given: it is told nothing of them.
        """
        unheard = self._assignment.revoked(epoch, partitions)
        self._taken(partitions)
        return unheard

    def release(self, partitions: Collection[PartitionId]) -> None:
        """Forget partitions that were acknowledged, or of which the reader need not be told."""
        self._assignment.released(partitions)
        self._taken(partitions)

    def lose(self, epoch: int, partitions: Collection[PartitionId]) -> list[PartitionId]:
        """Forget partitions that others may have already, and tell the reader.

        Returns:
            Those that it has never been given: it is told nothing of them.
        """
        unheard = self._assignment.lost(epoch, partitions)
        self._taken(partitions)
        return unheard

    def fence(self) -> None:
        """Deliver nothing from now on: nobody knows whether the member still has its partitions.

        What is being written is finished, and so is what the coordinator has let commit on delivery:
        whoever is given the partition begins behind that.
        """
        self._machine.fenced()

    def unfence(self) -> None:
        """Go on delivering."""
        self._machine.unfenced()
        self._wake()

    async def settled(self) -> bool:
        """Wait until what was revoked, released or lost so far has stopped and the reader was told.

        Returns:
            False where the stream ends before.
        """
        if self._is_closed:
            return False
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._stir()
        return await done

    # What the stream does.

    @property
    def idle(self) -> bool:
        """Whether everything that was given has begun."""
        return not self._assignment.is_coming

    def apply(self) -> bool:
        """Carry out what was said, between two messages; return whether there is something to tell.

        What the calls before have told has been sent by now.
        """
        if not self._is_stirred:
            return False
        self._is_stirred = False
        _answer(self._telling, is_told=True)
        self._telling, self._waiting = self._waiting, []
        applied = self._assignment.apply()
        for partition in (*applied.stopped, *applied.gone):
            self._sources.forget(partition)
            self._room.forget(partition)
        for partition in applied.gone:
            del self._accesses[partition]
        for partition, place in applied.begun:
            access = self._coming.pop(partition)[0]
            self._accesses[partition] = access
            if isinstance(place, Position):
                self._sources.stand(access, place)
        if not self._machine.has_run:
            self._room.hold(self._sources.ahead_bytes)
        if self._telling:
            self._stir()  # they are answered next time
        return True

    async def close(self) -> None:
        """Give up whatever is under way."""
        self._is_closed = True
        tasks = [*self._asking, *(task for _, task in self._coming.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        _answer(self._telling, is_told=False)
        _answer(self._waiting, is_told=False)

    # Places.

    async def _ask(self, partitions: Collection[PartitionId]) -> _Committed:
        try:
            return await self._offsets.committed(self._group_id, partitions)
        except Refusal as refusal:
            return refusal

    async def _find(
        self, given: Given, new: NewPartition, committed: asyncio.Task[_Committed] | None
    ) -> None:
        self._assignment.placed(given, await self._place_of(new, committed))
        self._stir()

    async def _place_of(
        self, new: NewPartition, committed: asyncio.Task[_Committed] | None
    ) -> Position | Refusal:
        place = new.place
        if place.kind is PlaceKind.COMMITTED:
            assert committed is not None, place
            # Shielded: others wait for it too.
            known = await asyncio.shield(committed)
            if isinstance(known, Refusal):
                return known
            place = settled(place, new.access.id, known)
        async with self._by_time if place.kind is PlaceKind.TIME else self._lookups:
            try:
                return await position_at(new.access, place)
            except Refusal as refusal:
                return refusal

    def _taken(self, partitions: Collection[PartitionId]) -> None:
        for partition in partitions:
            if (coming := self._coming.pop(partition, None)) is not None:
                coming[1].cancel()
        self._stir()

    def _done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _stir(self) -> None:
        self._is_stirred = True
        self._wake()


def _given(new: NewPartition) -> Given:
    return Given(new.access.topic, new.access.id, new.assignment_epoch)


def _answer(waiting: Iterable[asyncio.Future[bool]], *, is_told: bool) -> None:
    for each in waiting:
        if not each.done():
            each.set_result(is_told)
