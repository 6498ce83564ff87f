"""One stream of deliveries: what is sent next, what it costs, and when the stream ends.

Intuition: the machine never sees a cursor. It says whose turn it is (`turn`), is offered what was
read (`offered`), cuts the next delivery from that (`cut` looks, `delivered` changes), and collects
in `events` what else the reader must be told. One run is open at a time, so a reader that takes
nothing costs one run.

Not here: resolving places (runtime/places), cursors and writing (runtime/reader), what a delivery
looks like on the wire (wire/deliveries). Explicit positions are an assignment given by the client;
one given by a group comes in the same way (core/reading/assignment).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.credit import UNLIMITED, Credit
from riverrun_server.core.reading.events import (
    CaughtUp,
    Delivery,
    Event,
    Heartbeat,
    PartitionFailed,
    PositionReset,
    Run,
    SeekDone,
)
from riverrun_server.core.reading.limits import PIECE_OVERHEAD_BYTES
from riverrun_server.core.reading.partition import PartitionReading
from riverrun_server.core.reading.places import Position, ResetPolicy
from riverrun_server.core.reading.turns import Turns


@dataclass(frozen=True, slots=True)
class SubscriptionSettings:
    """How a stream delivers.

    Attributes:
        frame_bytes: what the pieces of one delivery aim at.
        credit_records: initial credit; None is no limit.
        credit_bytes: initial credit; None is no limit.
        max_records: end after so many; None is no end.
        stop_at_end: end when what was committed at the beginning has been delivered.
        reset: what happens to a position that is out of range.
        is_member: a group gives partitions and takes them away; having none is no end.
    """

    frame_bytes: int
    credit_records: int | None = None
    credit_bytes: int | None = None
    max_records: int | None = None
    stop_at_end: bool = False
    reset: ResetPolicy = ResetPolicy.ERROR
    is_member: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The stream has nothing left to do; with a refusal where it could not do what was asked."""

    refusal: Refusal | None = None


