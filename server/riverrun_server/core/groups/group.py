"""One group: what the log says of it, what follows from that, and what only its coordinator knows.

Intuition: three kinds of records are all there is to know (of the group, of a member, of what a member
has), and `replay_*` are the one way in which they change, live and after a failover. Everything else
is derived from them, or is soft: timers, streams and holds, which a new coordinator begins anew.

Replay takes records in any order in which a prefix of the log may leave them: a member may be known
before its group, and a member's partitions before the member, as the log is trimmed in between.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from riverrun_server.core.groups.deadlines import Deadlines
from riverrun_server.core.groups.members import AssignmentValue, GroupValue, MemberValue
from riverrun_server.core.log.batch import PartitionId

# What a group, a member and a partition of a member take beside their texts, measured with tracemalloc.
_GROUP_BYTES = 2_300
_MEMBER_BYTES = 1_700
_PARTITION_BYTES = 120


class StreamState(enum.Enum):
    """What the coordinator knows of the stream that speaks for a member."""

    UNKNOWN = "nobody has spoken for it since the coordinator began"
    ATTACHED = "a gateway holds its stream"
    DETACHED = "its stream has ended"


@dataclass(slots=True)
class Presence:
    """How a member is heard of; soft.

    Attributes:
        stream: what is known of its stream.
        doubt_until_ms: while `stream` is unknown, it may be attached until then.
        revoke_by_ms: when it loses each partition that it is to give up; set before that is replayed.
    """

    stream: StreamState = StreamState.UNKNOWN
    doubt_until_ms: int = 0
    revoke_by_ms: dict[PartitionId, int] = field(default_factory=dict)


class MemberKey(NamedTuple):
    """A member of all groups of a partition of the offsets topic."""

    group_id: str
    member_id: str


class Timers:
    """The deadlines of all groups of a partition of the offsets topic.

    Attributes:
        sessions: when a member has been silent for too long.
        revocations: when a member loses the first of the partitions that it is to give up.
        pauses: when a group's targets may be computed anew.
        holds: when a reset has taken too long, by group and number.
        untold: what members are to give up, and cannot know yet: it is not committed.
    """

    def __init__(self) -> None:
        self.sessions: Deadlines[MemberKey] = Deadlines()
        self.revocations: Deadlines[MemberKey] = Deadlines()
        self.pauses: Deadlines[str] = Deadlines()
        self.holds: Deadlines[tuple[str, int]] = Deadlines()
        self.untold: dict[MemberKey, set[PartitionId]] = {}

    def next_ms(self) -> int | None:
        """Return the earliest deadline; None where there is none."""
        all_timers = (self.sessions, self.revocations, self.pauses, self.holds)
        return min((at for each in all_timers if (at := each.next_ms()) is not None), default=None)


class Group:
    """One group.

    Transitions of a partition: free -> owned by the member whose target it is -> revoking, when it is
    not in that member's target any more or is held -> free, when the member acknowledges, is too late,
    leaves or expires.

    Args:
        group_id: its name.
        timers: where its deadlines are.

    Attributes:
        value: of the group as a whole; None until it is written.
        members: what each has said of itself.
        assignments: what each has.
        holders: derived: who owns or revokes a partition.
        instances: derived: the member of each instance id.
        unsettled: derived: members that do not have just what they should.
        presence: soft: how each member is heard of.
        holds: soft: partitions that nobody is given for now, by the number of the hold.
        is_changed: members came, went, or want other things since targets were computed.
        look: targets are to be computed, and may turn out the same: after a load, or other topics.
        touched: members to look at, whether they can be given something or are to give it up.
        freed: partitions that nobody has any more since somebody looked.
        settled_at_ms: when targets were computed last.
        size_bytes: of memory, about.
    """

    def __init__(self, group_id: str, timers: Timers) -> None:
        self.group_id = group_id
        self.timers = timers
        self.value: GroupValue | None = None
        self.members: dict[str, MemberValue] = {}
        self.assignments: dict[str, AssignmentValue] = {}
        self.holders: dict[PartitionId, str] = {}
        self.instances: dict[str, str] = {}
        self.unsettled: set[str] = set()
        self.presence: dict[str, Presence] = {}
        self.holds: dict[int, frozenset[PartitionId]] = {}
        self.is_changed = False
        self.look = False
        self.touched: set[str] = set()
        self.freed: set[PartitionId] = set()
        self.settled_at_ms: int | None = None
        self.size_bytes = _GROUP_BYTES + len(group_id)
        self._subscribed: tuple[frozenset[str], frozenset[str]] | None = None

    @property
    def epoch(self) -> int:
        """Of the group; 0 before anything was written of it."""
        return 0 if self.value is None else self.value.epoch

    @property
    def exists(self) -> bool:
        """Whether the log says anything of it."""
        return self.value is not None or bool(self.members) or bool(self.assignments)

    @property
    def is_settled(self) -> bool:
        """Whether everybody has just what the members of now should have."""
        return not self.is_changed and not self.look and not self.unsettled

    @property
    def subscribed(self) -> tuple[frozenset[str], frozenset[str]]:
        """The names and the patterns of topics that somebody in it wants."""
        if self._subscribed is None:
            names = frozenset[str]().union(*{each.topics for each in self.members.values()})
            patterns = frozenset(each.pattern for each in self.members.values() if each.pattern)
            self._subscribed = names, patterns
        return self._subscribed

    def is_held(self, partition: PartitionId) -> bool:
        """Return whether a reset wants that nobody has it."""
        return any(partition in held for held in self.holds.values())

    def orphans(self) -> list[str]:
        """Return the members that have something and are not known; no whole log leaves any."""
        return [each for each in self.assignments if each not in self.members]

    # Hard state.

    def replay_group(self, value: GroupValue | None) -> None:
        """Take a record of the group into account."""
        self.value = value

    def replay_member(self, member_id: str, value: MemberValue | None) -> None:
        """Take a record of a member into account."""
        old = self.members.pop(member_id, None)
        if old is not None:
            self.size_bytes -= _member_bytes(member_id, old)
            if self.instances.get(old.instance_id) == member_id:
                del self.instances[old.instance_id]
        if value is not None:
            self.members[member_id] = value
            self.size_bytes += _member_bytes(member_id, value)
            if value.instance_id:
                self.instances[value.instance_id] = member_id
            self.presence.setdefault(member_id, Presence())
        else:
            self.presence.pop(member_id, None)
            self.timers.sessions.drop(MemberKey(self.group_id, member_id))
            self.timers.revocations.drop(MemberKey(self.group_id, member_id))
        if _wants(old) != _wants(value):
            self.is_changed = True
            self._subscribed = None
        if old is not None and value is not None and old.is_away != value.is_away:
            self.touched.add(member_id)

    def replay_assignment(self, member_id: str, value: AssignmentValue | None) -> None:
        """Take a record of what a member has into account."""
        old = self.assignments.pop(member_id, None)
        if value is not None:
            self.assignments[member_id] = value
        self.size_bytes += _assignment_bytes(value) - _assignment_bytes(old)
        before, after = held_by(old), held_by(value)
        for partition in before - after:
            # Where the log is trimmed in between, it may be another's by now.
            if self.holders.get(partition) == member_id:
                del self.holders[partition]
                self.freed.add(partition)
        for partition in after - before:
            self.holders[partition] = member_id
        if value is not None and (value.revoking or value.target != value.owned.keys()):
            self.unsettled.add(member_id)
            self.touched.add(member_id)
        else:
            self.unsettled.discard(member_id)
        self._time_revoked(member_id, value)

    # Soft state.

    def end(self) -> None:
        """Forget the time of a group of which the log says nothing any more."""
        assert not self.exists, self.group_id
        self.timers.pauses.drop(self.group_id)
        for number in self.holds:
            self.timers.holds.drop((self.group_id, number))

    def loaded(self, now_ms: int, doubt_ms: int) -> None:
        """Begin to count time: nothing is known of how long anybody has been silent."""
        self.look, self.is_changed = True, False
        for member_id, member in self.members.items():
            presence = self.presence[member_id] = Presence(doubt_until_ms=now_ms + doubt_ms)
            self.put_off(member_id, now_ms)
            assignment = self.assignments.get(member_id)
            for partition in assignment.revoking if assignment else ():
                presence.revoke_by_ms[partition] = now_ms + member.revocation_timeout_ms
            self.time_revocations(member_id)

    def attached(self, member_id: str, value: MemberValue, now_ms: int) -> None:
        """Take note of the stream of a member whose record is about to be replayed."""
        self.presence.setdefault(member_id, Presence()).stream = StreamState.ATTACHED
        silent_at_ms = now_ms + value.session_timeout_ms
        self.timers.sessions.set(MemberKey(self.group_id, member_id), silent_at_ms)

    def revoke(self, member_id: str, partitions: Collection[PartitionId], now_ms: int) -> None:
        """Begin to count the time in which a member is to give partitions up, for now."""
        by_ms = now_ms + self.members[member_id].revocation_timeout_ms
        self.presence[member_id].revoke_by_ms.update(dict.fromkeys(partitions, by_ms))
        key = MemberKey(self.group_id, member_id)
        self.timers.untold.setdefault(key, set()).update(partitions)

    def told(self, member_id: str, partitions: Collection[PartitionId], now_ms: int) -> None:
        """Count it from now, where a member still is to give them up: only now it is told to."""
        presence, member = self.presence.get(member_id), self.members.get(member_id)
        if presence is None or member is None:
            return
        for partition in partitions:
            if partition in presence.revoke_by_ms:
                presence.revoke_by_ms[partition] = now_ms + member.revocation_timeout_ms
        self.time_revocations(member_id)

    def put_off(self, member_id: str, now_ms: int) -> None:
        """Give a member its whole session timeout from now."""
        timeout_ms = self.members[member_id].session_timeout_ms
        self.timers.sessions.set(MemberKey(self.group_id, member_id), now_ms + timeout_ms)

    def time_revocations(self, member_id: str) -> None:
        """Set the deadline of the first partition that a member loses."""
        key = MemberKey(self.group_id, member_id)
        due = self.presence[member_id].revoke_by_ms.values()
        if due:
            self.timers.revocations.set(key, min(due))
        else:
            self.timers.revocations.drop(key)

    def _time_revoked(self, member_id: str, value: AssignmentValue | None) -> None:
        """Let the time run of what is to be given up, and of nothing else."""
        presence = self.presence.get(member_id)
        if presence is None or not presence.revoke_by_ms:
            return
        revoking = value.revoking if value else {}
        for partition in [each for each in presence.revoke_by_ms if each not in revoking]:
            del presence.revoke_by_ms[partition]
        self.time_revocations(member_id)


def held_by(value: AssignmentValue | None) -> set[PartitionId]:
    """Return what nobody else can be given: what it owns, and what it is still to give up."""
    return set() if value is None else value.owned.keys() | value.revoking.keys()


def _wants(member: MemberValue | None) -> tuple[object, ...] | None:
    """Return what the assignor is told of a member."""
    if member is None:
        return None
    return (member.instance_id, member.topics, member.pattern, member.rack, member.assignor)


def _member_bytes(member_id: str, value: MemberValue) -> int:
    texts = (value.instance_id, value.client_id, value.address, value.pattern, value.rack)
    names = sum(len(each) + 60 for each in value.topics)
    return _MEMBER_BYTES + len(member_id) + sum(map(len, texts)) + names


def _assignment_bytes(value: AssignmentValue | None) -> int:
    if value is None:
        return 0
    partitions = len(value.target) + len(value.owned) + len(value.revoking)
    return partitions * _PARTITION_BYTES
