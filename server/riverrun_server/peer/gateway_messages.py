"""What gateways and leaders say to each other as it stands on the wire, and back."""

from __future__ import annotations

from typing import Final

from riverrun_server.core.errors import LeaderHint, Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.v1 import gateway_pb2 as wire
from riverrun_server.ports.gateways import Led, Origin
from riverrun_server.ports.log import CorruptData
from riverrun_server.ports.partitions import Appended, Chunk
from riverrun_server.wire.stored import stored_batch

HOPS_MAX: Final = 1
_TOPIC_ID_BYTES: Final = 16
_REASONS: Final = frozenset(Reason)


def led_to_wire(led: Led) -> wire.Led:
    """Return what names a partition and a leadership."""
    (topic_id, partition), leader_epoch = led
    return wire.Led(topic_id=topic_id, partition=partition, leader_epoch=leader_epoch)


def led_from_wire(led: wire.Led) -> Led:
    """Return what is named.

    Raises:
        InvalidMessage
    """
    if len(led.topic_id) != _TOPIC_ID_BYTES or led.partition < 0 or led.leader_epoch < 0:
        raise InvalidMessage(
            f"a gateway names topic id {led.topic_id.hex()!r}, partition {led.partition}, leader epoch "
            f"{led.leader_epoch}; an id has {_TOPIC_ID_BYTES} bytes and nothing is negative"
        )
    return Led(PartitionId(led.topic_id, led.partition), led.leader_epoch)


def origin_to_wire(origin: Origin) -> wire.Origin:
    """Return for whom this broker asks; it is the one that a client asked."""
    return wire.Origin(principal=origin.principal, listener=origin.listener, hops=HOPS_MAX)


def check_hops(origin: wire.Origin) -> None:
    """Refuse what has been passed on more than once: brokers that disagree would pass it in circles.

    Raises:
        Refusal: INVALID_REQUEST.
    """
    if not 0 < origin.hops <= HOPS_MAX:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"a request between brokers says that it was passed on {origin.hops} times, and it is passed "
            f"on {HOPS_MAX} time at the most",
        )


def failure_to_wire(refusal: Refusal) -> wire.Failure:
    """Return a refusal as another broker is told it."""
    failure = wire.Failure(
        reason=refusal.reason.value,
        message=refusal.message,
        definite=refusal.meaning.definite,
        expected_sequence=refusal.expected_sequence,
        diverging_offset=refusal.diverging_offset,
    )
    if refusal.leader is not None:
        failure.leader.broker_id = refusal.leader.broker_id
        failure.leader.leader_epoch = refusal.leader.leader_epoch
    if refusal.available is not None:
        failure.earliest, failure.latest = refusal.available
    return failure


def failure_from_wire(failure: wire.Failure) -> Refusal:
    """Return what another broker refused; a reason of a newer version becomes one with the same outcome."""
    if failure.reason in _REASONS:
        reason = Reason(failure.reason)
    else:
        reason = Reason.LEADER_NOT_AVAILABLE if failure.definite else Reason.INTERNAL
    leader = failure.leader
    return Refusal(
        reason,
        failure.message,
        available=(failure.earliest, failure.latest) if failure.HasField("earliest") else None,
        expected_sequence=(
            failure.expected_sequence if failure.HasField("expected_sequence") else None
        ),
        diverging_offset=failure.diverging_offset if failure.HasField("diverging_offset") else None,
        leader=(
            LeaderHint(leader.broker_id, leader.leader_epoch)
            if failure.HasField("leader")
            else None
        ),
    )


def answer_to_wire(number: int, appended: Appended) -> wire.ForwardAnswer:
    """Return what became of an append."""
    answer = wire.ForwardAnswer(
        number=number,
        base_offset=appended.base_offset,
        record_count=appended.record_count,
        duplicate=appended.duplicate,
        log_start_offset=appended.log_start_offset,
    )
    if appended.error is not None:
        answer.failure.CopyFrom(failure_to_wire(appended.error))
    return answer


def answer_from_wire(answer: wire.ForwardAnswer) -> Appended:
    """Return what became of an append."""
    return Appended(
        answer.base_offset if answer.HasField("base_offset") else None,
        answer.record_count,
        answer.log_start_offset,
        answer.duplicate,
        failure_from_wire(answer.failure) if answer.HasField("failure") else None,
    )


def portion_to_wire(reader: int, chunk: Chunk) -> wire.Portion:
    """Return a portion as a reader is sent it; the batches as they are stored."""
    return wire.Portion(
        reader=reader,
        first_offset=chunk.first_offset,
        next_offset=chunk.next_offset,
        batches=[batch.data for batch in chunk.batches],
        high_watermark=chunk.high_watermark,
        log_start_offset=chunk.log_start_offset,
    )


def portion_from_wire(portion: wire.Portion) -> Chunk:
    """Return a portion.

    Raises:
        InvalidMessage: it does not continue where it says that it begins.
    """
    try:
        batches = [stored_batch(data) for data in portion.batches]
    except CorruptData as damage:
        raise InvalidMessage(f"a portion has what is no batch: {damage}") from damage
    at = first = portion.first_offset
    for batch in batches:
        if batch.next_offset <= max(at, batch.base_offset):
            raise InvalidMessage(
                f"a portion from offset {first} has a batch of offsets {batch.base_offset} to "
                f"{batch.next_offset} behind offset {at}"
            )
        at = batch.next_offset
    if portion.next_offset < at:
        raise InvalidMessage(
            f"a portion from offset {first} ends at {portion.next_offset}, before its last batch"
        )
    return Chunk(
        first, portion.next_offset, batches, portion.high_watermark, portion.log_start_offset
    )
