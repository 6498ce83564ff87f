"""Groups as operators see and change them, asked of their coordinators, wherever those are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import check_group_id
from riverrun_server.core.groups.group_operations import not_found
from riverrun_server.core.groups.membership import unknown_member
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.coordination import (
    GroupDescription,
    GroupPage,
    GroupQuery,
    MemberName,
)
from riverrun_server.ports.gateways import Origin
from riverrun_server.ports.group_operations import GroupList
from riverrun_server.runtime.coordinator_finder import Found
from riverrun_server.runtime.offsets import GroupOffsets

# A list goes without a coordinator that does not answer for so long.
_LIST_WAIT_S: Final = 3.0


class FoundGroups:
    """Implements ports.group_operations.GroupOperations.

    Args:
        offsets: knows where groups are kept.
        origin: who makes the call that is being handled.
        broker_id: of this broker.
    """

    def __init__(self, offsets: GroupOffsets, origin: Callable[[], Origin], broker_id: int) -> None:
        self._offsets = offsets
        self._origin = origin
        self._broker_id = broker_id

    def coordinator(self, group_id: str) -> int | None:
        """Return the broker that coordinates a group, as far as is known here."""
        finder = self._offsets.finder
        home = finder.home(group_id)
        if home is None:
            return None
        leadership = finder.stand(home)[0].leadership
        return self._broker_id if leadership.here is not None else leadership.leader

    async def list_groups(self, query: GroupQuery) -> GroupList:
        """List groups of all coordinators; see the port."""
        await self._offsets.finder.known_home("")
        homes = self._offsets.finder.homes()
        asked = await asyncio.gather(*[self._page(home, query) for home in homes])
        pages = [each for each in asked if not isinstance(each, Refusal)]
        silent = {
            home.partition: each
            for home, each in zip(homes, asked, strict=True)
            if isinstance(each, Refusal)
        }
        groups = sorted(each for page in pages for each in page.groups)[: query.limit]
        there = sum(len(page.groups) for page in pages)
        more = there > len(groups) or any(page.more for page in pages)
        return GroupList(groups, more, silent)

    async def describe(self, group_id: str) -> GroupDescription:
        """Return everything about a group but its offsets; see the port."""
        origin = self._origin()

        def once(found: Found, within_s: float) -> asyncio.Future[GroupDescription]:
            return self._offsets.calls.describe(found, group_id, origin, within_s)

        home = await self._home(group_id, not_found(group_id))
        search = self._offsets.finder.search(group_id, changes=False)
        return await self._offsets.finder.ask(group_id, home, search, once)

    async def committed(self, group_id: str) -> Mapping[PartitionId, CommittedOffset]:
        """Return everything that a group has committed; see the port."""
        return await self._offsets.committed(group_id)

    async def remove_member(self, group_id: str, name: MemberName) -> str:
        """Throw a member out; see the port."""
        origin = self._origin()
        called = name.member_id or name.instance_id

        def once(found: Found, within_s: float) -> asyncio.Future[str]:
            return self._offsets.calls.remove_member(found, group_id, name, origin, within_s)

        home = await self._home(group_id, unknown_member(group_id, called))
        search = self._offsets.finder.search(group_id, changes=True)
        return await self._offsets.finder.ask(group_id, home, search, once)

    async def delete_group(self, group_id: str) -> None:
        """Delete a group that has no members; see the port."""
        origin = self._origin()

        def once(found: Found, within_s: float) -> asyncio.Future[None]:
            return self._offsets.calls.delete_group(found, group_id, origin, within_s)

        home = await self._home(group_id, not_found(group_id))
        search = self._offsets.finder.search(group_id, changes=True)
        try:
            await self._offsets.finder.ask(group_id, home, search, once)
        except Refusal as refusal:
            if refusal.reason is not Reason.GROUP_NOT_FOUND or search.doubt is None:
                raise
            # It was deleted by the try of which nobody knew.

    async def reset_offsets(
        self, group_id: str, records: Sequence[OffsetRecord], within_s: float
    ) -> None:
        """Make a group go on elsewhere; see the port."""
        check_group_id(group_id)
        finder, origin = self._offsets.finder, self._origin()

        def once(found: Found, within_s: float) -> asyncio.Future[None]:
            return self._offsets.calls.reset_offsets(found, group_id, records, origin, within_s)

        home = await finder.made_home(group_id)
        # The coordinator gives up first, and says why.
        search = finder.search(group_id, changes=True, wait_s=within_s + finder.wait_s)
        await finder.ask(group_id, home, search, partial(_no_longer_than, within_s, once))

    async def _home(self, group_id: str, none: Refusal) -> PartitionId:
        check_group_id(group_id)
        home = await self._offsets.finder.known_home(group_id)
        if home is None:
            raise none
        return home

    async def _page(self, home: PartitionId, query: GroupQuery) -> GroupPage | Refusal:
        origin = self._origin()

        def once(found: Found, within_s: float) -> asyncio.Future[GroupPage]:
            return self._offsets.calls.list_groups(found, query, origin, within_s)

        search = self._offsets.finder.search("", changes=False, wait_s=_LIST_WAIT_S)
        try:
            return await self._offsets.finder.ask("", home, search, once)
        except Refusal as refusal:
            return refusal


def _no_longer_than(
    longest_s: float,
    once: Callable[[Found, float], asyncio.Future[None]],
    found: Found,
    within_s: float,
) -> asyncio.Future[None]:
    """Ask a coordinator that is to give up after so long, of whatever its caller would wait."""
    return once(found, min(longest_s, within_s))
