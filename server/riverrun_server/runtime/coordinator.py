"""The groups that this broker coordinates: those whose partition of the offsets topic it leads.

What is known of a partition's groups lives as long as one leadership. When another begins, here or
elsewhere, all of it goes: what waits is refused, and is asked anew where the new leader is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.group import MemberKey
from riverrun_server.core.groups.joining import Reattach
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.coordination import (
    Attached,
    BeatRefused,
    Detached,
    GroupDescription,
    GroupPage,
    GroupQuery,
    Leave,
    MemberBeat,
    MemberCommit,
    MemberEvents,
    MemberName,
    NewMember,
    OffsetRefusals,
    Revoked,
)
from riverrun_server.ports.leadership import Leadership, Leaderships
from riverrun_server.runtime import group_calls, group_operations
from riverrun_server.runtime.call_queue import Act, Call
from riverrun_server.runtime.coordinator_finder import not_serving
from riverrun_server.runtime.coordinator_services import CoordinatorServices
from riverrun_server.runtime.group_turn import refuse
from riverrun_server.runtime.loading_outage import LoadingOutage
from riverrun_server.runtime.offsets_log import OffsetsLog, OffsetsLogSettings

T = TypeVar("T")


class _Term(NamedTuple):
    """What is known in one leadership."""

    leadership: Leadership
    log: OffsetsLog
    task: asyncio.Task[None]


class Coordinator:
    """Implements ports.coordinators.Coordinating, by the logs of the partitions that are led here.

    Transitions: made -> running (`run`) -> closed (`run` is cancelled).
    Transitions of a partition: away -> led (its log loads, then serves) -> away | led in another
    leadership, with nothing of what was known.

    Args:
        homes: returns the partitions of the offsets topic that are known; nothing else is kept here.
        leaderships: who leads what.
        services: what the logs share.
        settings: of the logs.
    """

    def __init__(
        self,
        homes: Callable[[], Sequence[PartitionId]],
        leaderships: Leaderships,
        services: CoordinatorServices,
        settings: OffsetsLogSettings,
    ) -> None:
        self._homes = homes
        self._leaderships = leaderships
        self._services = services
        self._settings = settings
        self._loading = LoadingOutage()
        self._tasks: asyncio.TaskGroup | None = None
        self._terms: dict[PartitionId, _Term] = {}
        self._known: dict[PartitionId, Leadership] = {}
        self._watched: dict[PartitionId, Callable[[], None]] = {}
        # Beats and resets that are under way.
        self._waiting: set[asyncio.Task[object]] = set()

    @property
    def entries(self) -> int:
        """How many (group, partition) pairs have an offset that is kept here."""
        return sum(term.log.partition.offsets.count for term in self._terms.values())

    @property
    def groups(self) -> int:
        """How many groups have members here, or have had some."""
        return sum(len(term.log.partition.groups.registry.groups) for term in self._terms.values())

    @property
    def members(self) -> int:
        """How many members all groups have that are coordinated here."""
        return sum(term.log.partition.groups.registry.members for term in self._terms.values())

    async def run(self) -> None:
        """Load and serve until cancelled; the owner of every task that this starts."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                try:
                    for partition in self._watched:
                        self._look(partition)
                    await asyncio.Event().wait()
                finally:
                    # At once: a group that is ending takes tasks only as long as it has some.
                    self._tasks = None
        finally:
            for unwatch in self._watched.values():
                unwatch()
            self._watched.clear()
            self._terms.clear()
            self._known.clear()

    def serve(self) -> None:
        """Coordinate the groups of every partition that is known now, whenever it is led here."""
        for partition in self._homes():
            if partition not in self._watched:
                look = partial(self._look, partition)
                self._watched[partition] = self._leaderships.watch(partition, look)
                look()

    # Offsets.

    def commit(
        self,
        home: PartitionId,
        group_id: str,
        records: Sequence[OffsetRecord],
        leader_epoch: int | None = None,
    ) -> asyncio.Future[None]:
        """Store offsets for nobody in particular; see the port."""
        act = group_calls.store(group_id, list(records))
        return self._ask(home, group_id, act, leader_epoch, group_calls.size_of(records))

    def commit_for_member(
        self,
        home: PartitionId,
        group_id: str,
        commit: MemberCommit,
        leader_epoch: int | None = None,
    ) -> asyncio.Future[OffsetRefusals]:
        """Store offsets for a member; see the port."""
        act = group_calls.store_for_member(group_id, commit)
        return self._ask(home, group_id, act, leader_epoch, group_calls.size_of(commit.records))

    async def committed(
        self, home: PartitionId, group_id: str, leader_epoch: int | None = None
    ) -> Mapping[PartitionId, CommittedOffset]:
        """Return everything that a group has committed; see the port."""
        return await self._led(home, group_id).committed(group_id, leader_epoch)

    # Members.

    def attach(
        self,
        home: PartitionId,
        group_id: str,
        start: NewMember | Reattach,
        gateway: int,
        events: MemberEvents,
        leader_epoch: int | None = None,
    ) -> asyncio.Future[Attached]:
        """Let a stream speak for a member; see the port."""
        log = self._led(home, group_id)
        done: asyncio.Future[Attached] = asyncio.get_running_loop().create_future()
        act = group_calls.attach(group_id, start, gateway, events, log.feeds, done)
        return log.ask(Call(group_id, act, done=done), leader_epoch)

    def beat(
        self, home: PartitionId, beats: Sequence[MemberBeat], leader_epoch: int | None = None
    ) -> asyncio.Future[Sequence[BeatRefused]]:
        """Take note of members that are alive; see the port."""
        log = self._led(home, beats[0].group_id if beats else "")
        task = asyncio.create_task(log.beat(beats, leader_epoch), name="beats of members")
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return task

    def revoked(
        self, home: PartitionId, group_id: str, revoked: Revoked, leader_epoch: int | None = None
    ) -> asyncio.Future[None]:
        """Take from a member what it has given up; see the port."""
        return self._ask(home, group_id, group_calls.revoked(group_id, revoked), leader_epoch)

    def leave(
        self, home: PartitionId, group_id: str, leave: Leave, leader_epoch: int | None = None
    ) -> asyncio.Future[None]:
        """Let a member go; see the port."""
        return self._ask(home, group_id, group_calls.leave(group_id, leave), leader_epoch)

    def detached(
        self, home: PartitionId, group_id: str, detached: Detached, leader_epoch: int | None = None
    ) -> asyncio.Future[None]:
        """Take note that the stream of a member has ended without a leave; see the port."""
        feeds = self._led(home, group_id).feeds
        # Nothing is told from now on, whenever the machine comes to hear of it.
        feeds.close(MemberKey(group_id, detached.member_id), detached.attachment)
        return self._ask(home, group_id, group_calls.detached(group_id, detached), leader_epoch)

    # Groups.

    def describe(
        self, home: PartitionId, group_id: str, leader_epoch: int | None = None
    ) -> asyncio.Future[GroupDescription]:
        """Tell everything about a group but its offsets; see the port."""
        feeds = self._led(home, group_id).feeds
        return self._ask(home, group_id, group_operations.describe(group_id, feeds), leader_epoch)

    def list_groups(
        self, home: PartitionId, query: GroupQuery, leader_epoch: int | None = None
    ) -> asyncio.Future[GroupPage]:
        """List groups of one partition of the offsets topic; see the port."""
        return self._ask(home, "", group_operations.list_groups(query), leader_epoch)

    def remove_member(
        self, home: PartitionId, group_id: str, name: MemberName, leader_epoch: int | None = None
    ) -> asyncio.Future[str]:
        """Throw a member out; see the port."""
        return self._ask(
            home, group_id, group_operations.remove_member(group_id, name), leader_epoch
        )

    def delete_group(
        self, home: PartitionId, group_id: str, leader_epoch: int | None = None
    ) -> asyncio.Future[None]:
        """Delete a group that has no members; see the port."""
        call = Call(group_id, group_operations.delete_group(group_id), knows_offsets=True)
        return self._led(home, group_id).ask(call, leader_epoch)

    def reset_offsets(
        self,
        home: PartitionId,
        group_id: str,
        records: Sequence[OffsetRecord],
        within_s: float,
        leader_epoch: int | None = None,
    ) -> asyncio.Future[None]:
        """Make a group go on elsewhere; see the port."""
        log = self._led(home, group_id)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        act = group_operations.reset_offsets(group_id, list(records), within_s, log.resets, done)
        held = log.ask(Call(group_id, act, group_calls.size_of(records)), leader_epoch)

        def refused(held: asyncio.Future[None]) -> None:
            if not held.cancelled() and (error := held.exception()) is not None:
                refuse(done, error)

        held.add_done_callback(refused)
        # A caller that has gone wants nothing held any longer.
        done.add_done_callback(lambda _: log.stir())
        return done

    # Inside.

    def _ask(
        self,
        home: PartitionId,
        group_id: str,
        act: Act[T],
        leader_epoch: int | None,
        size_bytes: int = 0,
    ) -> asyncio.Future[T]:
        return self._led(home, group_id).ask(Call(group_id, act, size_bytes), leader_epoch)

    def _led(self, home: PartitionId, group_id: str) -> OffsetsLog:
        if self._tasks is None:
            raise not_serving()
        if home not in self._watched:
            self.serve()
        if home in self._watched:
            # Whoever is told late is told here.
            self._look(home)
        term = self._terms.get(home)
        if term is None:
            raise _not_led(home, group_id, self._leaderships.of(home).leader)
        return term.log

    def _look(self, partition: PartitionId) -> None:
        """Begin a term, end it, or both, where the leadership is another one."""
        leadership = self._leaderships.of(partition)
        if self._known.get(partition) == leadership:
            return
        if self._tasks is not None:
            self._known[partition] = leadership
        term = self._terms.get(partition)
        if term is not None:
            del self._terms[partition]
            term.log.end(
                Refusal(
                    Reason.NOT_LEADER,
                    f"this broker's leadership of {partition} in epoch "
                    f"{term.leadership.leader_epoch} is over; the offsets were not stored, ask again",
                )
            )
            term.task.cancel()
        if leadership.here is not None and self._tasks is not None:
            log = OffsetsLog(leadership.here, self._services, self._loading, self._settings)
            task = self._tasks.create_task(log.run(), name=f"offsets log {partition.partition}")
            self._terms[partition] = _Term(leadership, log, task)
        self._services.changed(partition)


def _not_led(home: PartitionId, group_id: str, leader: int | None) -> Refusal:
    named = "nobody" if leader is None else f"broker {leader}"
    return Refusal(
        Reason.NOT_LEADER,
        f"this broker does not coordinate group {group_id!r}: the metadata names {named} as the leader "
        f"of {home}",
    )
