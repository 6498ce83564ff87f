"""How far a group has come in each partition, beside where the partition begins and ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from riverrun import (
    Admin,
    CommittedOffset,
    GroupDescription,
    GroupPartition,
    PartitionOffset,
    Reason,
    RiverrunError,
    TopicPartition,
)
from riverrun.cli.exits import Complaint, Exit
from riverrun.cli.topics import partition_count


@dataclass(frozen=True, slots=True)
class Standing:
    """One partition of a group.

    Attributes:
        where: the partition.
        committed: how far the group has come; None where it has never committed, or that expired.
        earliest: the first offset that can still be read; None where the partition is offline.
        latest: its high watermark; None where the partition is offline.
        error: why it is offline; "" where it is not.
    """

    where: TopicPartition
    committed: CommittedOffset | None
    earliest: int | None = None
    latest: int | None = None
    error: str = ""

    @property
    def lag(self) -> int | None:
        """How many offsets are left to read; None where that is not known.

        Without a commit a group begins at the earliest.
        """
        if self.latest is None or self.earliest is None:
            return None
        begin = self.earliest if self.committed is None else self.committed.offset
        return max(0, self.latest - max(begin, self.earliest))

    @property
    def unread(self) -> int:
        """How many offsets were deleted before the group came to them."""
        if self.committed is None or self.earliest is None:
            return 0
        return max(0, self.earliest - self.committed.offset)


@dataclass(frozen=True, slots=True)
class Described:
    """A group as its coordinator tells it, None where it has none yet, and how it stands in each partition."""

    group: GroupDescription | None
    standings: list[Standing]
    partitions: Mapping[TopicPartition, GroupPartition]


async def described(admin: Admin, group: str, topics: Iterable[str]) -> Described:
    """Tell everything about a group, and how it stands.

    Raises:
        RiverrunError: as `standings` does.
        Complaint: likewise.
    """
    found: GroupDescription | None = None
    try:
        found = await admin.describe_group(group)
    except RiverrunError as error:
        if error.reason is not Reason.GROUP_NOT_FOUND:
            raise
    told = found.partitions if found else ()
    partitions = {TopicPartition(one.topic, one.partition): one for one in told}
    return Described(found, await standings(admin, group, topics, partitions), partitions)


async def standings(
    admin: Admin,
    group: str,
    topics: Iterable[str] = (),
    owned: Iterable[TopicPartition] = (),
) -> list[Standing]:
    """Tell how a group stands: in all partitions of the topics named, else where it has committed.

    Without topics, those that its members have are told too.

    Raises:
        TopicNotFoundError: there is no topic of a name.
        Complaint: no topic is named, and the group has committed nowhere.
        RiverrunError: no broker can tell.
    """
    wanted: list[TopicPartition] = []
    for topic in dict.fromkeys(topics):
        count = await partition_count(admin, topic)
        wanted += [TopicPartition(topic, partition) for partition in range(count)]
    committed = await admin.group_offsets(group, wanted)
    if not wanted and (more := [where for where in owned if where not in committed]):
        committed |= await admin.group_offsets(group, more)
        committed = dict(sorted(committed.items()))
    if not committed:
        raise Complaint(
            f"group {group} has committed nothing, or its topics are gone; a group is there from "
            "its first commit: check its name, or name the topics with --topic",
            Exit.NOT_FOUND,
            "GROUP_NOT_FOUND",
        )
    found: list[Standing] = []
    for topic in dict.fromkeys(where.topic for where in committed):
        mine = {where: at for where, at in committed.items() if where.topic == topic}
        found += await _of_topic(admin, topic, mine)
    return found


async def _of_topic(
    admin: Admin, topic: str, committed: dict[TopicPartition, CommittedOffset | None]
) -> list[Standing]:
    """Find the bounds of a topic's partitions; where one is offline, of each by itself."""
    try:
        bounds: dict[int, PartitionOffset | RiverrunError] = {
            found.partition: found for found in await admin.list_offsets(topic)
        }
    except RiverrunError:
        bounds = {where.partition: await _bounds(admin, where) for where in committed}
    return [_standing(where, at, bounds[where.partition]) for where, at in committed.items()]


async def _bounds(admin: Admin, where: TopicPartition) -> PartitionOffset | RiverrunError:
    """Find the bounds of one partition, or why they are not known."""
    try:
        return (await admin.list_offsets(where.topic, partition=where.partition))[0]
    except RiverrunError as error:
        return error


def _standing(
    where: TopicPartition,
    committed: CommittedOffset | None,
    bounds: PartitionOffset | RiverrunError,
) -> Standing:
    if isinstance(bounds, RiverrunError):
        return Standing(where, committed, error=bounds.message)
    return Standing(where, committed, bounds.offset or 0, bounds.high_watermark)
