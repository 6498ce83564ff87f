"""From what was read ahead to the application: batches checked, and taken apart record by record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from riverrun._core.batch_view import BatchView, WireBatch
from riverrun._core.decoding import WireRecord
from riverrun._core.partition_reader import PartitionReader, Taken
from riverrun._core.reading import ReaderMachine
from riverrun._core.records import CommittedOffset, Record, TopicPartition
from riverrun.errors import CorruptDataError, DeserializationError, RiverrunError

B = TypeVar("B", bound=WireBatch)
W = TypeVar("W", bound=WireRecord)

Deserialize: TypeAlias = Callable[[Record], Record[Any, Any]]
"""Makes what an application wants of a record as it was read; raises DeserializationError."""

# So many are deserialised at a time: a batch of many thousands would keep other tasks waiting.
_READY_RECORDS = 256


class HandingOut(Generic[B, W]):
    """One batch at a time. Transitions: nothing -> open (`next_view`) -> apart (`take_apart`) -> ...

    A reader's position follows what has been handed out and nothing else: what was only opened, or
    taken apart, has not been given yet. What has been given is *in hand* until the application asks
    for more (`asked`): only then is it finished with.

    Args:
        machine: what was read ahead, and where each partition stands.
        parse: makes records of a serialised record set.
        deserialize: what is made of each record; None is the record itself.

    Attributes:
        batches: how many batches were opened.
        bytes: how many bytes their record sets had, as they travelled.
    """

    def __init__(
        self,
        machine: ReaderMachine[B],
        parse: Callable[[bytes], Sequence[W]],
        deserialize: Deserialize | None = None,
    ) -> None:
        self._machine = machine
        self._parse = parse
        self._deserialize = deserialize
        self._taken: Taken[B] | None = None
        self._records: list[Record[Any, Any]] = []
        # Of the open batch's records: the next one, how far `one` may go, how far they are ready,
        # and the first one that has been handed out since the application asked for more.
        self._index = self._stop = self._ready = self._since = 0
        self._next_offset = 0
        self._in_hand: dict[PartitionReader, int] = {}
        self._error: RiverrunError | None = None
        self._error_of: PartitionReader | None = None
        # First offsets that others have in hand than whoever asks next: threads share a consumer.
        self.held: Callable[[], Mapping[TopicPartition, int]] = dict
        self._opened_records = 0
        self.batches = 0
        self.bytes = 0

    @property
    def empty(self) -> bool:
        """Whether no record is left of the batch that was taken apart."""
        return self._index >= len(self._records)

    @property
    def records(self) -> int:
        """How many records have been handed out."""
        return self._opened_records - (len(self._records) - self._index)

    # What the application is through with.

    def asked(self) -> None:
        """Note that the application asks for more: it is through with all that it was given."""
        self._in_hand.clear()
        self._since = self._index

    def committed(self, positions: Mapping[TopicPartition, CommittedOffset]) -> None:
        """Note what the application has committed: it is through with what lies before that, and no more."""
        for partition, at in positions.items():
            reader = self._machine.readers.get(partition)
            if reader is None:
                continue
            self._in_hand.pop(reader, None)
            if self._taken is not None and self._taken.reader is reader:
                # `one` is to find out first that more is asked for.
                self._since = self._stop = self._index
            if at.offset < reader.position:
                self._in_hand[reader] = at.offset

    def in_hand(self) -> dict[PartitionReader, int]:
        """Return the first offset in hand, of each partition that something is in hand of."""
        in_hand = self._own_hand()
        for partition, offset in self.held().items():
            reader = self._machine.readers.get(partition)
            if reader is not None:
                in_hand[reader] = min(offset, in_hand.get(reader, offset))
        return in_hand

    def _own_hand(self) -> dict[PartitionReader, int]:
        in_hand = dict(self._in_hand)
        if self._index > self._since:
            assert self._taken is not None, "records were taken from somewhere"
            in_hand[self._taken.reader] = self._records[self._index - 1].offset
        return in_hand

    # Batches.

    def next_view(self) -> BatchView[W] | None:
        """Open the next batch that has records; None where nothing is there.

        Raises:
            RiverrunError: of a partition that cannot be read any more, or a damaged batch.
        """
        if self._error is not None:
            error, self._error, self._error_of = self._error, None, None
            raise error
        while (taken := self._machine.ahead.take()) is not None:
            view = self._view(taken)
            if len(view):
                self._open(taken, [])
                taken.reader.position_epoch = view.leader_epoch
                self._opened_records += len(view)
                self.batches += 1
                self.bytes += len(taken.batch.records)
                return view
            self._machine.advanced(taken.reader, view.next_offset)
        return None

    def rest(self) -> BatchView[W] | None:
        """Give up taking apart: return what is left of the open batch, if there is something."""
        if self._taken is None or self.empty:
            return None
        view = self._view(self._taken)
        self._open(self._taken, [])
        return view

    def given(self, view: BatchView[W]) -> None:
        """Note that the open batch is handed out whole."""
        assert self._taken is not None, "a view was taken from somewhere"
        reader = self._taken.reader
        self._in_hand.setdefault(reader, reader.position)
        self._machine.advanced(reader, view.next_offset)

    # Records.

    def take_apart(self, view: BatchView[W]) -> None:
        """Get the records of the open batch ready.

        Raises:
            CorruptDataError: it cannot be taken apart; its partition is given up.
            DeserializationError: of its first record; its partition is given up.
        """
        assert self._taken is not None, "a view was taken from somewhere"
        try:
            records = view.to_records()
        except CorruptDataError as error:
            self._opened_records -= len(view)
            self._machine.corrupt(self._taken.reader, error)
            raise
        self._open(self._taken, records)
        self._next_offset = view.next_offset
        self._get_ready()

    def go_on(self) -> bool:
        """Get more of the open batch ready; return whether something is left of it.

        Raises:
            DeserializationError: of the next record; its partition is given up.
        """
        if self.empty:
            return False
        self._get_ready()
        return True

    def one(self) -> Record[Any, Any] | None:
        """Hand out the next record; None where none is ready."""
        index = self._index
        if index >= self._stop:
            return None
        assert self._taken is not None, "records were taken from somewhere"
        records = self._records
        record = records[index]
        self._index = index = index + 1
        at_end = index == len(records)
        self._taken.reader.position = self._next_offset if at_end else record.offset + 1
        return record

    def peek(self) -> Record[Any, Any] | None:
        """Return what `one` would hand out, and leave it there."""
        return self._records[self._index] if self._index < self._stop else None

    def some(self, count: int) -> Sequence[Record[Any, Any]]:
        """Hand out up to so many of the records that are ready."""
        assert self._taken is not None, "records were taken from somewhere"
        reader = self._taken.reader
        self._in_hand.setdefault(reader, reader.position)
        records = self._records[self._index : min(self._index + count, self._ready)]
        self._index += len(records)
        # `one` is not to go on from here before it is known that these are finished with.
        self._since = self._stop = self._index
        reader.position = self._next_offset if self.empty else records[-1].offset + 1
        return records

    def postpone(self, error: RiverrunError) -> None:
        """Keep an error for the next call, behind the records that this one returns."""
        self._error = error
        readers = self._machine.readers.values()
        self._error_of = next((reader for reader in readers if reader.error is error), None)

    # Going elsewhere.

    def forget(self, partition: TopicPartition) -> bool:
        """Drop what is left of a batch of this partition, and its error; return whether something was."""
        postponed = self._error_of is not None and self._error_of.partition == partition
        if postponed:
            # Whoever goes elsewhere has nothing to do with it; whoever comes back is told again.
            self._error = self._error_of = None
        if self._taken is None or self._taken.reader.partition != partition:
            return postponed
        left = not self.empty
        self.clear()
        return left or postponed

    def clear(self) -> None:
        """Let go of the open batch; what is in hand stays in hand."""
        self._in_hand = self._own_hand()
        self._opened_records -= len(self._records) - self._index
        self._open(None, [])

    def _open(self, taken: Taken[B] | None, records: list[Record[Any, Any]]) -> None:
        self._taken = taken
        self._records = records
        self._index = self._stop = self._ready = self._since = 0

    def _get_ready(self) -> None:
        """Deserialise some more where that is to be done, and let them be handed out."""
        if self._deserialize is None:
            self._ready = len(self._records)
        elif self._ready <= self._index:
            self._deserialize_some(self._deserialize)
        self._stop = self._ready

    def _deserialize_some(self, deserialize: Deserialize) -> None:
        records, first = self._records, self._index
        end = min(first + _READY_RECORDS, len(records))
        for index in range(first, end):
            try:
                records[index] = deserialize(records[index])
            except DeserializationError as error:
                if index > first:
                    # Those before it come first.
                    end = index
                    break
                assert self._taken is not None, "records were taken from somewhere"
                reader = self._taken.reader
                self.clear()
                self._machine.corrupt(reader, error)
                raise
        self._ready = end

    def _view(self, taken: Taken[B]) -> BatchView[W]:
        """Check a batch.

        Raises:
            CorruptDataError: a checksum is wrong; its partition is given up.
        """
        reader, batch = taken.reader, taken.batch
        next_offset = taken.next_offset
        if next_offset < 0:
            next_offset = min(batch.base_offset + batch.last_offset_delta + 1, taken.end)
        try:
            return BatchView(
                reader.partition,
                reader.topic_id,
                batch,
                self._parse,
                first=max(taken.first, reader.position),
                end=taken.end,
                next_offset=next_offset,
                high_watermark=taken.high_watermark,
            )
        except CorruptDataError as error:
            self._machine.corrupt(reader, error)
            raise
