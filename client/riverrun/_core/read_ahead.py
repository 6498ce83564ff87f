"""What has been read ahead of the application, in the order in which it came, and its credit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from riverrun._core.batch_view import WireBatch
from riverrun._core.leader_map import ANY
from riverrun._core.partition_reader import Delivered, PartitionReader, Taken
from riverrun.errors import RiverrunError

B = TypeVar("B", bound=WireBatch)


@dataclass(slots=True)
class _Queued(Generic[B]):
    """Part of a delivery that the application has not been given; or only a new position."""

    reader: PartitionReader
    delivery: Delivered[B] | None
    next_offset: int
    broker_id: int = ANY
    taken: int = 0
    released: int = 0
    error: RiverrunError | None = None


class Upcoming(NamedTuple, Generic[B]):
    """A batch that is not to be taken before it is released.

    Attributes:
        queued: the delivery that it came with.
        number: which of its batches it is, from 1.
        batch: the batch.
        end: the offset behind it; behind its delivery, where it is the last one of that.
    """

    queued: _Queued[B]
    number: int
    batch: B
    end: int

    @property
    def reader(self) -> PartitionReader:
        """The reader of its partition."""
        return self.queued.reader


class ReadAhead(Generic[B]):
    """Deliveries, new positions and errors of all partitions, in one queue.

    Each broker's stream has credit of its own. What it costs is given back to the broker that it came
    from, also where the partition is read from another one by then.

    Args:
        gated: whether a batch is to be released before it can be taken.
    """

    def __init__(self, *, gated: bool = False) -> None:
        self._credit_bytes: dict[int, int] = {}
        self._gated = gated
        self._queue: deque[_Queued[B]] = deque()

    def __bool__(self) -> bool:
        """Whether something waits for the application."""
        return bool(self._queue)

    @property
    def queued_bytes(self) -> int:
        """What was read ahead and still costs credit."""
        return sum(q.delivery.charged_bytes for q in self._queue if q.delivery is not None)

    def credit_bytes(self, broker_id: int = ANY) -> int:
        """Return what was taken or dropped since credit was last granted to a broker.

        It is below 0 while more is queued than may be.
        """
        return self._credit_bytes.get(broker_id, 0)

    def grant(self, broker_id: int = ANY) -> int:
        """Return what a broker is to be granted now."""
        granted = self.credit_bytes(broker_id)
        self._credit_bytes[broker_id] = 0
        return granted

    def opening_credit(self, prefetch_bytes: int, broker_id: int = ANY) -> int:
        """Return what a new stream may deliver before more is granted, given what is queued.

        What is queued beyond the allowance is to be taken before anything is granted: else each
        broken stream would add a delivery to what nobody takes.
        """
        room_bytes = prefetch_bytes - sum(
            queued.delivery.charged_bytes
            for queued in self._queue
            if queued.delivery is not None and queued.broker_id == broker_id
        )
        self._credit_bytes[broker_id] = min(0, room_bytes)
        return max(0, room_bytes)

    def _free(self, broker_id: int, size_bytes: int) -> None:
        self._credit_bytes[broker_id] = self.credit_bytes(broker_id) + size_bytes

    def add(self, reader: PartitionReader, delivery: Delivered[B]) -> None:
        """Queue a delivery."""
        self._queue.append(_Queued(reader, delivery, delivery.next_offset, reader.home))

    def add_position(self, reader: PartitionReader, offset: int) -> None:
        """Queue a position that reading goes on at."""
        self._queue.append(_Queued(reader, None, offset))

    def add_error(self, reader: PartitionReader, error: RiverrunError) -> None:
        """Queue an error, to be raised behind what came before it."""
        self._queue.append(_Queued(reader, None, -1, error=error))

    def refuse(self, delivery: Delivered[B], broker_id: int = ANY) -> None:
        """Drop a delivery on arrival; what it cost its broker is free again."""
        self._free(broker_id, delivery.charged_bytes)

    def take(self) -> Taken[B] | None:
        """Return the next batch for the application; None where nothing is there.

        Raises:
            RiverrunError: of a partition that cannot be read any more.
        """
        while self._queue:
            queued = self._queue[0]
            reader, delivery = queued.reader, queued.delivery
            if queued.error is not None:
                self._queue.popleft()
                raise queued.error
            if delivery is None or queued.taken == len(delivery.batches):
                self._queue.popleft()
                self._passed(queued)
                continue
            if self._gated and queued.taken == queued.released:
                return None
            batch = delivery.batches[queued.taken]
            queued.taken += 1
            last = queued.taken == len(delivery.batches)
            end = reader.cut(delivery.next_offset)
            return Taken(
                reader,
                batch,
                max(delivery.first_offset, reader.position),
                end,
                end if last else -1,
                delivery.high_watermark,
            )
        return None

    def upcoming(self) -> Iterator[Upcoming[B]]:
        """Yield the batches that are next in turn and not released, up to a new position or error.

        To be called where `take` has returned nothing.
        """
        for queued in self._queue:
            if queued.delivery is None:
                return
            for index in range(queued.released, len(queued.delivery.batches)):
                yield _upcoming(queued, queued.delivery, index + 1)

    def release(self, batches: Iterable[Upcoming[B]]) -> None:
        """Let batches be taken. Those that were purged meanwhile are gone, whatever comes instead."""
        for upcoming in batches:
            upcoming.queued.released = upcoming.number

    def released(self) -> Iterator[Upcoming[B]]:
        """Yield of each delivery the last batch that was released, where it is not yet passed."""
        for queued in self._queue:
            if queued.delivery is not None and queued.released:
                yield _upcoming(queued, queued.delivery, queued.released)

    def purge(self, reader: PartitionReader) -> bool:
        """Drop what was read ahead of one partition; return whether there was something."""
        dropped = [queued for queued in self._queue if queued.reader is reader]
        self._queue = deque(queued for queued in self._queue if queued.reader is not reader)
        for queued in dropped:
            if queued.delivery is not None:
                self._free(queued.broker_id, queued.delivery.charged_bytes)
        return bool(dropped)

    def clear(self) -> None:
        """Let go of everything."""
        self._queue.clear()

    def _passed(self, queued: _Queued[B]) -> None:
        """Give the credit of a delivery back, and step over offsets without records."""
        if queued.delivery is not None:
            self._free(queued.broker_id, queued.delivery.charged_bytes)
        reader = queued.reader
        position = queued.next_offset
        if reader.end is not None:
            position = min(position, max(reader.end, reader.position))
        if queued.delivery is None:
            # Nothing was read just before it, so there is no leader epoch to go with it.
            reader.position_epoch = None
        reader.position = position


def _upcoming(queued: _Queued[B], delivery: Delivered[B], number: int) -> Upcoming[B]:
    batch, end = delivery.batches[number - 1], queued.reader.cut(delivery.next_offset)
    if number < len(delivery.batches):
        end = min(end, batch.base_offset + batch.last_offset_delta + 1)
    return Upcoming(queued, number, batch, end)
