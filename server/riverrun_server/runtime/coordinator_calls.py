"""Asks whoever coordinates a group, once: this broker, or another one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from riverrun_server.core.errors import Reason, Refusal
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
from riverrun_server.ports.coordinators import Coordinating, Coordinators
from riverrun_server.ports.gateways import Origin
from riverrun_server.runtime.coordinator_finder import Found, now
from riverrun_server.runtime.group_lane import GroupCommit


class CoordinatorCalls:
    """Calls to coordinators, here and elsewhere; for what they do and raise see ports.coordination.

    Args:
        coordinator: this broker.
        coordinators: the others.
        broker_id: of this broker.
        wait_s: how long calls wait, for error texts.
    """

    def __init__(
        self,
        coordinator: Coordinating,
        coordinators: Coordinators,
        broker_id: int,
        wait_s: float,
    ) -> None:
        self._coordinator = coordinator
        self._coordinators = coordinators
        self._broker_id = broker_id
        self._wait_s = wait_s

    # Offsets.

    async def commit(
        self, found: Found, group_id: str, commits: Sequence[GroupCommit]
    ) -> list[OffsetRefusals | Refusal]:
        """Send commits to the coordinator, in order; return what each met: why some offsets did not count."""
        asked: list[asyncio.Future[OffsetRefusals] | asyncio.Future[None] | Refusal] = []
        for commit in commits:
            try:
                asked.append(self._commit(found, group_id, commit))
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

    def _commit(
        self, found: Found, group_id: str, commit: GroupCommit
    ) -> asyncio.Future[OffsetRefusals] | asyncio.Future[None]:
        here, within_s = found.leadership.here, commit.search.deadline - now()
        who = commit.committer
        if who is None:
            if here is not None:
                return self._coordinator.commit(found.home, group_id, commit.records)
            return self._coordinators.commit(
                found.there, group_id, commit.records, commit.origin, within_s
            )
        said = MemberCommit(who.member_id, who.attachment, who.epoch, commit.records)
        if here is not None:
            return self._coordinator.commit_for_member(found.home, group_id, said)
        return self._coordinators.commit_for_member(
            found.there, group_id, said, commit.origin, within_s
        )

    def _met(
        self, asked: asyncio.Future[OffsetRefusals] | asyncio.Future[None]
    ) -> OffsetRefusals | Refusal:
        if asked.cancelled():
            return Refusal(
                Reason.REQUEST_TIMED_OUT,
                f"the offsets were not stored within {self._wait_s:g} s, and may "
                "be yet; ask FetchOffsets, or commit again",
            )
        error = asked.exception()
        if error is None:
            return asked.result() or {}
        if isinstance(error, Refusal):
            return error
        raise error

    async def committed(
        self,
        found: Found,
        group_id: str,
        origin: Origin,
        deadline: float,
        partitions: Collection[PartitionId] | None = None,
    ) -> Mapping[PartitionId, CommittedOffset]:
        """Ask for what a group has committed, in these partitions or in all.

        Raises:
            Refusal
        """
        if found.leadership.here is not None:
            known = await self._coordinator.committed(found.home, group_id)
            if partitions is None:
                return known
            return {each: known[each] for each in partitions if each in known}
        within_s = max(0.0, deadline - now())
        try:
            async with asyncio.timeout(within_s):
                return await self._coordinators.committed(
                    found.there, group_id, origin, within_s, partitions
                )
        except TimeoutError:
            raise Refusal(
                Reason.COORDINATOR_LOADING,
                f"broker {found.leadership.leader}, which coordinates group {group_id!r}, did not "
                f"answer within {within_s:.1f} s; ask again",
            ) from None

    # Members.

    def attach(
        self,
        found: Found,
        group_id: str,
        start: NewMember | Reattach,
        events: MemberEvents,
        origin: Origin,
        within_s: float,
    ) -> asyncio.Future[Attached]:
        """Let a stream of this broker speak for a member."""
        if found.leadership.here is not None:
            return self._coordinator.attach(found.home, group_id, start, self._broker_id, events)
        return self._coordinators.attach(found.there, group_id, start, events, origin, within_s)

    def beat(
        self, found: Found, beats: Sequence[MemberBeat], within_s: float
    ) -> asyncio.Future[Sequence[BeatRefused]]:
        """Say that members are alive."""
        if found.leadership.here is not None:
            epoch = found.leadership.leader_epoch
            leads = found.leadership.leader is not None
            return self._coordinator.beat(found.home, beats, epoch if leads else None)
        return self._coordinators.beat(found.there, beats, within_s)

    def revoked(
        self, found: Found, group_id: str, revoked: Revoked, origin: Origin, within_s: float
    ) -> asyncio.Future[None]:
        """Say what a member has given up."""
        if found.leadership.here is not None:
            return self._coordinator.revoked(found.home, group_id, revoked)
        return self._coordinators.revoked(found.there, group_id, revoked, origin, within_s)

    def leave(
        self, found: Found, group_id: str, leave: Leave, origin: Origin, within_s: float
    ) -> asyncio.Future[None]:
        """Say that a member leaves."""
        if found.leadership.here is not None:
            return self._coordinator.leave(found.home, group_id, leave)
        return self._coordinators.leave(found.there, group_id, leave, origin, within_s)

    def detached(
        self, found: Found, group_id: str, detached: Detached, origin: Origin, within_s: float
    ) -> asyncio.Future[None]:
        """Say that the stream of a member has ended without a leave."""
        if found.leadership.here is not None:
            return self._coordinator.detached(found.home, group_id, detached)
        return self._coordinators.detached(found.there, group_id, detached, origin, within_s)

    # Groups.

    def describe(
        self, found: Found, group_id: str, origin: Origin, within_s: float
    ) -> asyncio.Future[GroupDescription]:
        """Ask for everything about a group but its offsets."""
        if found.leadership.here is not None:
            return self._coordinator.describe(found.home, group_id)
        return self._coordinators.describe(found.there, group_id, origin, within_s)

    def list_groups(
        self, found: Found, query: GroupQuery, origin: Origin, within_s: float
    ) -> asyncio.Future[GroupPage]:
        """Ask for groups of one partition of the offsets topic."""
        if found.leadership.here is not None:
            return self._coordinator.list_groups(found.home, query)
        return self._coordinators.list_groups(found.there, query, origin, within_s)

    def remove_member(
        self, found: Found, group_id: str, name: MemberName, origin: Origin, within_s: float
    ) -> asyncio.Future[str]:
        """Throw a member out."""
        if found.leadership.here is not None:
            return self._coordinator.remove_member(found.home, group_id, name)
        return self._coordinators.remove_member(found.there, group_id, name, origin, within_s)

    def delete_group(
        self, found: Found, group_id: str, origin: Origin, within_s: float
    ) -> asyncio.Future[None]:
        """Delete a group that has no members."""
        if found.leadership.here is not None:
            return self._coordinator.delete_group(found.home, group_id)
        return self._coordinators.delete_group(found.there, group_id, origin, within_s)

    def reset_offsets(
        self,
        found: Found,
        group_id: str,
        records: Sequence[OffsetRecord],
        origin: Origin,
        within_s: float,
    ) -> asyncio.Future[None]:
        """Make a group go on elsewhere."""
        if found.leadership.here is not None:
            return self._coordinator.reset_offsets(found.home, group_id, records, within_s)
        return self._coordinators.reset_offsets(found.there, group_id, records, origin, within_s)
