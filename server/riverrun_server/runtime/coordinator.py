"""The groups that this broker coordinates: those whose partition of the offsets topic it leads.

What is known of a partition's groups lives as long as one leadership. When another begins, here or
elsewhere, all of it goes: what waits is refused, and is asked anew where the new leader is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.leadership import Leadership, Leaderships
from riverrun_server.ports.threads import Threads
from riverrun_server.runtime.loading_outage import LoadingOutage
from riverrun_server.runtime.offsets_log import OffsetsLog, OffsetsLogSettings


class _Term(NamedTuple):
    """What is known in one leadership."""

    leadership: Leadership
    log: OffsetsLog
    task: asyncio.Task[None]


class Coordinator:
    """The offsets logs of the partitions that are led here.

    Transitions: made -> running (`run`) -> closed (`run` is cancelled).
    Transitions of a partition: away -> led (its log loads, then serves) -> away | led in another
    leadership, with nothing of what was known.

    Args:
        homes: returns the partitions of the offsets topic that are known; nothing else is kept here.
        leaderships: who leads what.
        now_ms: the broker's clock.
        threads: where batches are taken apart.
        exists: tells whether a partition whose offsets are held is still there.
        caught_up: returns once what the metadata said before is known to `exists`.
        dice: spreads what is tried again.
        settings: of the logs.
        changed: called where a partition is led by another, or its offsets are loaded, or cannot be.
    """

    def __init__(
        self,
        homes: Callable[[], Sequence[PartitionId]],
        leaderships: Leaderships,
        now_ms: Callable[[], int],
        threads: Threads,
        exists: Callable[[PartitionId], bool],
        caught_up: Callable[[], Awaitable[None]],
        dice: Dice,
        settings: OffsetsLogSettings,
        changed: Callable[[PartitionId], None],
    ) -> None:
        self._homes = homes
        self._leaderships = leaderships
        self._now_ms = now_ms
        self._threads = threads
        self._exists = exists
        self._caught_up = caught_up
        self._dice = dice
        self._settings = settings
        self._changed = changed
        self._loading = LoadingOutage()
        self._tasks: asyncio.TaskGroup | None = None
        self._terms: dict[PartitionId, _Term] = {}
        self._watched: dict[PartitionId, Callable[[], None]] = {}

    @property
    def entries(self) -> int:
        """How many (group, partition) pairs have an offset that is kept here."""
        return sum(term.log.offsets.count for term in self._terms.values())

    async def run(self) -> None:
        """Load and serve until cancelled; the owner of every task that this starts."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for partition in self._watched:
                    self._look(partition)
                await asyncio.Event().wait()
        finally:
            self._tasks = None
            for unwatch in self._watched.values():
                unwatch()
            self._watched.clear()
            self._terms.clear()

    def serve(self) -> None:
        """Coordinate the groups of every partition that is known now, whenever it is led here."""
        for partition in self._homes():
            if partition not in self._watched:
                look = partial(self._look, partition)
                self._watched[partition] = self._leaderships.watch(partition, look)
                look()

    def commit(
        self,
        home: PartitionId,
        group_id: str,
        records: Sequence[OffsetRecord],
        leader_epoch: int | None = None,
    ) -> asyncio.Future[None]:
        """Store offsets behind those of earlier calls; the future says when they are committed.

        Args:
            home: the group's partition of the offsets topic.
            group_id: the group.
            records: of this group; all are stored, or none.
            leader_epoch: in which the caller believes that this broker leads, where it is another's.

        Raises:
            Refusal: NOT_LEADER; as OffsetsLog.commit.
        """
        return self._led(home, group_id).commit(group_id, list(records), leader_epoch)

    async def committed(
        self, home: PartitionId, group_id: str, leader_epoch: int | None = None
    ) -> Mapping[PartitionId, CommittedOffset]:
        """Return everything that a group has committed.

        Raises:
            Refusal: NOT_LEADER; as OffsetsLog.committed.
        """
        return await self._led(home, group_id).committed(group_id, leader_epoch)

    # Inside.

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
        term = self._terms.get(partition)
        if term is not None and term.leadership == leadership:
            return
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
            log = OffsetsLog(
                leadership.here,
                self._now_ms,
                self._threads,
                self._exists,
                self._caught_up,
                self._loading,
                self._dice,
                self._settings,
                partial(self._changed, partition),
            )
            task = self._tasks.create_task(log.run(), name=f"offsets log {partition.partition}")
            self._terms[partition] = _Term(leadership, log, task)
        self._changed(partition)


def not_serving() -> Refusal:
    """Return the refusal before offsets are served, and after."""
    return Refusal(Reason.NOT_READY, "the broker does not keep offsets yet or any more; ask again")


def _not_led(home: PartitionId, group_id: str, leader: int | None) -> Refusal:
    named = "nobody" if leader is None else f"broker {leader}"
    return Refusal(
        Reason.NOT_LEADER,
        f"this broker does not coordinate group {group_id!r}: the metadata names {named} as the leader "
        f"of {home}",
    )
