"""Groups as operators see and change them, wherever they are coordinated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.coordination import (
    GroupDescription,
    GroupListing,
    GroupQuery,
    MemberName,
)


class GroupList(NamedTuple):
    """Groups of all coordinators, by name.

    Attributes:
        groups: no more than were asked for.
        more: there are further ones behind the last.
        silent: the partitions of the offsets topic of which nothing is known, and why.
    """

    groups: Sequence[GroupListing]
    more: bool
    silent: Mapping[int, Refusal]


class GroupOperations(Protocol):
    """Asks coordinators what operators want, again where they move, for as long as a call may wait.

    All raise COORDINATOR_LOADING where nobody was found in time, INVALID_REQUEST for what is no name of a
    group, and what `ports.coordinators.Coordinating` says.
    """

    def coordinator(self, group_id: str) -> int | None:
        """Return the broker that coordinates a group, as far as is known here."""
        ...

    async def list_groups(self, query: GroupQuery) -> GroupList:
        """List groups of all coordinators, those that have only offsets included."""
        ...

    async def describe(self, group_id: str) -> GroupDescription:
        """Return everything about a group but its offsets.

        Raises:
            Refusal: GROUP_NOT_FOUND.
        """
        ...

    async def committed(self, group_id: str) -> Mapping[PartitionId, CommittedOffset]:
        """Return everything that a group has committed.

        Raises:
            Refusal
        """
        ...

    async def remove_member(self, group_id: str, name: MemberName) -> str:
        """Throw a member out; return its id.

        Raises:
            Refusal: UNKNOWN_MEMBER.
        """
        ...

    async def delete_group(self, group_id: str) -> None:
        """Delete a group that has no members.

        Raises:
            Refusal: GROUP_HAS_MEMBERS, GROUP_NOT_FOUND.
        """
        ...

    async def reset_offsets(
        self, group_id: str, records: Sequence[OffsetRecord], within_s: float
    ) -> None:
        """Make a group go on elsewhere; asked again after a doubt, for it says the same each time.

        Raises:
            Refusal: CONFLICT where its members did not give the partitions up in time.
        """
        ...
