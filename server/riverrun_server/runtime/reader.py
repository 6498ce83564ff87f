"""One stream of deliveries, driven: cursors in, messages out, control in between.

One task writes, and reads from a cursor only when what it reads is to be written next; so a
subscriber that never reads holds one message and one chunk, whatever there is.

Not here: what is sent next (core/reading/subscription), cursors (runtime/sources), what the reader
says (runtime/reader_control), what its group gives and takes away (runtime/assigned_partitions), what
messages look like (wire/forms), where requests come from (rpc/subscribe).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups.commits import OffsetCommit
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.events import (
    CommitOutcome,
    Delivery,
    Event,
    GoingAway,
    Joined,
    PartitionFailed,
    Started,
)
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import Position, ResetPolicy
from riverrun_server.core.reading.subscription import Subscription
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.partitions import Directory, PartitionAccess
from riverrun_server.ports.threads import Threads
from riverrun_server.runtime.assigned_partitions import AssignedPartitions
from riverrun_server.runtime.delivery_room import Room, unlimited
from riverrun_server.runtime.heartbeats import Heartbeats
from riverrun_server.runtime.offsets import GroupOffsets
from riverrun_server.runtime.reader_control import ReaderControl, StoreOffsets
from riverrun_server.runtime.sources import Sources
from riverrun_server.wire.deliveries import ErrorWriter
from riverrun_server.wire.forms import Form

_RECONNECT_AFTER_S = 1.0
# What is read, and the message that is made of it.
_COPIES = 2


@dataclass(frozen=True, slots=True)
class ReadingServices:
    """What all readers of a broker share.

    Attributes:
        directory: finds partitions.
        offsets: the committed offsets of groups.
        threads: where large and compressed batches are taken apart.
        limits: the bounds of reading.
        write_error: makes the public Error of a refusal.
        dice: when in its first interval a stream's heartbeat comes.
    """

    directory: Directory
    offsets: GroupOffsets
    threads: Threads
    limits: ReadingLimits
    write_error: ErrorWriter
    dice: Dice


class Reader:
    """Drives one subscription.

    Transitions: started -> delivering <-> waiting -> ended (the machine says so, or the broker
    goes away); cancelled at any time by the end of the call.

    Args:
        services: what all readers share.
        machine: the subscription; nothing is assigned to it yet.
        accesses: the partitions to be read; a member has none, and is `assigned` some.
        form: how deliveries look.
        write: sends one message and returns when the transport has taken it.
        group_id: whose offsets are committed; empty where there is no group.
        commit_on_delivery: store each position before its delivery is sent.
        store: where commits go, in a member's name; else to the group as such.
        room: for what is read and not sent yet; nothing is read before there is some.
    """

    def __init__(
        self,
        services: ReadingServices,
        machine: Subscription,
        accesses: Sequence[PartitionAccess],
        form: Form,
        write: Callable[[bytes], Awaitable[None]],
        *,
        group_id: str = "",
        commit_on_delivery: bool = False,
        store: StoreOffsets | None = None,
        room: Room | None = None,
    ) -> None:
        self._services = services
        self._room = room or unlimited()
        self._machine = machine
        self._form = form
        self._write = write
        self._group_id = group_id
        self._store = store or self._store_for_group
        self._commit_on_delivery = commit_on_delivery
        self._accesses = {access.id: access for access in accesses}
        self._wake = asyncio.Event()
        self._sources = Sources(form, services.threads, services.limits, self._woke)
        self.control = ReaderControl(
            machine,
            self._sources,
            self._accesses,
            services.directory,
            services.offsets,
            self._store,
            group_id,
            services.limits,
            self._wake.set,
        )
        self.assigned = AssignedPartitions(
            machine,
            self._sources,
            self._accesses,
            self._room,
            services.offsets,
            group_id,
            self._wake.set,
            self.fail,
        )
        self.heartbeats = Heartbeats(services.dice, machine, self._accesses, self._wake.set)
        self._leaving: str | None = None
        self._is_over = False
        self._failure: BaseException | None = None

    def leave(self, reason: str) -> None:
        """End the stream in order, with a GoingAway."""
        self._leaving = reason
        self._wake.set()

    def tell(self, event: Event) -> None:
        """Tell the reader something, between two messages."""
        self._machine.events.append(event)
        self._wake.set()

    def end(self) -> None:
        """End the stream without another word, once what there is to tell is told."""
        self._is_over = True
        self._wake.set()

    def fail(self, error: BaseException) -> None:
        """End the stream with an error that came up beside it."""
        self._failure = error
        self._wake.set()

    async def run(
        self,
        places: Sequence[Position | Refusal],
        missing: Sequence[PartitionFailed] = (),
        joined: Joined | None = None,
    ) -> None:
        """Deliver until the stream ends.

        Args:
            places: where each of the accesses begins, in order, or why nobody can say.
            missing: what was asked for and is not there, for the reader to hear of.
            joined: the member that the stream speaks for.

        Raises:
            Refusal: the stream cannot do what was asked, or the reader broke its rules.
        """
        started = [place for place in places if isinstance(place, Position)]
        try:
            usual_s = self._services.limits.heartbeat_interval_s
            interval_s = usual_s if joined is None else joined.heartbeat_interval_s
            await self._send(Started(started, interval_s, joined))
            for position in started:
                self._sources.stand(self._accesses[position.id], position)
            self._machine.events.extend(missing)
            self._machine.assigned(started)
            for access, place in zip(self._accesses.values(), places, strict=True):
                if isinstance(place, Refusal):
                    self._machine.failed_to_start(access.topic, access.id, place)
            self.heartbeats.begin(interval_s)
            await self._deliver_all()
        finally:
            self._sources.close()
            self._room.close()
            await self.assigned.close()
            await self.heartbeats.close()
            await self.control.close()

    async def _deliver_all(self) -> None:
        while True:
            # Whatever wakes from here on is looked at in the next round.
            self._wake.clear()
            while self._machine.events:
                await self._send(self._machine.events.popleft())
            if self.heartbeats.is_due:
                # Behind the events: it speaks of partitions that the reader has heard of.
                await self._send(await self.heartbeats.next())
            if await self._is_told_to_end():
                return
            if self.assigned.apply():
                continue
            if await self.control.obey_next():
                self._forget_what_rests()
                continue
            partition = self._machine.turn()
            if partition is not None:
                await self._deliver_from(partition)
            elif self._ended():
                return
            else:
                self._withdraw()
                await self._wake.wait()

    async def _is_told_to_end(self) -> bool:
        """Return whether something beside the stream has ended it.

        Raises:
            BaseException: that has failed.
        """
        if self._failure is not None:
            raise self._failure
        if self._leaving is not None and not self._is_over:
            await self._send(GoingAway(_RECONNECT_AFTER_S, self._leaving))
            return True
        return self._is_over

    def _ended(self) -> bool:
        """Return whether the stream has come to its end.

        Raises:
            Refusal: it has, and could not do what was asked.
        """
        end = self._machine.end()
        if end is None or self._machine.events or not self.control.idle:
            return False
        if not self.assigned.idle and not self._machine.is_exhausted:
            return False
        if end.refusal is not None:
            raise end.refusal
        return True

    # Delivering.

    async def _deliver_from(self, partition: PartitionId) -> None:
        machine = self._machine
        if not machine.has_run:
            limit, room = self._found_room(partition)
            if not limit:
                return
            reading = machine.partitions[partition]
            try:
                run = await self._sources.next_run(
                    reading,
                    limit,
                    machine.waiting,
                    room,
                    # Who goes on reading ahead keeps its room until it has caught up.
                    read_ahead=not self._room.others_first,
                )
            except Refusal as refusal:
                self._room.hold(self._sources.ahead_bytes)
                await self._refused(partition, refusal)
                return
            if run is None:
                self._room.hold(self._sources.ahead_bytes)
                machine.idle(partition)
                return
            machine.offered(partition, run)
            if machine.is_fenced:
                return  # since it began to read
        delivery = machine.cut()
        if self._commit_on_delivery and not await self._commit_ahead(delivery):
            return
        for frame in self._form.frames(delivery):
            await self._write(frame)
        machine.delivered(delivery)
        if machine.partitions[partition].finished:
            # The end may stand within a chunk, and the next one is another partition's.
            self._sources.drop_chunk(partition)
        if not machine.has_run:
            self._room.hold(self._sources.ahead_bytes)

    def _found_room(self, partition: PartitionId) -> tuple[int, int]:
        """Take room for what is read next of a partition; return how much may be read, and the room.

        Where there is none for a whole message there may be some for one batch, and who keeps up goes
        on with little; else others go first, and 0 is returned.
        """
        sources, limit = self._sources, self._machine.room_bytes()
        self._room.claim(partition)
        if sources.has_chunk:
            return limit, 0
        if (room := sources.room_of(partition)) is not None:
            return min(limit, max(1, room // _COPIES)), room
        largest = self._accesses[partition].max_batch_bytes
        message, one_batch = _COPIES * max(largest, limit), _COPIES * largest
        little = self._services.limits.crowded_bytes
        found = (0, 0)
        if self._room.hold(sources.ahead_bytes + message, one_batch=message == one_batch):
            found = (limit, message)
        elif self._room.hold(sources.ahead_bytes + one_batch, one_batch=True):
            found = (min(limit, largest), one_batch)
        elif sources.in_memory(partition, little):
            found = (min(limit, little), 0)
        if found[0]:
            self._room.forget(partition)
            return found
        # In this order: whoever waits may be given room, and its turn back, at once.
        self._machine.passed_over(partition)
        self._room.hold(sources.ahead_bytes)
        self._room.wait(partition, one_batch, partial(self._woke, partition))
        return found

    def _forget_what_rests(self) -> None:
        """Wait for no room for partitions that are paused or have stopped, and keep none for them."""
        for partition, reading in self._machine.partitions.items() if self._room.partitions else ():
            if not reading.flows:
                self._room.forget(partition)
        if not self._machine.has_run:
            self._room.hold(self._sources.ahead_bytes)

    def _withdraw(self) -> None:
        """Give back what was granted while nothing may be sent; with new credit all ask again."""
        for partition in self._room.withdraw():
            self._machine.woke(partition)

    async def _refused(self, partition: PartitionId, refusal: Refusal) -> None:
        self._sources.drop(partition)
        policy = self._machine.refused(partition, refusal)
        if policy is ResetPolicy.ERROR:
            return
        access = self._accesses[partition]
        try:
            marks = await access.watermarks()
        except Refusal as other:
            self._machine.stopped(partition, other)
            return
        start, high_watermark = marks.log_start_offset, marks.high_watermark
        offset = start if policy is ResetPolicy.EARLIEST else high_watermark
        position = Position(access.topic, partition, offset, high_watermark, start)
        self._sources.stand(access, position)
        self._machine.reset(position, refusal)

    async def _store_for_group(
        self, commits: Sequence[OffsetCommit], epoch: int | None
    ) -> list[CommitOutcome]:
        """Store offsets in nobody's name; who reads without a group needs no store of them."""
        del epoch  # nobody's
        return await self._services.offsets.commit(self._group_id, commits)

    async def _commit_ahead(self, delivery: Delivery) -> bool:
        """Store the position behind a delivery that is about to be sent, or stop its partition.

        Before, not after: a broker that failed in between would deliver the same records twice.
        """
        epoch = delivery.leader_epoch if delivery.pieces else None
        commit = OffsetCommit("", *delivery.id, delivery.next_offset, epoch)
        try:
            outcomes = await self._store([commit], None)
            failure = outcomes[0].refusal
        except Refusal as refusal:
            failure = refusal
        if failure is None:
            # Fenced meanwhile, it is sent all the same: whoever is next begins behind it.
            return True
        self._sources.drop(delivery.id)
        self._machine.stopped(delivery.id, failure)
        return False

    # Messages.

    async def _send(self, event: Event) -> None:
        if isinstance(event, PartitionFailed) and self._form.bare:
            raise event.refusal
        frame = self._form.event(event, self._services.write_error)
        if frame is not None:
            await self._write(frame)

    # What wakes the stream.

    def _woke(self, partition: PartitionId) -> None:
        self._machine.woke(partition)
        self._wake.set()
