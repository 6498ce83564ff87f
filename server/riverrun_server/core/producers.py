"""What a partition knows of its idempotent producers, so that a batch sent twice is written once.

The state is a fold over the headers of the partition's batches: `appended` is the only way in, live
and in recovery alike, so a restart, a failover and a truncation (which rebuilds from a snapshot)
all end in the same state. Not here: writing snapshots, and waiting until a duplicate may be
answered; the partition does both.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import BatchHeader, Stamp

MAX_UNACKNOWLEDGED_BATCHES = 64
"""The most batches of one producer that may wait for their answer in one partition.

As many are remembered, so every batch whose answer can have been lost is answered with its offset.
"""

GAP_COUNTED_AT_MOST_MS = 3_600_000
"""A silence counts at most an hour towards expiry: a clock that jumps a year expires nobody."""

_FIELDS = 3  # of a remembered batch in the flat array: first sequence, first offset, record count


@dataclass(frozen=True, slots=True)
class Fresh:
    """The batch has not been written yet and comes next."""


FRESH = Fresh()


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The batch has been written before.

    Attributes:
        first_offset: of the original's first record; None where it is forgotten.
        last_offset: of the original's last record, or, where that is forgotten, an offset at or
            above it; once it meets the ack condition, so does the original.
    """

    first_offset: int | None
    last_offset: int


@dataclass(frozen=True, slots=True)
class ProducerEntry:
    """What a partition knows of one producer.

    Attributes:
        producer_id: above 0.
        producer_epoch: that of the newest batch.
        last_sequence: of the last record written in that epoch.
        last_append_time_ms: of the newest batch; where a silence behind it lasted for more than an
            hour, later than that by the rest of it.
        batches: the newest ones of the epoch, oldest first, as three numbers each: first sequence,
            first offset, record count. Flat, for there may be half a million of them.
    """

    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_append_time_ms: int
    batches: Sequence[int]


@dataclass(frozen=True, slots=True)
class ProducersSnapshot:
    """What a partition knows of its producers at one offset.

    Attributes:
        offset: up to which the log has been taken into account.
        producers: in the order of their newest batches.
    """

    offset: int
    producers: tuple[ProducerEntry, ...]


class _Producer:
    """One producer; its batches lie in a flat array, for there may be very many."""

    __slots__ = ("batches", "counted_ms", "epoch", "next_sequence")

    def __init__(self) -> None:
        self.epoch = -1
        self.next_sequence = 0
        self.counted_ms = 0
        self.batches = array("q")


