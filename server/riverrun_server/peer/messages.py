"""Messages between replicas as they stand on the wire, and back; batches travel as they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from riverrun_server.core.errors import Reason
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.core.replication.messages import (
    Acked,
    Diverged,
    Follow,
    Message,
    Push,
    Refused,
    Restart,
)
from riverrun_server.peer.v1 import replication_pb2 as wire
from riverrun_server.ports.log import CorruptData
from riverrun_server.wire.stored import stored_batch

_TOPIC_ID_BYTES: Final = 16
_REASONS: Final[Mapping[str, Reason]] = {
    reason.name: reason
    for reason in (
        Reason.FENCED_LEADER_EPOCH,
        Reason.UNKNOWN_LEADER_EPOCH,
        Reason.NOT_LEADER,
        Reason.PARTITION_OFFLINE,
        Reason.CORRUPT_DATA,
    )
}


class InvalidMessage(ValueError):
    """A peer said what no version of this protocol says; its stream cannot go on."""


def to_leader(messages: Iterable[Message]) -> wire.ReplicateRequest:
    """Return what a follower sends."""
    request = wire.ReplicateRequest()
    for message in messages:
        topic_id, partition = message.partition
        one = request.messages.add(
            topic_id=topic_id, partition=partition, leader_epoch=message.leader_epoch
        )
        match message:
            case Follow():
                one.follow.log_end = message.log_end
                if message.last_epoch is not None:
                    one.follow.last_epoch = message.last_epoch
            case Acked():
                one.acked.durable_end = message.durable_end
                one.acked.probe = message.probe
                one.acked.SetInParent()
            case Refused():
                one.refusal.reason = message.reason.name
            case _:
                raise AssertionError(f"a follower does not say {message}")
    return request


def to_follower(messages: Iterable[Message]) -> wire.ReplicateResponse:
    """Return what a leader sends."""
    response = wire.ReplicateResponse()
    for message in messages:
        topic_id, partition = message.partition
        one = response.messages.add(
            topic_id=topic_id, partition=partition, leader_epoch=message.leader_epoch
        )
        match message:
            case Push():
                _fill_push(one.push, message)
            case Diverged():
                one.diverged.epoch = message.epoch
                one.diverged.end_offset = message.end_offset
                if message.asked_epoch is not None:
                    one.diverged.asked_epoch = message.asked_epoch
                one.diverged.SetInParent()
            case Restart():
                _fill_restart(one.restart, message)
            case Refused():
                one.refusal.reason = message.reason.name
            case _:
                raise AssertionError(f"a leader does not say {message}")
    return response


def from_follower(request: wire.ReplicateRequest) -> list[Message]:
    """Return what a follower said; what it may say in a newer version is passed over.

    Raises:
        InvalidMessage
    """
    said: list[Message] = []
    for one in request.messages:
        where, epoch = _where(one), one.leader_epoch
        match one.WhichOneof("kind"):
            case "follow":
                last = one.follow.last_epoch if one.follow.HasField("last_epoch") else None
                said.append(Follow(where, epoch, _offset(one.follow.log_end), last))
            case "acked":
                durable_end = _offset(one.acked.durable_end)
                said.append(Acked(where, epoch, durable_end, one.acked.probe))
            case "refusal":
                said += _refused(where, epoch, one.refusal)
            case _:
                pass
    return said


def from_leader(response: wire.ReplicateResponse) -> list[Message]:
    """Return what a leader said; what it may say in a newer version is passed over.

    Checksums of batches are not looked at: whoever writes them does.

    Raises:
        InvalidMessage
    """
    said: list[Message] = []
    for one in response.messages:
        where, epoch = _where(one), one.leader_epoch
        match one.WhichOneof("kind"):
            case "push":
                said.append(_push(where, epoch, one.push))
            case "diverged":
                known = one.diverged
                asked = known.asked_epoch if known.HasField("asked_epoch") else None
                end_offset = _offset(known.end_offset)
                said.append(Diverged(where, epoch, known.epoch, end_offset, asked))
            case "restart":
                said.append(_restart(where, epoch, one.restart))
            case "refusal":
                said += _refused(where, epoch, one.refusal)
            case _:
                pass
    return said


def _fill_push(push: wire.Push, message: Push) -> None:
    push.base_offset = message.base_offset
    if message.previous_epoch is not None:
        push.previous_epoch = message.previous_epoch
    push.batches.extend([batch.data for batch in message.batches])
    push.high_watermark = message.high_watermark
    push.log_start = message.log_start
    push.probe = message.probe
    push.SetInParent()  # all of it may be zero, and it is a push all the same


def _push(where: PartitionId, epoch: int, push: wire.Push) -> Push:
    try:
        batches = tuple(map(stored_batch, push.batches))
    except CorruptData as damage:
        raise InvalidMessage(f"a push of {where} has what is no batch: {damage}") from damage
    at = base_offset = _offset(push.base_offset)
    for batch in batches:
        if batch.base_offset != at or batch.next_offset <= at:
            raise InvalidMessage(
                f"a push of {where} has a batch of offsets {batch.base_offset} to "
                f"{batch.next_offset} where one of {at} is due"
            )
        at = batch.next_offset
    return Push(
        where,
        epoch,
        push.previous_epoch if push.HasField("previous_epoch") else None,
        batches,
        _offset(push.high_watermark),
        _offset(push.log_start),
        push.probe,
        base_offset,
    )


def _fill_restart(restart: wire.Restart, message: Restart) -> None:
    restart.log_start = message.log_start
    for entry in message.epochs:
        restart.epochs.add(leader_epoch=entry.leader_epoch, start_offset=entry.start_offset)
    if message.snapshot is not None:
        restart.snapshot_offset, restart.snapshot = message.snapshot
    restart.SetInParent()


def _restart(where: PartitionId, epoch: int, restart: wire.Restart) -> Restart:
    epochs = tuple(EpochEntry(each.leader_epoch, each.start_offset) for each in restart.epochs)
    snapshot = None
    if restart.HasField("snapshot"):
        snapshot = (_offset(restart.snapshot_offset), restart.snapshot)
    return Restart(where, epoch, _offset(restart.log_start), epochs, snapshot)


def _refused(where: PartitionId, epoch: int, refusal: wire.PeerRefusal) -> list[Message]:
    reason = _REASONS.get(refusal.reason)
    return [] if reason is None else [Refused(where, epoch, reason)]


def _where(one: wire.FollowerMessage | wire.LeaderMessage) -> PartitionId:
    if len(one.topic_id) != _TOPIC_ID_BYTES or one.partition < 0 or one.leader_epoch < 0:
        raise InvalidMessage(
            f"a message names topic id {one.topic_id.hex()!r}, partition {one.partition}, leader "
            f"epoch {one.leader_epoch}; an id has {_TOPIC_ID_BYTES} bytes and nothing is negative"
        )
    return PartitionId(one.topic_id, one.partition)


def _offset(value: int) -> int:
    if value < 0:
        raise InvalidMessage(f"a message has the offset {value}")
    return value