class Subscription:
    """The machine behind one stream.

    Transitions:
        assigned: partitions are added where their readers begin, at any time
        revoking: nothing more of them is delivered -> unassigned: nothing is known of them any more
        fenced: nothing at all is delivered -> unfenced: it goes on where it was
        woke: there may be something to read in a partition
        offered(run) -> cut -> delivered, until the run is used up
        idle: there was nothing to read
        refused -> stopped until a seek, or the caller looks up where to go on and calls `reset`
        sought, paused, resumed, granted: the reader's control
        half_closed: no more control will come

    A run that is open for a partition is dropped by a seek, a pause and a refusal; the cursor must
    then go back to the partition's offset. A revocation drops it for good. Between `cut` and
    `delivered` only `woke`, `observed`, `fenced` and `unfenced` may come.
    """

    def __init__(self, settings: SubscriptionSettings) -> None:
        self.events: deque[Event] = deque()
        self.partitions: dict[PartitionId, PartitionReading] = {}
        self._settings = settings
        self.is_member = settings.is_member
        self._credit = Credit(settings.credit_records, settings.credit_bytes)
        self._turns = Turns(settings.frame_bytes)
        self._records_left = settings.max_records
        self._half_closed = False
        self.is_fenced = False
        # The open run, how many of its pieces are gone, and whose it is. The last is also set
        # between a run and the next one of the same chunk.
        self._run: Run | None = None
        self._run_at = 0
        self._run_of: PartitionId | None = None

    # What is read, from where.

    def assigned(self, positions: Iterable[Position]) -> None:
        """Begin to read partitions."""
        for position in positions:
            assert position.id not in self.partitions, position
            reading = PartitionReading(position.topic, position.id)
            self.partitions[position.id] = reading
            reading.placed(position, stop_at_end=self._settings.stop_at_end)
            self._go_on(reading)

    def failed_to_start(self, topic: str, partition: PartitionId, refusal: Refusal) -> None:
        """Know a partition whose place could not be found, so that a seek can revive it."""
        self.partitions[partition] = PartitionReading(topic, partition)
        self.stopped(partition, refusal)

    def revoking(self, partitions: Collection[PartitionId]) -> None:
        """Deliver nothing more of partitions, whatever their reader asks for."""
        for partition in partitions:
            self.partitions[partition].revoked = True
            self._drop_run(partition)
        self._turns.forget(partitions)

    def unassigned(self, partitions: Collection[PartitionId]) -> None:
        """Forget partitions; one that is assigned anew owes nothing and is not paused."""
        for partition in partitions:
            del self.partitions[partition]
            self._drop_run(partition)
        self._turns.forget(partitions)

    def fenced(self) -> None:
        """Deliver nothing for now: others may have what this reader has; its places are kept."""
        self.is_fenced = True

    def unfenced(self) -> None:
        """Go on where the reader stands."""
        self.is_fenced = False

    def woke(self, partition: PartitionId) -> None:
        """Note that there may be something to read; may be called without need."""
        if (reading := self.partitions.get(partition)) and reading.flows:
            self._turns.add(partition)

    def idle(self, partition: PartitionId) -> None:
        """Note that there is nothing to read until it wakes; its cursor accepts the position."""
        self._turns.discard(partition)
        reading = self.partitions[partition]
        reading.in_range = True
        self._announce(reading)

    def passed_over(self, partition: PartitionId) -> None:
        """Note that there is no room for what it has; `woke` gives it its turn back."""
        self._turns.discard(partition)

    # What is sent next.

    def turn(self) -> PartitionId | None:
        """Return the partition to read from or to cut from, or None where nothing may be sent."""
        if self.is_fenced or self._records_left == 0 or not self._credit.is_open:
            return None
        return self._run_of or self._turns.current()

    @property
    def is_exhausted(self) -> bool:
        """Whether the reader has been sent as many records as it wanted at the most."""
        return self._records_left == 0

    @property
    def has_run(self) -> bool:
        """Whether `cut` has something to cut from."""
        return self._run is not None

    @property
    def waiting(self) -> int:
        """How many partitions wait for a turn."""
        return len(self._turns)

    def room_bytes(self) -> int:
        """Return how much is worth reading in one step: a frame, or what is left of the credit."""
        frame, credit = self._settings.frame_bytes, self._credit.size_bytes
        return frame if credit is None else max(1, min(frame, credit))

    def offered(self, partition: PartitionId, run: Run) -> None:
        """Open a run that begins at the partition's offset."""
        assert self._run is None, partition
        assert self._run_of in (None, partition), (self._run_of, partition)
        reading = self.partitions[partition]
        assert reading.flows, reading.position
        assert reading.offset <= run.next_offset <= run.high_watermark, (reading.offset, run)
        self._run, self._run_of, self._run_at = run, partition, 0

    def cut(self) -> Delivery:
        """Return the next delivery of the open run; nothing changes until it is `delivered`.

        At least one piece is taken where there is one. Only offsets that the reader asked for
        count: `max_records` and `stop_at_end` may cut through the last piece.
        """
        run, partition = self._run, self._run_of
        assert run is not None, partition
        assert partition is not None
        assert not self.is_fenced, partition
        reading = self.partitions[partition]
        pieces, at = run.pieces, self._run_at
        first = position = reading.offset
        stop = run.next_offset
        if reading.end_offset is not None:
            stop = min(stop, reading.end_offset)
        frame_bytes = self._settings.frame_bytes
        credit_records, credit_bytes = self._credit.room
        max_records = UNLIMITED if self._records_left is None else self._records_left
        size = records = framed = 0
        # Some 10,000 pieces in a run of single records: this loop is most of what they cost here.
        for base_offset, next_offset, _, data in islice(pieces, at, None):
            if base_offset >= stop:
                position = max(position, stop)
                break
            length = len(data)
            framed += length + PIECE_OVERHEAD_BYTES
            if records and (
                framed > frame_bytes or records >= credit_records or size >= credit_bytes
            ):
                break
            begin = max(position, base_offset)
            end = min(stop, next_offset)
            if records + end - begin >= max_records:
                stop = end = begin + max_records - records
            records += end - begin
            position = end
            size += length
            at += 1
        else:
            # Nothing stands between the last piece and there: offsets may end in a gap.
            position = max(position, stop)
        taken = pieces if at - self._run_at == len(pieces) else pieces[self._run_at : at]
        return Delivery(
            reading.topic,
            partition,
            first,
            position,
            run.high_watermark,
            run.log_start_offset,
            taken,
            records,
            size,
            taken[-1].leader_epoch if taken else reading.leader_epoch or 0,
        )

    def delivered(self, delivery: Delivery) -> None:
        """Take into account that a delivery has been handed to the transport."""
        reading = self.partitions[delivery.id]
        run = self._run
        assert run is not None
        assert delivery.id == self._run_of
        assert delivery.first_offset == reading.offset, (delivery, reading.position)
        pieces = delivery.pieces
        reading.delivered(delivery.next_offset, pieces[-1].leader_epoch if pieces else None)
        reading.observed(delivery.high_watermark, delivery.log_start_offset)
        self._credit.charge(delivery.records, delivery.charged_bytes)
        self._turns.spend(delivery.id, delivery.charged_bytes)
        if self._records_left is not None:
            self._records_left -= delivery.records
        self._run_at += len(pieces)
        if reading.finished:
            self._drop_run(delivery.id)
            self._turns.discard(delivery.id)
        elif self._run_at >= len(run.pieces):
            # With more to come the turn stays here, so that one stream holds one chunk.
            self._run, self._run_of = None, delivery.id if run.more else None
        self._announce(reading)

    # What went wrong.

    def refused(self, partition: PartitionId, refusal: Refusal) -> ResetPolicy:
        """Take a failure to read into account.

        ERROR is returned where the partition has stopped; else the caller finds where to go on and
        calls `reset`. Only positions out of range are reset: a truncated one is the reader's to
        judge, for it has seen records that are gone (KIP-320).
        """
        if refusal.reason is Reason.OFFSET_OUT_OF_RANGE:
            policy = self._settings.reset
        else:
            policy = ResetPolicy.ERROR
        if policy is ResetPolicy.ERROR:
            self.stopped(partition, refusal)
        else:
            self._drop_run(partition)
        return policy

    def reset(self, position: Position, cause: Refusal) -> None:
        """Go on elsewhere, and say so."""
        reading = self.partitions[position.id]
        old = reading.offset
        reading.reset(position)
        self.events.append(PositionReset(reading.position, old, cause))
        self._go_on(reading)

    def stopped(self, partition: PartitionId, refusal: Refusal, seek_id: int = 0) -> None:
        """Stop one partition until a seek, and say why; `seek_id` is that of a seek that failed."""
        reading = self.partitions[partition]
        reading.stopped_by = refusal
        self._drop_run(partition)
        self._turns.discard(partition)
        self.events.append(
            PartitionFailed(
                reading.topic, partition.topic_id, partition.partition, refusal, seek_id
            )
        )

    # The reader's control.

    def granted(self, records: int | None, size_bytes: int | None) -> None:
        """Add credit."""
        self._credit.grant(records, size_bytes)

    def sought(self, seek_id: int, position: Position) -> None:
        """Go elsewhere; nothing from the old place comes behind the answer."""
        reading = self.partitions[position.id]
        self._drop_run(position.id)
        reading.placed(position, stop_at_end=self._settings.stop_at_end)
        self.events.append(SeekDone(seek_id, reading.position))
        self._go_on(reading)

    def paused(self, partitions: Iterable[PartitionId]) -> PartitionId | None:
        """Stop delivering partitions; return the one whose open run was dropped, if one was."""
        dropped = None
        for partition in partitions:
            self.partitions[partition].paused = True
            self._turns.discard(partition)
            if self._drop_run(partition):
                dropped = partition
        return dropped

    def resumed(self, partitions: Iterable[PartitionId]) -> None:
        """Go on with paused partitions."""
        for partition in partitions:
            reading = self.partitions[partition]
            reading.paused = False
            self._go_on(reading)

    def half_closed(self) -> None:
        """Note that no more control will come: credit refills, what has stopped stays so."""
        self._half_closed = True
        self._credit.refill()

    # What the reader is told.

    def observed(self, partition: PartitionId, high_watermark: int, log_start_offset: int) -> None:
        """Take newer bounds of a partition into account; it may be gone by now."""
        if reading := self.partitions.get(partition):
            reading.observed(high_watermark, log_start_offset)

    def heartbeat(self) -> Heartbeat:
        """Return a sign of life."""
        return Heartbeat(
            [reading.position for reading in self.partitions.values()],
            self._credit.records,
            self._credit.size_bytes,
        )

    def end(self) -> End | None:
        """Return how the stream ends, or None while something can still come.

        Where no control can come any more, partitions that have stopped stay so: once the others
        have nothing left to deliver, the stream ends with the refusal.
        """
        if self.is_exhausted:
            return End()
        if self.is_member and not self.partitions:
            return None
        stopped = None
        for reading in self.partitions.values():
            if reading.stopped_by is None:
                if not reading.finished:
                    return None
            elif not self._half_closed:
                return None
            else:
                stopped = stopped or reading.stopped_by
        return End(stopped)

    # Inside.

    def _go_on(self, reading: PartitionReading) -> None:
        if reading.flows:
            self._turns.add(reading.id)
        self._announce(reading)

    def _announce(self, reading: PartitionReading) -> None:
        if reading.caught_up():
            self.events.append(CaughtUp(reading.position))

    def _drop_run(self, partition: PartitionId) -> bool:
        if self._run_of != partition:
            return False
        self._run, self._run_of = None, None
        return True
