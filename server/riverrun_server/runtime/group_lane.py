"""The commits of one group at one broker: in the order in which they came, also where some are tried again.

What has come is sent together, in order, and answered before what comes meanwhile is sent. What is to
be tried again is sent before what is newer; of it, what a newer commit has replaced is left out. So the
last of several commits is what is found afterwards, whichever of them had to be tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import OffsetRecord
from riverrun_server.core.groups.search import CoordinatorSearch
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.coordination import OffsetRefusals
from riverrun_server.ports.gateways import Origin
from riverrun_server.ports.membership import Committer
from riverrun_server.runtime.offsets_appends import shutting_down, unknown


@dataclass(slots=True, eq=False)
class GroupCommit:
    """One call's commit.

    Attributes:
        records: what is still to be stored.
        origin: who asks.
        search: when it is tried again.
        committer: the member that commits; None is nobody in particular.
        done: ends once all that counts is stored, or replaced; has why others did not count.
        is_sent: it was tried, and something may have come of it.
        is_stored: all that is left of `records` is committed.
    """

    records: list[OffsetRecord]
    origin: Origin
    search: CoordinatorSearch
    committer: Committer | None = None
    done: asyncio.Future[OffsetRefusals] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    is_sent: bool = False
    is_stored: bool = False

    @property
    def keys(self) -> list[tuple[str, PartitionId]]:
        """What a later commit replaces that has the same."""
        who = "" if self.committer is None else self.committer.member_id
        return [(who, record.partition) for record in self.records]

    def stored(self, refused: OffsetRefusals) -> None:
        """Answer it well: all that is not refused is stored."""
        self.is_stored = True
        # Nothing replaces an older commit but what is stored.
        self.records = [each for each in self.records if each.partition not in refused]
        if not self.done.done():
            self.done.set_result(refused)

    def failed(self, refusal: Refusal) -> None:
        """Answer it."""
        if not self.done.done():
            self.done.set_exception(refusal)
            # Its caller may be gone; nobody else has to hear of it.
            self.done.exception()


@dataclass(slots=True)
class _Lane:
    waiting: list[GroupCommit]
    stir: asyncio.Event = field(default_factory=asyncio.Event)


Try = Callable[[str, Sequence[GroupCommit], asyncio.Event], Awaitable[None]]
"""Tries commits of a group once, in order, and answers those that need no other try. Where none is due
yet it waits, until the event at most: something has come, or changed."""


class GroupLanes:
    """The lanes of all groups that are committing just now.

    Transitions of a lane: none -> busy (`put`) -> none, once all is answered.

    Args:
        try_once: tries some commits.
        spawn: runs a task for as long as this broker serves.
        waiting_max: commits of one group that may wait.
    """

    def __init__(
        self,
        try_once: Try,
        spawn: Callable[[Coroutine[Any, Any, None], str], None],
        waiting_max: int,
    ) -> None:
        self._try_once = try_once
        self._spawn = spawn
        self._waiting_max = waiting_max
        self._lanes: dict[str, _Lane] = {}

    def put(self, group_id: str, commit: GroupCommit) -> None:
        """Have a commit sent behind the earlier ones of its group; `done` tells what became of it.

        Raises:
            Refusal: OVERLOADED.
        """
        lane = self._lanes.get(group_id)
        if lane is None:
            self._lanes[group_id] = lane = _Lane([commit])
            self._spawn(self._run(group_id, lane), f"commits of group {group_id}")
        elif len(lane.waiting) >= self._waiting_max:
            raise Refusal(
                Reason.OVERLOADED,
                f"{len(lane.waiting)} commits of group {group_id!r} wait on this broker and no more "
                "may; commit less often, or again after a moment",
            )
        else:
            lane.waiting.append(commit)
            lane.stir.set()

    async def _run(self, group_id: str, lane: _Lane) -> None:
        commits: list[GroupCommit] = []
        try:
            while lane.waiting or commits:
                commits += lane.waiting
                lane.waiting.clear()
                lane.stir.clear()
                await self._try_once(group_id, commits, lane.stir)
                commits = left_of(commits)
        finally:
            del self._lanes[group_id]
            for commit in (*commits, *lane.waiting):
                over = shutting_down()
                commit.failed(unknown(over) if commit.is_sent else over)


def left_of(commits: Sequence[GroupCommit]) -> list[GroupCommit]:
    """Return what is to be tried again, in order; what newer ones have replaced is answered here.

    Only what the same member commits later replaces: that another one's counts says nothing of whether
    this one would have.
    """
    left: list[GroupCommit] = []
    replaced: set[tuple[str, PartitionId]] = set()
    for commit in reversed(commits):
        if commit.is_stored:
            replaced.update(commit.keys)
        elif not commit.done.done():
            commit.records = [
                record
                for key, record in zip(commit.keys, commit.records, strict=True)
                if key not in replaced
            ]
            if commit.records:
                left.append(commit)
            else:
                commit.stored({})
    return left[::-1]
