"""Where in the log the newest record of each group and member stands, so that the oldest are written again first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from riverrun_server.core.groups.group import Group
from riverrun_server.core.groups.members import AssignmentRecord, GroupRecord, MemberRecord

# Every record of groups and members; all that the offsets topic keeps but offsets.
MembershipRecord = GroupRecord | MemberRecord | AssignmentRecord
# What a record has beside its texts and partitions, and for each partition.
_RECORD_BYTES = 120
_PARTITION_BYTES = 30


class RecordKey(NamedTuple):
    """What a record is about: the newest one with the same key counts.

    Attributes:
        kind: of the record.
        group_id: the group.
        member_id: the member; empty for the group as a whole.
    """

    kind: type[MembershipRecord]
    group_id: str
    member_id: str


def key_of(record: MembershipRecord) -> RecordKey:
    """Return what a record is about."""
    member_id = "" if isinstance(record, GroupRecord) else record.member_id
    return RecordKey(type(record), record.group_id, member_id)


class LiveRecords:
    """The keys that have a value, in the order of their newest records.

    What was written last stands last, so a rewrite looks only at what it writes.
    """

    def __init__(self) -> None:
        self._stands_at: OrderedDict[RecordKey, int] = OrderedDict()

    def __len__(self) -> int:
        """Return how many keys have a value."""
        return len(self._stands_at)

    @property
    def lowest(self) -> int | None:
        """The offset of the oldest record that counts; None where there is none."""
        return next(iter(self._stands_at.values()), None)

    def replay(self, record: MembershipRecord, offset: int) -> None:
        """Note a record at an offset above all that were noted before."""
        key = key_of(record)
        if record.value is None:
            self._stands_at.pop(key, None)
        else:
            self._stands_at[key] = offset
            self._stands_at.move_to_end(key)

    def below(self, point: int) -> Iterator[RecordKey]:
        """Yield the keys whose values stand below an offset, oldest first."""
        for key, offset in self._stands_at.items():
            if offset >= point:
                return
            yield key


def record_of(key: RecordKey, group: Group) -> MembershipRecord:
    """Return the record that says again what is known under a key."""
    if key.kind is GroupRecord:
        return GroupRecord(key.group_id, group.value)
    if key.kind is MemberRecord:
        return MemberRecord(key.group_id, key.member_id, group.members[key.member_id])
    return AssignmentRecord(key.group_id, key.member_id, group.assignments[key.member_id])


def size_of(record: MembershipRecord) -> int:
    """Return about how many bytes a record takes in the log."""
    size = _RECORD_BYTES + len(record.group_id)
    match record:
        case MemberRecord(value=member) if member is not None:
            size += sum(map(len, member.topics)) + len(member.pattern)
        case AssignmentRecord(value=has) if has is not None:
            size += (len(has.target) + len(has.owned) + len(has.revoking)) * _PARTITION_BYTES
    return size
