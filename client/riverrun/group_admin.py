"""Look at groups, move them, remove their members, and delete them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping

from riverrun._core.group_descriptions import GroupDescription, GroupInfo, OffsetMove
from riverrun._core.records import CommittedOffset, TopicPartition
from riverrun._net.channel import Connections
from riverrun._net.group_calls import (
    Targets,
    delete_group,
    describe_group,
    list_groups,
    remove_member,
    reset_group,
)
from riverrun._net.offsets import commit_group_offsets, fetch_group_offsets


class GroupAdmin:
    """The calls about groups that `Admin` has."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def list_groups(self, *, states: Iterable[str] = ()) -> AsyncIterator[GroupInfo]:
        """Iterate over groups that have members or committed offsets, by name, a page at a time.

        Args:
            states: only those that are "empty", "reconciling" or "stable"; none is all.

        Example:
            async for group in admin.list_groups(states=["stable"]):
                print(group.group, group.members)
        """
        async for group in list_groups(self._connections, states):
            yield group

    async def describe_group(self, group: str) -> GroupDescription:
        """Tell who is in a group, who reads what, and how far behind it is.

        Raises:
            UsageError: there is no such group, `Reason.GROUP_NOT_FOUND`.

        Example:
            for partition in (await admin.describe_group("billing")).partitions:
                print(partition.topic, partition.partition, partition.member_id, partition.lag_records)
        """
        return await describe_group(self._connections, group)

    async def reset_group(
        self,
        group: str,
        targets: Targets,
        *,
        validate_only: bool = False,
        timeout_s: float = 30.0,
    ) -> tuple[OffsetMove, ...]:
        """Make a group go on elsewhere, while its members work; all of it, or nothing.

        Each partition is taken back from its member, which finishes with what it has, and is given again.

        Args:
            group: the group.
            targets: where to, by partition or whole topic: an offset (not for a topic), "earliest", "latest",
                a `Time`, or a `Shift` from what is committed. What a partition does not have becomes the
                nearest that it has.
            validate_only: only tell what would happen.
            timeout_s: how long to wait for members to give partitions up, 300 at the most.

        Raises:
            UsageError: a target is none of these.
            RiverrunError: members did not give way in time; nothing has happened.

        Example:
            place = riverrun.TopicPartition("orders", 0)
            for move in await admin.reset_group("billing", {place: riverrun.Shift(-10)}):
                print(move.topic, move.partition, move.old_offset, move.new_offset)
        """
        return await reset_group(
            self._connections, group, targets, validate_only=validate_only, timeout_s=timeout_s
        )

    async def remove_member(
        self, group: str, *, member_id: str | None = None, instance_id: str | None = None
    ) -> str:
        """Throw a member out of a group, by one of its names; its partitions go to the others.

        A client that still runs joins again. Returns the member's id.

        Raises:
            UsageError: there is no such member, `Reason.UNKNOWN_MEMBER`.

        Example:
            for member in (await admin.describe_group("billing")).members:
                if member.state == "detached":
                    await admin.remove_member("billing", member_id=member.member_id)
        """
        return await remove_member(self._connections, group, member_id, instance_id)

    async def delete_group(self, group: str) -> None:
        """Delete a group that has no members, with everything that it has committed.

        Raises:
            UsageError: there is no such group, or it has members (`Reason.GROUP_HAS_MEMBERS`).

        Example:
            try:
                await admin.delete_group("billing")
            except riverrun.RiverrunError as error:
                print(error.reason, error.message)
        """
        await delete_group(self._connections, group)

    async def group_offsets(
        self, group: str, partitions: Iterable[TopicPartition] = ()
    ) -> dict[TopicPartition, CommittedOffset | None]:
        """Tell how far a group has come: in the partitions named, else in all that it committed.

        None stands where the group has never committed, or where that has expired.

        Example:
            for place, committed in (await admin.group_offsets("billing")).items():
                print(place, committed.offset)
        """
        return await fetch_group_offsets(self._connections, group, partitions)

    async def commit_group_offsets(
        self, group: str, offsets: Mapping[TopicPartition, int | CommittedOffset]
    ) -> None:
        """Set how far a group has come: the next offset to read, by partition.

        Raises:
            RiverrunError: of the first partition that refused; the others may have been stored.

        Example:
            await admin.commit_group_offsets("billing", {riverrun.TopicPartition("orders", 0): 0})
        """
        await commit_group_offsets(self._connections, group, offsets)
