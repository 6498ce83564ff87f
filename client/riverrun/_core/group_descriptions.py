"""What brokers tell about groups and their members, and where operators move them, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from riverrun._core.records import CommittedOffset, TopicPartition


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group in short.

    Attributes:
        group: its name.
        state: "empty" has no members, "reconciling" moves partitions, in "stable" all have what they should.
        members: how many it has.
        assignor: how its partitions are shared out; "" where it has never had a member.

    Example:
        async for group in admin.list_groups():
            print(group.group, group.state, group.members)
    """

    group: str
    state: Literal["empty", "reconciling", "stable", "unknown"]
    members: int
    assignor: str


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member of a group.

    Attributes:
        member_id: its id.
        instance_id: the place in the group that it has; "" is none.
        client_id: what its application calls itself.
        address: from where it came last, as host:port.
        rack: where it runs; "" is nowhere.
        topics: the topics that it has named.
        topic_pattern: the pattern that it has named; "" is none.
        state: "attached" has a stream, "detached" has lost it, "away" will be back.
        gateway: the broker that has its stream, or had it last; None where that is not known.
        session_timeout_s: how long it may be silent.
        session_left_s: what is left of that, if nothing more is heard of it.
        revocation_timeout_s: how long it may take to give a partition up.
        epoch: its epoch.
        owned: what it reads.
        revoking: what it is to give up and has not yet.
        coming: what it should have and has not yet.

    Example:
        group = await admin.describe_group("billing")
        for member in group.members:
            print(member.member_id, member.state, member.owned)
    """

    member_id: str
    instance_id: str
    client_id: str
    address: str
    rack: str
    topics: tuple[str, ...]
    topic_pattern: str
    state: Literal["attached", "detached", "away", "unknown"]
    gateway: int | None
    session_timeout_s: float
    session_left_s: float
    revocation_timeout_s: float
    epoch: int
    owned: tuple[TopicPartition, ...]
    revoking: tuple[TopicPartition, ...]
    coming: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class GroupPartition:
    """How far a group has come in one partition.

    Attributes:
        topic: the topic.
        partition: its number.
        member_id: the member that has it; "" is none.
        committed: what the group has committed; None where it has not.
        log_start_offset: the first offset that can be read; None where nobody can say.
        high_watermark: None where nobody can say.
        lag_records: offsets between where the group goes on and the high watermark; None likewise.
        lag_s: how old the oldest of them is, in seconds; None likewise.
        error: why nobody can say; "" where that is known.

    Example:
        for one in (await admin.describe_group("billing")).partitions:
            print(one.topic, one.partition, one.lag_records, one.lag_s)
    """

    topic: str
    partition: int
    member_id: str
    committed: CommittedOffset | None
    log_start_offset: int | None
    high_watermark: int | None
    lag_records: int | None
    lag_s: float | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """Everything about a group.

    Attributes:
        group: its name.
        state: as `GroupInfo` has it.
        assignor: how its partitions are shared out; "" where it has never had a member.
        epoch: counts changes of what its members should have.
        coordinator: the broker that coordinates it; None where that is not known.
        members: by id.
        partitions: those that a member has, or for which the group has committed.

    Example:
        group = await admin.describe_group("billing")
        print(group.state, len(group.members), sum(one.lag_records or 0 for one in group.partitions))
    """

    group: str
    state: Literal["empty", "reconciling", "stable", "unknown"]
    assignor: str
    epoch: int
    coordinator: int | None
    members: tuple[GroupMember, ...]
    partitions: tuple[GroupPartition, ...]


@dataclass(frozen=True, slots=True)
class Shift:
    """So many records on from where a group has committed; back where negative.

    Example:
        place = riverrun.TopicPartition("orders", 0)
        await admin.reset_group("billing", {place: riverrun.Shift(-1)}, validate_only=True)
    """

    records: int


@dataclass(frozen=True, slots=True)
class OffsetMove:
    """A partition in which a group goes on elsewhere.

    Attributes:
        topic: the topic.
        partition: its number.
        old_offset: what was committed before; None where nothing was.
        new_offset: where the group goes on.

    Example:
        for move in await admin.reset_group("billing", {"orders": "earliest"}):
            print(move.topic, move.partition, move.old_offset, move.new_offset)
    """

    topic: str
    partition: int
    old_offset: int | None
    new_offset: int
