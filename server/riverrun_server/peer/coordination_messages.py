"""Calls to the coordinators of groups as they stand on the wire, and back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.peer.gateway_messages import origin_to_wire
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.v1 import coordination_pb2 as wire
from riverrun_server.ports.coordination import Home, OffsetRefusals
from riverrun_server.ports.gateways import Origin

PART_BYTES: Final = 1 << 20
"""Of one part of an answer: an untuned peer takes 4 MiB, and small calls wait behind a large answer."""

_TOPIC_ID_BYTES: Final = 16
_REASONS: Final = {reason.value: reason for reason in Reason}


def call_to_wire(home: Home, group_id: str, origin: Origin) -> wire.CoordinatorCall:
    """Return a call without what it asks for."""
    return wire.CoordinatorCall(
        origin=origin_to_wire(origin),
        topic_id=home.partition.topic_id,
        partition=home.partition.partition,
        leader_epoch=home.leader_epoch,
        group_id=group_id,
    )


def home_from_wire(call: wire.CoordinatorCall) -> PartitionId:
    """Return the partition of the offsets topic that a call is about.

    Raises:
        InvalidMessage
    """
    return partition_from_wire(call.topic_id, call.partition)


def offset_to_wire(partition: PartitionId, value: CommittedOffset) -> wire.KeptOffset:
    """Return an offset as it is sent."""
    return wire.KeptOffset(
        topic_id=partition.topic_id,
        partition=partition.partition,
        offset=value.offset,
        leader_epoch=value.leader_epoch,
        metadata=value.metadata,
        commit_time_ms=value.commit_time_ms,
    )


def records_to_wire(records: Iterable[OffsetRecord]) -> list[wire.KeptOffset]:
    """Return offsets to be stored."""
    offsets = []
    for record in records:
        assert record.value is not None, "a gateway deletes nothing"
        offsets.append(offset_to_wire(record.partition, record.value))
    return offsets


def records_from_wire(group_id: str, offsets: Iterable[wire.KeptOffset]) -> list[OffsetRecord]:
    """Return the records that a call asks to be stored.

    Raises:
        InvalidMessage
    """
    return [OffsetRecord(group_id, *offset_from_wire(each)) for each in offsets]


def offset_from_wire(kept: wire.KeptOffset) -> tuple[PartitionId, CommittedOffset]:
    """Return an offset that was sent.

    Raises:
        InvalidMessage
    """
    if kept.offset < 0:
        raise InvalidMessage(f"offset {kept.offset} is negative")
    epoch = kept.leader_epoch if kept.HasField("leader_epoch") else None
    value = CommittedOffset(kept.offset, epoch, kept.metadata, kept.commit_time_ms)
    return partition_from_wire(kept.topic_id, kept.partition), value


def told_to_wire(
    call_id: int, committed: Mapping[PartitionId, CommittedOffset]
) -> Iterator[wire.CoordinatorAnswer]:
    """Yield the answer with everything that a group has committed, in parts that are made as needed."""
    answer, size = wire.CoordinatorAnswer(call_id=call_id, told=wire.OffsetsTold()), 0
    for partition, value in committed.items():
        kept = offset_to_wire(partition, value)
        size += kept.ByteSize() + 8
        if size > PART_BYTES and answer.told.offsets:
            answer.told.more = True
            yield answer
            answer = wire.CoordinatorAnswer(call_id=call_id, told=wire.OffsetsTold())
            size = kept.ByteSize() + 8
        answer.told.offsets.append(kept)
    yield answer


def tell_to_wire(partitions: Collection[PartitionId] | None) -> wire.TellOffsets:
    """Return for which partitions offsets are asked; None is all."""
    tell = wire.TellOffsets()
    of_topics: dict[bytes, list[int]] = {}
    for topic_id, partition in sorted(partitions or ()):
        of_topics.setdefault(topic_id, []).append(partition)
    for topic_id, numbers in of_topics.items():
        tell.partitions.add(topic_id=topic_id, partitions=numbers)
    return tell


def tell_from_wire(tell: wire.TellOffsets) -> set[PartitionId] | None:
    """Return for which partitions offsets are asked; None is all.

    Raises:
        InvalidMessage
    """
    if not tell.partitions:
        return None
    return {
        partition_from_wire(each.topic_id, number)
        for each in tell.partitions
        for number in each.partitions
    }


def told_from_wire(
    parts: Sequence[wire.OffsetsTold],
) -> dict[PartitionId, CommittedOffset]:
    """Return what a group has committed, out of all parts of the answer.

    Raises:
        InvalidMessage
    """
    return dict(offset_from_wire(each) for part in parts for each in part.offsets)


def stored_to_wire(call_id: int, refused: OffsetRefusals) -> wire.CoordinatorAnswer:
    """Return that offsets are stored, all that are not refused."""
    stored = wire.OffsetsStored()
    for partition, refusal in refused.items():
        stored.refused.add(
            topic_id=partition.topic_id,
            partition=partition.partition,
            refusal=_refused_to_wire(refusal),
        )
    return wire.CoordinatorAnswer(call_id=call_id, stored=stored)


def stored_from_wire(stored: wire.OffsetsStored) -> dict[PartitionId, Refusal]:
    """Return which offsets of those that were to be stored did not count, and why.

    Raises:
        InvalidMessage
    """
    return {
        partition_from_wire(each.topic_id, each.partition): refusal_from_wire(each.refusal)
        for each in stored.refused
    }


def done_to_wire(call_id: int) -> wire.CoordinatorAnswer:
    """Return that what was asked is done."""
    return wire.CoordinatorAnswer(call_id=call_id, done=wire.CallDone())


def refusal_to_wire(call_id: int, refusal: Refusal) -> wire.CoordinatorAnswer:
    """Return a refusal as the answer to a call."""
    return wire.CoordinatorAnswer(call_id=call_id, refused=_refused_to_wire(refusal))


def refusal_from_wire(refused: wire.CoordinatorRefusal) -> Refusal:
    """Return what a coordinator refused; a newer version's reason becomes one with the same outcome."""
    reason = _REASONS.get(refused.reason)
    if reason is None:
        reason = Reason.NOT_READY if refused.definite else Reason.INTERNAL
    return Refusal(reason, refused.message)


def unknown_kind() -> Refusal:
    """Return the refusal for what only a newer version asks."""
    return Refusal(
        Reason.INVALID_REQUEST,
        "the coordinator is of an older version and does not know what is asked",
    )


def partition_from_wire(topic_id: bytes, partition: int) -> PartitionId:
    """Return the partition that is named.

    Raises:
        InvalidMessage
    """
    if len(topic_id) != _TOPIC_ID_BYTES or partition < 0:
        raise InvalidMessage(f"no partition has the id {topic_id.hex()!r} and number {partition}")
    return PartitionId(topic_id, partition)


def _refused_to_wire(refusal: Refusal) -> wire.CoordinatorRefusal:
    return wire.CoordinatorRefusal(
        reason=refusal.reason.value,
        message=refusal.message,
        definite=refusal.meaning.definite,
    )