class ProducerTable:
    """The producers of one partition.

    A producer is in one of two states; `appended` and `expire` are the transitions:

    - unknown -> known(epoch, next sequence): its first batch is appended.
    - known -> known(epoch, next sequence + records): a batch is appended that continues.
    - known -> known(another epoch, or from 0 again): a batch is appended that does not continue;
      `check` lets only a newer epoch through, but a log may also show a producer that had expired.
    - known -> unknown: it has been silent for the retention time.

    `check` decides and changes nothing (KIP-98, with int64 sequences that never wrap; without the
    exception of KIP-360: a producer that is new to a partition starts at 0 there).

    Time for expiry passes from each batch of an idempotent producer to the next, an hour at most;
    behind the newest one it passes from each call of `expire` to the next, an hour at most. So a
    clock may jump, and a full table recovers although nothing can be appended to it.

    Args:
        max_producers: how many may be known at once, at about 2 KB each. One more is refused and
            none is forgotten for it: the batches of one forgotten too early could be written twice.
    """

    __slots__ = (
        "_counted_ms",
        "_max_producers",
        "_newest_ms",
        "_observed_ms",
        "_producers",
        "_quiet_ms",
    )

    def __init__(self, max_producers: int) -> None:
        assert max_producers > 0, max_producers
        self._max_producers = max_producers
        # In the order of their newest batches, so that expiry looks at the front only.
        self._producers: OrderedDict[int, _Producer] = OrderedDict()
        self._newest_ms = 0  # append time of the newest batch
        self._counted_ms = 0  # time that has passed up to the newest batch; only differences matter
        self._observed_ms = 0  # when `expire` was called last, or the newest batch if that is later
        self._quiet_ms = 0  # time that has passed from the newest batch to then

    def __len__(self) -> int:
        """Return how many producers are known."""
        return len(self._producers)

    def check(self, header: BatchHeader) -> Fresh | Duplicate:
        """Decide whether a batch is to be appended or was appended before.

        Raises:
            Refusal: UNKNOWN_PRODUCER (it must start at 0), OUT_OF_ORDER_SEQUENCE (a gap or a partial
                overlap; names the expected sequence), PRODUCER_FENCED (a newer epoch has written),
                LIMIT_EXCEEDED (the table is full; `expire` may make room).
        """
        producer_id = header.producer_id
        if not producer_id:
            return FRESH
        producer = self._producers.get(producer_id)
        if producer is None:
            return self._check_new(header)
        epoch = header.producer_epoch
        if epoch == producer.epoch:
            if header.base_sequence == producer.next_sequence:
                return FRESH
            return _check_repeated(header, producer)
        if epoch > producer.epoch:
            return _check_start(header)
        raise Refusal(
            Reason.PRODUCER_FENCED,
            f"epoch {epoch} of producer {producer_id} has ended: epoch {producer.epoch} has written "
            f"to this partition; stop this producer, or begin again with a new producer id",
        )

    def _check_new(self, header: BatchHeader) -> Fresh:
        _check_start(header)
        if len(self._producers) >= self._max_producers:
            raise Refusal(
                Reason.LIMIT_EXCEEDED,
                f"producer {header.producer_id} is new to this partition, which knows "
                f"{len(self._producers)} idempotent producers and may know {self._max_producers}; "
                f"reuse producers, or produce without a producer id until others expire",
            )
        return FRESH

    def appended(self, header: BatchHeader, stamp: Stamp) -> None:
        """Take in a batch that is now in the log; to be called in the order of the log."""
        producer_id = header.producer_id
        if not producer_id:
            return
        producer = self._producers.get(producer_id)
        if producer is None:
            producer = self._producers[producer_id] = _Producer()
        else:
            self._producers.move_to_end(producer_id)
        self._pass_time(stamp.append_time_ms)
        producer.counted_ms = self._counted_ms
        batches = producer.batches
        first = header.base_sequence
        if first != producer.next_sequence or header.producer_epoch != producer.epoch:
            producer.epoch = header.producer_epoch
            del batches[:]
        elif len(batches) == MAX_UNACKNOWLEDGED_BATCHES * _FIELDS:
            del batches[:_FIELDS]
        producer.next_sequence = first + header.record_count
        batches.extend((first, stamp.base_offset, header.record_count))

    def _pass_time(self, append_time_ms: int) -> None:
        gap_ms = append_time_ms - self._newest_ms
        if gap_ms > 0:
            self._counted_ms += min(gap_ms, GAP_COUNTED_AT_MOST_MS)
            self._newest_ms = append_time_ms
        self._observed_ms = self._newest_ms
        self._quiet_ms = 0

    def expire(self, now_ms: int, retention_ms: int) -> int:
        """Forget the producers that have been silent for longer; return how many.

        To be called every few minutes, when the table is full, and now and then during recovery
        with the append time reached. Costs nothing where nobody expires.
        """
        passed_ms = min(now_ms - self._observed_ms, GAP_COUNTED_AT_MOST_MS)
        self._observed_ms = now_ms
        self._quiet_ms += max(passed_ms, 0)
        oldest_kept_ms = self._counted_ms + self._quiet_ms - retention_ms
        expired = 0
        while self._producers:
            producer_id = next(iter(self._producers))
            if self._producers[producer_id].counted_ms >= oldest_kept_ms:
                break
            del self._producers[producer_id]
            expired += 1
        return expired

    def snapshot(self, offset: int) -> ProducersSnapshot:
        """Return the state, which is that of the log below `offset`."""
        late_by_ms = self._newest_ms - self._counted_ms
        return ProducersSnapshot(
            offset,
            tuple(
                ProducerEntry(
                    producer_id=producer_id,
                    producer_epoch=producer.epoch,
                    last_sequence=producer.next_sequence - 1,
                    last_append_time_ms=producer.counted_ms + late_by_ms,
                    batches=array("q", producer.batches),
                )
                for producer_id, producer in self._producers.items()
            ),
        )

    def restore(self, snapshot: ProducersSnapshot) -> None:
        """Replace the state by a snapshot's; batches from its offset on are to be replayed."""
        self._producers.clear()
        self._quiet_ms = 0
        self._newest_ms = self._counted_ms = self._observed_ms = 0
        for entry in sorted(snapshot.producers, key=lambda entry: entry.last_append_time_ms):
            producer = self._producers[entry.producer_id] = _Producer()
            producer.epoch = entry.producer_epoch
            producer.next_sequence = entry.last_sequence + 1
            producer.counted_ms = entry.last_append_time_ms
            assert entry.batches, entry
            producer.batches.extend(entry.batches[-MAX_UNACKNOWLEDGED_BATCHES * _FIELDS :])
            self._newest_ms = self._counted_ms = self._observed_ms = entry.last_append_time_ms


def _check_start(header: BatchHeader) -> Fresh:
    if header.base_sequence == 0:
        return FRESH
    raise Refusal(
        Reason.UNKNOWN_PRODUCER,
        f"producer {header.producer_id} epoch {header.producer_epoch} has not written to this "
        f"partition, or so long ago that it is forgotten: the first sequence must be 0 and is "
        f"{header.base_sequence}; with nothing unresolved, take the next epoch and begin at 0",
        expected_sequence=0,
    )


def _check_repeated(header: BatchHeader, producer: _Producer) -> Duplicate:
    """Find the original of a batch of the current epoch that does not come next."""
    expected = producer.next_sequence
    first, last = header.base_sequence, header.last_sequence
    assert first >= 0, header
    if last >= expected:
        raise Refusal(
            Reason.OUT_OF_ORDER_SEQUENCE,
            f"producer {header.producer_id} epoch {header.producer_epoch} must go on with sequence "
            f"{expected} in this partition and sent {first} to {last}; send again from {expected}, "
            f"in the batches in which it was sent before",
            expected_sequence=expected,
        )
    first_offset, last_offset = _offset_of(producer, first), _offset_of(producer, last)
    # What is forgotten lies below everything that is remembered.
    return Duplicate(first_offset, producer.batches[1] - 1 if last_offset is None else last_offset)


def _offset_of(producer: _Producer, sequence: int) -> int | None:
    """Return where a record of the current epoch stands; None where that is forgotten."""
    batches = producer.batches
    # Sequences have no gaps within an epoch, so this is the batch that has it.
    index = (bisect_right(batches[::_FIELDS], sequence) - 1) * _FIELDS
    if index < 0:
        return None
    return batches[index + 1] + sequence - batches[index]
