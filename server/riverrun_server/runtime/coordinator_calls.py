"""Asks whoever coordinates a group, once: this broker, or another one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import CommittedOffset
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.coordination import Coordinators, Home
from riverrun_server.ports.gateways import Origin
from riverrun_server.ports.leadership import Leadership
from riverrun_server.runtime.coordinator import Coordinator
from riverrun_server.runtime.group_lane import GroupCommit


class CoordinatorCalls:
    """Calls to coordinators, here and elsewhere.

    Args:
        coordinator: this broker.
        coordinators: the others.
        wait_s: how long calls wait, for error texts.
    """

    def __init__(self, coordinator: Coordinator, coordinators: Coordinators, wait_s: float) -> None:
        self._coordinator = coordinator
        self._coordinators = coordinators
        self._wait_s = wait_s

    async def commit(
        self,
        home: PartitionId,
        leadership: Leadership,
        group_id: str,
        commits: Sequence[GroupCommit],
    ) -> list[Refusal | None]:
        """Send commits to the coordinator, in order; return what each met, or None."""
        asked: list[asyncio.Future[None] | Refusal] = []
        for commit in commits:
            try:
                asked.append(self._ask(home, leadership, group_id, commit))
                commit.is_sent = True
            except Refusal as refusal:
                asked.append(refusal)
        futures = [each for each in asked if not isinstance(each, Refusal)]
        if futures:
            until = max(each.search.deadline for each in commits)
            try:
                await asyncio.wait(futures, timeout=max(0.0, until - now()))
            finally:
                for future in futures:
                    future.cancel()
        return [each if isinstance(each, Refusal) else self._met(each) for each in asked]

    def _ask(
        self, home: PartitionId, leadership: Leadership, group_id: str, commit: GroupCommit
    ) -> asyncio.Future[None]:
        if leadership.here is not None:
            return self._coordinator.commit(home, group_id, commit.records)
        assert leadership.leader is not None, "nobody is asked where nobody leads"
        return self._coordinators.commit(
            Home(home, leadership.leader, leadership.leader_epoch),
            group_id,
            commit.records,
            commit.origin,
            commit.search.deadline - now(),
        )

    def _met(self, asked: asyncio.Future[None]) -> Refusal | None:
        if asked.cancelled():
            return Refusal(
                Reason.REQUEST_TIMED_OUT,
                f"the offsets were not stored within {self._wait_s:g} s, and may "
                "be yet; ask FetchOffsets, or commit again",
            )
        error = asked.exception()
        if error is None or isinstance(error, Refusal):
            return error
        raise error

    async def committed(
        self,
        home: PartitionId,
        leadership: Leadership,
        group_id: str,
        origin: Origin,
        deadline: float,
    ) -> Mapping[PartitionId, CommittedOffset]:
        """Ask for everything that a group has committed.

        Raises:
            Refusal
        """
        if leadership.here is not None:
            return await self._coordinator.committed(home, group_id)
        assert leadership.leader is not None, "nobody is asked where nobody leads"
        there = Home(home, leadership.leader, leadership.leader_epoch)
        within_s = max(0.0, deadline - now())
        try:
            async with asyncio.timeout(within_s):
                return await self._coordinators.committed(there, group_id, origin, within_s)
        except TimeoutError:
            raise Refusal(
                Reason.COORDINATOR_LOADING,
                f"broker {leadership.leader}, which coordinates group {group_id!r}, did not answer "
                f"within {within_s:.1f} s; ask again",
            ) from None


def now() -> float:
    """Return the time of everything that waits here, in seconds."""
    return asyncio.get_running_loop().time()
