"""What a consumer has asked for, what has come, and where it stands in each partition.

Intuition: for each partition there are two positions. What the wire has to continue (`expected`)
runs ahead by what has been read ahead; what the application has been given (`position`) is what it
commits. A broken stream is resumed at `expected`, so there is neither a gap nor a repeat; a seek, or
a pause, drops what was read ahead and sets both anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeAlias, TypeVar

from riverrun._core.batch_view import WireBatch
from riverrun._core.leader_map import ANY
from riverrun._core.partition_reader import (
    Asked,
    Delivered,
    PartitionReader,
    StartedPosition,
)
from riverrun._core.read_ahead import ReadAhead
from riverrun._core.records import CommittedOffset, From, Offset, TopicPartition
from riverrun.errors import CorruptDataError, Reason, RetriableError, RiverrunError

B = TypeVar("B", bound=WireBatch)

Verdict: TypeAlias = Literal["ask again", "seek refused", "told"]
"""What to do about a partition that failed: ask once more, tell whoever seeks, or nothing."""


@dataclass(slots=True)
class ReaderMachine(Generic[B]):
    """All partitions of a consumer, and what was read ahead of the application.

    Args:
        stop_at_end: end at the high watermarks that the first stream begins with.
        begin_at: where to begin, in partitions that are not in `places`.
        places: where to begin, by partition.

    Attributes:
        readers: by partition, in the order in which the broker told them.
        ahead: what was read ahead of the application.
        ended: a broker has ended a stream because it had delivered everything asked for. Only then
            is it known that there is no partition of which nothing has been heard yet.
        error: why nothing more will come at all.
        is_told: a member was told everything that it has, be that nothing, and where that begins.
        deliveries: how many have come, those included that were dropped.
    """

    stop_at_end: bool
    begin_at: From = "earliest"
    places: Mapping[TopicPartition, From] = field(default_factory=dict)
    readers: dict[TopicPartition, PartitionReader] = field(default_factory=dict)
    ahead: ReadAhead[B] = field(default_factory=ReadAhead)
    ended: bool = False
    error: RiverrunError | None = None
    deliveries: int = 0
    is_told: bool = False
    _paused: set[TopicPartition] = field(default_factory=set)
    _last_seek_id: int = 0

    @property
    def finished(self) -> bool:
        """Whether the application has been given everything that it asked for."""
        return (
            self.ended
            and not self.ahead
            and all(reader.finished for reader in self.readers.values())
        )

    @property
    def all_failed(self) -> RiverrunError | None:
        """The first partition's error, where no partition can deliver any more."""
        if self.ahead or not self.readers:
            return None
        errors = [reader.error for reader in self.readers.values() if not reader.finished]
        return errors[0] if errors and all(errors) else None

    @property
    def told(self) -> bool:
        """Whether brokers have told of every partition where it begins, or why it cannot yet."""
        return (self.is_told or bool(self.readers)) and all(
            reader.begun or reader.error or reader.trouble for reader in self.readers.values()
        )

    # From the wire.

    def expect(self, partition: TopicPartition, topic_id: bytes, home: int) -> PartitionReader:
        """Reckon with a partition that is to be read, from where it is to begin, at a broker."""
        reader = self.readers[partition] = PartitionReader(partition, topic_id, 0, 0)
        reader.place = self.places.get(partition, self.begin_at)
        reader.begun = False
        reader.paused = partition in self._paused
        reader.home = home
        return reader

    def wanted_at(self, broker_id: int) -> bool:
        """Whether there is anything to be read from a broker."""
        if not self.readers:
            # What a group gives, it tells.
            return broker_id == ANY and not self.is_told
        return any(
            reader.home == broker_id and reader.is_wanted for reader in self.readers.values()
        )

    def asked(self, broker_id: int = ANY) -> dict[TopicPartition, Asked]:
        """Return what the start of a new stream to a broker has to ask for.

        It is to be given to `started` too.
        """
        asked: dict[TopicPartition, Asked] = {}
        for partition, reader in self.readers.items():
            if reader.home == broker_id and reader.is_wanted:
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
                reader.in_range = reader.in_range or at.in_range
                reader.trouble = None
        return answered

    def delivered(self, delivery: Delivered[B]) -> PartitionReader | None:
        """Queue a delivery, or drop it where the application has gone elsewhere.

        Returns:
            A reader that drops what comes, and will until a seek: the broker may as well stop.

        Raises:
            CorruptDataError: it does not continue the last one.
        """
        self.deliveries += 1
        reader = self.readers.get(delivery.partition)
        if reader is None:
            raise _broken(f"{delivery.partition} was delivered and not asked for")
        if reader.seek_id or reader.paused or reader.dropped:
            reader.dropped = reader.dropped or reader.paused
            self.ahead.refuse(delivery, reader.home)
            return None if reader.error is None or reader.seek_id else reader
        if delivery.first_offset != reader.expected or delivery.next_offset < reader.expected:
            raise _broken(
                f"{delivery.partition}: a delivery from offset {delivery.first_offset} to "
                f"{delivery.next_offset} came where offset {reader.expected} is next"
            )
        reader.expected = delivery.next_offset
        reader.high_watermark = delivery.high_watermark
        reader.in_range = True
        reader.trouble = reader.error = None
        if delivery.batches:
            reader.leader_epoch = delivery.leader_epoch
        self.ahead.add(reader, delivery)
        return None

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
        reader.in_range = True
        reader.leader_epoch = None
        self.ahead.add_position(reader, at.offset)
        return True

    def caught_up(self, partition: TopicPartition) -> None:
        """Take that the broker has no more than was delivered; so the position is one that it has."""
        reader = self.readers.get(partition)
        if reader is not None and not reader.seek_id:
            reader.in_range = True

    def stream_ended(self) -> bool:
        """Take that the broker has ended a stream in order; return whether nothing is left to read.

        What was read ahead may still wait for the application.
        """
        self.ended = all(reader.delivered for reader in self.readers.values())
        return self.ended

    def delivered_from(self, broker_id: int) -> bool:
        """Whether an end was asked for, and all that is read from a broker has come up to there."""
        return self.stop_at_end and all(
            r.delivered for r in self.readers.values() if r.home == broker_id
        )

    def lagging(self, partition: TopicPartition, high_watermark: int) -> None:
        """Take a newer high watermark."""
        reader = self.readers.get(partition)
        if reader is not None:
            reader.high_watermark = max(reader.high_watermark, high_watermark)

    def failed(
        self, at: TopicPartition, topic_id: bytes, error: RiverrunError, seek_id: int = 0
    ) -> Verdict:
        """Take the failure of one partition; `seek_id` is that of the seek that it answers.

        What asking again cannot mend is told to the application, as `give_up` does.
        """
        reader = self.readers.get(at)
        if reader is None:
            reader = self.expect(at, topic_id, ANY)
        awaited = reader.seek_id
        if awaited and seek_id != awaited and (seek_id or reader.start_seek_id != awaited):
            # It was under way before that seek, which has an answer of its own.
            return "told"
        if isinstance(error, RetriableError):
            reader.trouble = error
            return "ask again"
        return self.give_up(reader, error)

    def give_up(self, reader: PartitionReader, error: RiverrunError) -> Verdict:
        """Let a partition be until a seek; its error is told once, behind what came before."""
        sought = bool(reader.seek_id) and not reader.retrying
        reader.seek_id = 0
        if sought:
            reader.error = error
            return "seek refused"
        if reader.error is None:
            reader.error = error
            self.ahead.add_error(reader, error)
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
        self.ahead.purge(reader)
        reader.dropped = True
        reader.error = error

    # From the application.

    def positions(self) -> dict[TopicPartition, CommittedOffset]:
        """Return how far the application has come, to be committed; not where it still goes to."""
        return {
            partition: CommittedOffset(reader.position, leader_epoch=reader.position_epoch)
            for partition, reader in self.readers.items()
            if reader.settled
        }

    def finished_positions(
        self, in_hand: Mapping[PartitionReader, int]
    ) -> dict[TopicPartition, CommittedOffset]:
        """Return up to where the application is through with everything, to be committed.

        Args:
            in_hand: the first offset that it was given and may still be busy with, by reader.
        """
        return {
            partition: CommittedOffset(
                min(reader.position, in_hand.get(reader, reader.position)),
                leader_epoch=reader.position_epoch,
            )
            for partition, reader in self.readers.items()
            # A place that the broker may not have is no news for the group.
            if reader.settled and reader.in_range and not reader.gone
        }

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
        self.ended = False
        self.ahead.purge(reader)
        return reader

    def pause(self, partitions: Iterable[TopicPartition]) -> list[PartitionReader]:
        """Stop returning records of partitions, and drop what was read ahead of them."""
        changed: list[PartitionReader] = []
        for partition in partitions:
            self._paused.add(partition)
            reader = self.readers.get(partition)
            if reader is not None and not reader.paused:
                reader.paused = True
                reader.dropped = self.ahead.purge(reader) or reader.dropped
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
                    # Our own seek: the application stays where it is, and may commit that meanwhile.
                    self.seek(partition, Offset(reader.position)).retrying = True
                changed.append((reader, back))
        return changed

    @property
    def paused(self) -> frozenset[TopicPartition]:
        """The partitions that are paused."""
        return frozenset(self._paused)

    def _begin(self, at: StartedPosition) -> None:
        reader = PartitionReader(at.partition, at.topic_id, at.offset, at.offset)
        reader.high_watermark = at.high_watermark
        reader.in_range = at.in_range
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
        reader.in_range = at.in_range
        reader.seek_id = 0
        reader.place = None
        reader.begun = True
        reader.retrying = False
        reader.trouble = reader.error = None


def _broken(text: str) -> CorruptDataError:
    return CorruptDataError(
        f"{text}; nothing was skipped: read again with a new consumer, and report this",
        reason=Reason.PROTOCOL_BROKEN,
    )
