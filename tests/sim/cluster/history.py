"""What clients asked for, what they were told, and what was delivered to them; and what is wrong with it.

The checks are those of Jepsen's suite for Kafka, on values that are unique in a run. They know
nothing of brokers: only of answers, of deliveries, and of the log that is left in the end.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.partitions import Acks
from tests.sim.cluster.batches import Batch
from tests.sim.cluster.committed import CommittedLog


class Outcome(enum.Enum):
    """What a client knows of a batch. Transitions: pending -> ok | failed | unknown."""

    PENDING = "pending"
    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Send:
    """One batch and what became of it.

    Attributes:
        producer: the client.
        partition: where to.
        batch: what.
        acks: which condition the client asked for.
        sent_s: when it was first sent.
        outcome: as the client was told.
        base_offset: as the client was told; None where it is not known.
        attempts: how often it was sent.
        expected: at which offsets and nowhere else, for each attempt; empty where anywhere will do.
    """

    producer: str
    partition: PartitionId
    batch: Batch
    acks: Acks
    sent_s: float
    outcome: Outcome = Outcome.PENDING
    base_offset: int | None = None
    done_s: float | None = None
    attempts: int = 0
    expected: list[int] = field(default_factory=list)


class Delivery(NamedTuple):
    """What one answer brought a consumer.

    Attributes:
        consumer: the client.
        partition: of what.
        at_s: when it came.
        position: from where it was read.
        next_offset: from where to go on.
        records: (offset, value) of each record from the position on.
    """

    consumer: str
    partition: PartitionId
    at_s: float
    position: int
    next_offset: int
    records: tuple[tuple[int, bytes], ...]


class Loss(NamedTuple):
    """A loss that an operator's policy accepted: everything from an offset on, up to a moment."""

    partition: PartitionId
    at_s: float
    from_offset: int


@dataclass(slots=True)
class History:
    """Everything that clients saw, in order."""

    sends: list[Send] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)

    def acknowledged(self) -> int:
        """Return how many batches were acknowledged."""
        return sum(send.outcome is Outcome.OK for send in self.sends)

    def faults(self, partition: PartitionId, log: CommittedLog) -> Iterator[str]:
        """Yield what is wrong, given everything that is committed in the end."""
        sends = [send for send in self.sends if send.partition == partition]
        places: dict[bytes, list[int]] = {}
        for record in log.records():
            places.setdefault(record.value, []).append(record.offset)
        for value, offsets in places.items():
            if len(offsets) > 1:
                yield f"duplicate: {value.decode()} stands at offsets {offsets}"
        losses = [loss for loss in self.losses if loss.partition == partition]
        for send in sends:
            yield from _faults_of_send(send, places, losses)
        yield from _faults_of_order(sends, places)
        yield from self._faults_of_deliveries(partition, log, losses)

    def unseen(self, partition: PartitionId, consumer: str, log: CommittedLog) -> list[int]:
        """Return the committed offsets that a consumer of everything never got."""
        seen: set[int] = set()
        for each in self.deliveries:
            if each.partition == partition and each.consumer == consumer:
                seen.update(offset for offset, _ in each.records)
        return [
            record.offset
            for record in log.records()
            if record.offset not in seen and record.offset >= log.deleted_below
        ]

    def _faults_of_deliveries(
        self, partition: PartitionId, log: CommittedLog, losses: list[Loss]
    ) -> Iterator[str]:
        expected: dict[str, int] = {}
        for each in self.deliveries:
            if each.partition != partition:
                continue
            before = expected.get(each.consumer, each.position)
            # Out of what was deleted a reader goes to where the log begins.
            deleted = before < each.position <= log.deleted_below
            if each.position != before and not deleted and not _was_lost(losses, before, 0.0):
                yield f"{each.consumer} was at {before} and was given {each.position} next"
            expected[each.consumer] = each.next_offset
            at = each.position
            for offset, value in each.records:
                if offset != at and at >= log.deleted_below:
                    yield f"{each.consumer} got offset {offset} where {at} was next"
                at = offset + 1
                record = log.at(offset)
                if (record is None or record.value != value) and not _was_lost(
                    losses, offset, each.at_s
                ):
                    committed = record.value.decode() if record else "nothing"
                    yield (
                        f"{each.consumer} got {value.decode()} at offset {offset}, where "
                        f"{committed} is committed"
                    )
            if at != each.next_offset:
                yield f"{each.consumer} got records up to {at} and was told {each.next_offset}"


def _was_lost(losses: list[Loss], offset: int, at_s: float) -> bool:
    return any(offset >= loss.from_offset and at_s <= loss.at_s for loss in losses)


def _faults_of_send(
    send: Send, places: dict[bytes, list[int]], losses: list[Loss]
) -> Iterator[str]:
    for index, value in enumerate(send.batch.values):
        found = places.get(value)
        name = value.decode()
        if send.expected and index == 0 and found and found[0] not in send.expected:
            yield f"{name} stands at {found[0]} and was to stand at {send.expected} or nowhere"
        if send.outcome is Outcome.FAILED and found:
            yield f"{name} was refused for good and stands at offset {found[0]}"
        # Only a promise that was given for all replicas is one for all time.
        if send.outcome is not Outcome.OK or send.acks is not Acks.ALL:
            continue
        told = None if send.base_offset is None else send.base_offset + index
        if found is None:
            done_s = send.done_s or 0.0
            if not _was_lost(losses, told if told is not None else 1 << 62, done_s):
                yield f"lost: {name} was acknowledged at offset {told} and is not there"
        elif told is not None and told not in found:
            yield f"{name} was acknowledged at offset {told} and stands at {found[0]}"


def _faults_of_order(sends: list[Send], places: dict[bytes, list[int]]) -> Iterator[str]:
    """Each producer's batches stand in the order in which it sent them."""
    last: dict[str, tuple[int, bytes]] = {}
    for send in sends:
        for value in send.batch.values:
            found = places.get(value)
            if not found or not send.batch.producer_id:
                continue
            before = last.get(send.producer)
            if before is not None and found[0] < before[0]:
                yield (
                    f"{send.producer} sent {before[1].decode()} before {value.decode()}, and they "
                    f"stand at {before[0]} and {found[0]}"
                )
            last[send.producer] = (found[0], value)
