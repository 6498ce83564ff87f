"""What a member should have and has, as the value of a record: a byte for most partitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from riverrun_server.core.groups.members import AssignmentValue
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.wire.group_values import WrongValue, check_counts, check_version
from riverrun_server.wire.v1 import internal_records_pb2 as wire

_VERSION: Final = 1
_TOPIC_ID_BYTES: Final = 16
_PARTITION_MAX: Final = 2**31 - 1


class _Standing(NamedTuple):
    """What is true of a partition; None is that the member does not own, or revoke, it."""

    is_target: bool
    owned_since: int | None
    revoking_since: int | None


def assignment_bytes(value: AssignmentValue) -> bytes:
    """Return an assignment as a serialised AssignmentValue; equal ones give equal bytes."""
    both = value.owned.keys() & value.revoking.keys()
    assert not both, f"owned and to be given up: {sorted(both)}"
    message = wire.AssignmentValue(version=_VERSION, epoch=value.epoch)
    alike: dict[_Standing, wire.AssignedPartitions] = {}
    topic: wire.AssignedTopic | None = None
    before: dict[_Standing, int] = {}
    for each in sorted(value.target | value.owned.keys() | value.revoking.keys()):
        if topic is None or topic.topic_id != each.topic_id:
            topic = message.topics.add(topic_id=each.topic_id)
            alike.clear()
            before.clear()
        standing = _Standing(each in value.target, value.owned.get(each), value.revoking.get(each))
        if standing not in alike:
            alike[standing] = topic.partitions.add(**standing._asdict())
        alike[standing].gaps.append(each.partition - before.get(standing, -1) - 1)
        before[standing] = each.partition
    return message.SerializeToString()


def assignment_from_bytes(data: bytes) -> AssignmentValue:
    """Return the assignment that `assignment_bytes` was given.

    Raises:
        google.protobuf.message.DecodeError, WrongValue, NewerVersion
    """
    message = wire.AssignmentValue.FromString(data)
    check_version("an assignment", message.version, oldest=_VERSION, newest=_VERSION)
    check_counts("an assignment", epoch=message.epoch)
    target: set[PartitionId] = set()
    owned: dict[PartitionId, int] = {}
    revoking: dict[PartitionId, int] = {}
    seen: set[PartitionId] = set()
    for topic in message.topics:
        if len(topic.topic_id) != _TOPIC_ID_BYTES:
            raise WrongValue(f"an assignment names the topic id {topic.topic_id.hex()!r}")
        for alike in topic.partitions:
            found = [PartitionId(topic.topic_id, number) for number in _numbers(alike.gaps)]
            known = len(seen)
            seen.update(found)
            if len(seen) != known + len(found):
                raise WrongValue(f"an assignment names a partition of {topic.topic_id.hex()} twice")
            if alike.is_target:
                target.update(found)
            match alike.WhichOneof("held"):
                case "owned_since":
                    check_counts("an assignment", owned_since=alike.owned_since)
                    owned.update(dict.fromkeys(found, alike.owned_since))
                case "revoking_since":
                    check_counts("an assignment", revoking_since=alike.revoking_since)
                    revoking.update(dict.fromkeys(found, alike.revoking_since))
    return AssignmentValue(
        epoch=message.epoch, target=frozenset(target), owned=owned, revoking=revoking
    )


def _numbers(gaps: Iterable[int]) -> Iterator[int]:
    number = -1
    for gap in gaps:
        number += gap + 1
        if number > _PARTITION_MAX:
            raise WrongValue(f"an assignment names the partition {number}")
        yield number
