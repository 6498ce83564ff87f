"""What a consumer has asked for, what has come, and where it stands in each partition.

Intuition: for each partition there are two positions. What the wire has to continue (`expected`)
runs ahead by what has been read ahead; what the application has been given (`position`) is what it
commits. A broken stream is resumed at `expected`, so there is neither a gap nor a repeat; a seek, or
a pause, drops what was read ahead and sets both anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeAlias, TypeVar

from riverrun._core.partition_reader import (
    Asked,
    Delivered,
    PartitionReader,
    StartedPosition,
    Taken,
)
from riverrun._core.records import CommittedOffset, From, Offset, TopicPartition
from riverrun.errors import CorruptDataError, Reason, RetriableError, RiverrunError

B = TypeVar("B")

Verdict: TypeAlias = Literal["ask again", "seek refused", "told"]
"""What to do about a partition that failed: ask once more, tell whoever seeks, or nothing."""


@dataclass(slots=True)
class _Queued(Generic[B]):
    """Part of a delivery that the application has not been given; or only a new position."""

    reader: PartitionReader
    delivery: Delivered[B] | None
    next_offset: int
    taken: int = 0
    error: RiverrunError | None = None


@dataclass(slots=True)
class ReaderMachine(Generic[B]):
    """All partitions of a consumer, and what was read ahead of the application.

    Args:
        stop_at_end: end at the high watermarks that the first stream begins with.
        begin_at: where to begin, in partitions that are not in `places`.
        places: where to begin, by partition.

    Attributes:
        readers: by partition, in the order in which the broker told them.
        credit_bytes: what was taken or dropped since credit was last granted; below 0 while more is
            queued than may be.
        error: why nothing more will come at all.
    """

    stop_at_end: bool
    begin_at: From = "earliest"
    places: Mapping[TopicPartition, From] = field(default_factory=dict)
    readers: dict[TopicPartition, PartitionReader] = field(default_factory=dict)
    credit_bytes: int = 0
    error: RiverrunError | None = None
    _queue: deque[_Queued[B]] = field(default_factory=deque)
    _paused: set[TopicPartition] = field(default_factory=set)
    _last_seek_id: int = 0

    @property
    def finished(self) -> bool:
        """Whether the application has been given everything that it asked for."""
        return (
            self.stop_at_end
            and bool(self.readers)
            and not self._queue
            and all(reader.finished for reader in self.readers.values())
        )

    @property
    def all_failed(self) -> RiverrunError | None:
        """The first partition's error, where no partition can deliver any more."""
        if self._queue or not self.readers:
            return None
        errors = [reader.error for reader in self.readers.values() if not reader.finished]
        return errors[0] if errors and all(errors) else None

    # From the wire.

    def opening_credit(self, prefetch_bytes: int) -> int:
        """Return what a new stream may deliver before more is granted, given what is queued.

        What is queued beyond the allowance is to be taken before anything is granted: else each
        broken stream would add a delivery to what nobody takes.
        """
        room_bytes = prefetch_bytes - self.queued_bytes
        self.credit_bytes = min(0, room_bytes)
        return max(0, room_bytes)

    def asked(self) -> dict[TopicPartition, Asked]:
        """Return what a new stream's start has to ask for, to be given to `started` too."""
        asked: dict[TopicPartition, Asked] = {}
        for partition, reader in self.readers.items():
            if not reader.gone:
                reader.start_seek_id = reader.seek_id
                is_seek = reader.place is not None
                asked[partition] = Asked(reader.resume_at, is_seek, reader.seek_id)
        return asked

    def started(
        self, positions: Iterable[StartedPosition], asked: Mapping[TopicPartition, Asked]
    ) -> list[PartitionReader]:
        """Take where a stream begins; return the readers whose seek that has answered.

        Args:
            positions: as the broker tells them.
            asked: what `asked` returned when the stream's start was written.

        Raises:
            CorruptDataError: the broker does not go on where it was asked to.
        """
        answered: list[PartitionReader] = []
        for at in positions:
            reader, question = self.readers.get(at.partition), asked.get(at.partition)
            if reader is None or question is None:
                self._begin(at)
                continue
            reader.topic_id = at.topic_id
            if question.is_seek:
                # A later seek has an answer of its own.
                if reader.seek_id == question.seek_id:
                    self._placed(reader, at)
                    answered.append(reader)
            elif question.at != Offset(at.offset):
                raise _broken(
                    f"{at.partition}: the broker resumes at offset {at.offset}; it was asked for "
                    f"{question.at}"
                )
            else:
                # What was dropped since then is gone, where it was not dropped before already.
                reader.dropped = reader.dropped and at.offset != reader.position
                reader.expected = at.offset
                reader.high_watermark = at.high_watermark
        return answered

    def delivered(self, delivery: Delivered[B]) -> None:
        """Queue a delivery, or drop it where the application has gone elsewhere.

        Raises:
            CorruptDataError: it does not continue the last one.
        """
        reader = self.readers.get(delivery.partition)
        if reader is None:
            raise _broken(f"{delivery.partition} was delivered and not asked for")
        if reader.seek_id or reader.paused or reader.dropped:
            reader.dropped = reader.dropped or reader.paused
            self.credit_bytes += delivery.charged_bytes
            return
        if delivery.first_offset != reader.expected or delivery.next_offset < reader.expected:
            raise _broken(
                f"{delivery.partition}: a delivery from offset {delivery.first_offset} to "
                f"{delivery.next_offset} came where offset {reader.expected} is next"
            )
        reader.expected = delivery.next_offset
        reader.high_watermark = delivery.high_watermark
        reader.error = None
        if delivery.batches:
            reader.leader_epoch = delivery.leader_epoch
        self._queue.append(_Queued(reader, delivery, delivery.next_offset))

    def sought(self, seek_id: int, at: StartedPosition) -> PartitionReader | None:
        """Take the answer to a seek; return its reader, or None where it is out of date."""
        reader = self.readers.get(at.partition)
        if reader is None or not seek_id or reader.seek_id != seek_id:
            return None
        self._placed(reader, at)
        return reader

    def reset(self, at: StartedPosition, old_offset: int) -> bool:
        """Take a position that was out of range and has been set anew; return whether it counts.

        Raises:
            CorruptDataError: it is not the position that was read from.
        """
        reader = self.readers.get(at.partition)
        if reader is None or reader.seek_id or reader.dropped:
            return False
        if old_offset != reader.expected:
            raise _broken(
                f"{at.partition}: the broker resets offset {old_offset} and {reader.expected} is "
                "next"
            )
        reader.expected = at.offset
        reader.leader_epoch = None
        self._queue.append(_Queued(reader, None, at.offset))
        return True

    def lagging(self, partition: TopicPartition, high_watermark: int) -> None:
        """Take a newer high watermark."""
        reader = self.readers.get(partition)
        if reader is not None:
            reader.high_watermark = max(reader.high_watermark, high_watermark)

    def failed(
        self, at: TopicPartition, topic_id: bytes, error: RiverrunError, seek_id: int = 0
    ) -> Verdict:
        """Take the failure of one partition; `seek_id` is that of the seek that it answers.

        What asking again cannot mend is told to the application, once, behind what came before.
        """
        reader = self.readers.get(at)
        if reader is None:
            reader = self.readers[at] = PartitionReader(at, topic_id, 0, 0)
            reader.place = self.places.get(at, self.begin_at)
            reader.begun = False
            reader.paused = at in self._paused
        awaited = reader.seek_id
        if awaited and seek_id != awaited and (seek_id or reader.start_seek_id != awaited):
            # It was under way before that seek, which has an answer of its own.
            return "told"
        if isinstance(error, RetriableError):
            return "ask again"
        sought = bool(reader.seek_id) and not reader.retrying
        reader.seek_id = 0
        if sought:
            reader.error = error
            return "seek refused"
        if reader.error is None:
            reader.error = error
            self._queue.append(_Queued(reader, None, -1, error=error))
        return "told"

    def ask_again(self, partition: TopicPartition) -> PartitionReader:
        """Seek to where a partition stands already, or seeks to; nothing read ahead is dropped."""
        reader = self.readers[partition]
        if reader.place is None:
            reader.place = reader.resume_at
            reader.retrying = True
        self._last_seek_id += 1
        reader.seek_id = self._last_seek_id
        return reader

    def corrupt(self, reader: PartitionReader, error: RiverrunError) -> None:
        """Give up a partition whose data fails its checks; nothing behind that is returned."""
        self._purge(reader)
        reader.dropped = True
        reader.error = error

    # From the application.

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
            batch = delivery.batches[queued.taken]
            queued.taken += 1
            last = queued.taken == len(delivery.batches)
            end = (
                delivery.next_offset
                if reader.end is None
                else min(delivery.next_offset, reader.end)
            )
            return Taken(
                reader,
                batch,
                max(delivery.first_offset, reader.position),
                end,
                end if last else -1,
                delivery.high_watermark,
            )
        return None

    def positions(self) -> dict[TopicPartition, CommittedOffset]:
        """Return how far the application has come, to be committed; not where it still goes to."""
        return {
            partition: CommittedOffset(reader.position, leader_epoch=reader.position_epoch)
            for partition, reader in self.readers.items()
            if reader.place is None or reader.retrying
        }

    def clear(self) -> None:
        """Let go of everything that was read ahead."""
        self._queue.clear()

    def advanced(self, reader: PartitionReader, position: int) -> None:
        """Note what the application has been given."""
        reader.position = position

    def seek(self, partition: TopicPartition, to: From) -> PartitionReader:
        """Go elsewhere; what was read ahead is dropped until the seek is answered."""
        reader = self.readers[partition]
        self._last_seek_id += 1
        reader.seek_id = self._last_seek_id
        reader.place = to
        reader.begun = True
        reader.retrying = False
        self._purge(reader)
        return reader

    def pause(self, partitions: Iterable[TopicPartition]) -> list[PartitionReader]:
        """Stop returning records of partitions, and drop what was read ahead of them."""
        changed: list[PartitionReader] = []
        for partition in partitions:
            self._paused.add(partition)
            reader = self.readers.get(partition)
            if reader is not None and not reader.paused:
                reader.paused = True
                reader.dropped = self._purge(reader) or reader.dropped
                changed.append(reader)
        return changed

    def resume(self, partitions: Iterable[TopicPartition]) -> list[tuple[PartitionReader, bool]]:
        """Go on; return the readers that were paused, and whether each has a new seek to send."""
        changed: list[tuple[PartitionReader, bool]] = []
        for partition in partitions:
            self._paused.discard(partition)
            reader = self.readers.get(partition)
            if reader is not None and reader.paused:
                reader.paused = False
                back = reader.dropped and (reader.place is None or reader.retrying)
                if back:
                    self.seek(partition, Offset(reader.position))
                changed.append((reader, back))
        return changed

    @property
    def queued_bytes(self) -> int:
        """What was read ahead and still costs credit."""
        return sum(q.delivery.charged_bytes for q in self._queue if q.delivery is not None)

    @property
    def paused(self) -> frozenset[TopicPartition]:
        """The partitions that are paused."""
        return frozenset(self._paused)

    def _begin(self, at: StartedPosition) -> None:
        reader = PartitionReader(at.partition, at.topic_id, at.offset, at.offset)
        reader.high_watermark = at.high_watermark
        reader.paused = at.partition in self._paused
        if self.stop_at_end:
            reader.end = at.high_watermark
        self.readers[at.partition] = reader

    def _placed(self, reader: PartitionReader, at: StartedPosition) -> None:
        reader.expected = at.offset
        reader.high_watermark = at.high_watermark
        if not reader.retrying:
            reader.position = at.offset
            reader.leader_epoch = reader.position_epoch = None
        reader.dropped = reader.dropped and at.offset != reader.position
        if self.stop_at_end and reader.end is None:
            reader.end = at.high_watermark
        reader.seek_id = 0
        reader.place = None
        reader.begun = True
        reader.retrying = False
        reader.error = None

    def _purge(self, reader: PartitionReader) -> bool:
        """Drop what was read ahead of one partition; return whether there was something."""
        dropped = [queued for queued in self._queue if queued.reader is reader]
        self._queue = deque(queued for queued in self._queue if queued.reader is not reader)
        for queued in dropped:
            if queued.delivery is not None:
                self.credit_bytes += queued.delivery.charged_bytes
        return bool(dropped)

    def _passed(self, queued: _Queued[B]) -> None:
        """Give the credit of a delivery back, and step over offsets without records."""
        if queued.delivery is not None:
            self.credit_bytes += queued.delivery.charged_bytes
        reader = queued.reader
        position = queued.next_offset
        if reader.end is not None:
            position = min(position, max(reader.end, reader.position))
        reader.position = position


def _broken(text: str) -> CorruptDataError:
    return CorruptDataError(
        f"{text}; nothing was skipped: read again with a new consumer, and report this",
        reason=Reason.PROTOCOL_BROKEN,
    )
