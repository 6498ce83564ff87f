"""Look at groups, move them, remove their members, and delete them, without async."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import riverrun.admin
from riverrun._core.group_descriptions import GroupDescription, GroupInfo, OffsetMove
from riverrun._core.records import CommittedOffset, TopicPartition
from riverrun._net.group_calls import Targets
from riverrun.blocking.session import Session


class GroupAdmin:
    """The calls about groups that `Admin` has."""

    def __init__(self, session: Session, admin: riverrun.admin.Admin, owner: object) -> None:
        self._session = session
        self._call = session.thread.call
        self._admin = admin
        # Whoever has this has its client, which is not closed as forgotten.
        self._owner = owner

    def list_groups(self, *, states: Iterable[str] = ()) -> Iterator[GroupInfo]:
        """Iterate over groups that have members or committed offsets, by name, a page at a time.

        Args:
            states: only those that are "empty", "reconciling" or "stable"; none is all.

        Example:
            for group in admin.list_groups(states=["stable"]):
                print(group.group, group.members)
        """
        return self._session.each(self._admin.list_groups(states=states))

    def describe_group(self, group: str) -> GroupDescription:
        """Tell who is in a group, who reads what, and how far behind it is.

        Raises:
            UsageError: there is no such group, `Reason.GROUP_NOT_FOUND`.

        Example:
            for partition in (admin.describe_group("billing")).partitions:
                print(partition.topic, partition.partition, partition.member_id, partition.lag_records)
        """
        return self._call(lambda: self._admin.describe_group(group))

    def reset_group(
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
            for move in admin.reset_group("billing", {place: riverrun.Shift(-10)}):
                print(move.topic, move.partition, move.old_offset, move.new_offset)
        """
        return self._call(
            lambda: self._admin.reset_group(
                group, targets, validate_only=validate_only, timeout_s=timeout_s
            )
        )

    def remove_member(
        self, group: str, *, member_id: str | None = None, instance_id: str | None = None
    ) -> str:
        """Throw a member out of a group, by one of its names; its partitions go to the others.

        A client that still runs joins again. Returns the member's id.

        Raises:
            UsageError: there is no such member, `Reason.UNKNOWN_MEMBER`.

        Example:
            for member in (admin.describe_group("billing")).members:
                if member.state == "detached":
                    admin.remove_member("billing", member_id=member.member_id)
        """
        return self._call(
            lambda: self._admin.remove_member(group, member_id=member_id, instance_id=instance_id)
        )

    def delete_group(self, group: str) -> None:
        """Delete a group that has no members, with everything that it has committed.

        Raises:
            UsageError: there is no such group, or it has members (`Reason.GROUP_HAS_MEMBERS`).

        Example:
            try:
                admin.delete_group("billing")
            except riverrun.RiverrunError as error:
                print(error.reason, error.message)
        """
        self._call(lambda: self._admin.delete_group(group))

    def group_offsets(
        self, group: str, partitions: Iterable[TopicPartition] = ()
    ) -> dict[TopicPartition, CommittedOffset | None]:
        """Tell how far a group has come: in the partitions named, else in all that it committed.

        None stands where the group has never committed, or where that has expired.

        Example:
            for place, committed in admin.group_offsets("billing").items():
                print(place, committed.offset)
        """
        return self._call(lambda: self._admin.group_offsets(group, partitions))

    def commit_group_offsets(
        self, group: str, offsets: Mapping[TopicPartition, int | CommittedOffset]
    ) -> None:
        """Set how far a group has come: the next offset to read, by partition.

        Raises:
            RiverrunError: of the first partition that refused; the others may have been stored.

        Example:
            admin.commit_group_offsets("billing", {riverrun.TopicPartition("orders", 0): 0})
        """
        self._call(lambda: self._admin.commit_group_offsets(group, offsets))
