"""From what was read ahead to the application: batches checked, and taken apart record by record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from riverrun._core.batch_view import BatchView, WireBatch
from riverrun._core.decoding import WireRecord
from riverrun._core.partition_reader import PartitionReader, Taken
from riverrun._core.put_back import Given, PutBack
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
        taken: the open batch.
        index: the next one of its records.
        seeks: how often the application has gone elsewhere.
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
        self.taken: Taken[B] | None = None
        self._records: list[Record[Any, Any]] = []
        # Of the open batch's records: how far `one` may go, how far they are ready,
        # and the first one that has been handed out since the application asked for more.
        self.index = self._stop = self._ready = self._since = 0
        self._next_offset = 0
        # Whether the open batch was put back, and the application has been given what lies behind it.
        self._is_hole = False
        self._put_back: PutBack[B] = PutBack()
        self.seeks = 0
        self._given: list[Given[B]] = []
        self._in_hand: dict[PartitionReader, int] = {}
        self._error: RiverrunError | None = None
        self._error_of: PartitionReader | None = None
        # First offsets that others have in hand than whoever asks next: threads share a consumer.
        self.held: Callable[[], Mapping[TopicPartition, int]] = dict
        self.on_asked: Callable[[], object] = object  # whoever waits for what is in hand
        self._opened_records = 0
        self.batches = self.bytes = 0

    @property
    def empty(self) -> bool:
        """Whether no record is left of the batch that was taken apart."""
        return self.index >= len(self._records)

    @property
    def records(self) -> int:
        """How many records have been handed out."""
        return self._opened_records - (len(self._records) - self.index)

    # What the application is through with.

    def asked(self) -> None:
        """Note that the application asks for more: it is through with all that it was given."""
        self._in_hand.clear()
        self._given = []
        self._since = self.index
        self.on_asked()

    def committed(self, positions: Mapping[TopicPartition, CommittedOffset]) -> None:
        """Note what the application has committed: it is through with what lies before that, and no more."""
        for partition, at in positions.items():
            reader = self._machine.readers.get(partition)
            if reader is None:
                continue
            self._in_hand.pop(reader, None)
            if self.taken is not None and self.taken.reader is reader:
                # `one` is to find out first that more is asked for.
                self._since = self._stop = self.index
            if at.offset < reader.position:
                self._in_hand[reader] = at.offset

    def in_hand(self) -> dict[PartitionReader, int]:
        """Return the first offset in hand, of each partition that something is in hand of."""
        in_hand = self._own_hand()
        for partition, offset in self.held().items():
            reader = self._machine.readers.get(partition)
            if reader is not None:
                in_hand[reader] = min(offset, in_hand.get(reader, offset))
        for reader, offset in self._holes():
            in_hand[reader] = min(offset, in_hand.get(reader, offset))
        return in_hand

    def position(self, reader: PartitionReader) -> int:
        """Return where the application stands: at the first record that was put back, if any was."""
        return min([reader.position, *(at for of, at in self._holes() if of is reader)])

    def positions(self) -> dict[TopicPartition, CommittedOffset]:
        """Return that of all readers, to be committed; not where one still goes to."""
        positions = self._machine.positions()
        for reader, offset in self._holes():
            at = positions.get(reader.partition)
            if at is not None and offset < at.offset:
                positions[reader.partition] = at._replace(offset=offset)
        return positions

    def _holes(self) -> list[tuple[PartitionReader, int]]:
        holes = [*self._put_back.holes()]
        if self._is_hole and not self.empty:
            assert self.taken is not None, "records were taken from somewhere"
            holes.append((self.taken.reader, self._records[self.index].offset))
        return holes

    def _own_hand(self) -> dict[PartitionReader, int]:
        in_hand = dict(self._in_hand)
        if self.index > self._since:
            assert self.taken is not None, "records were taken from somewhere"
            in_hand[self.taken.reader] = self._records[self.index - 1].offset
        return in_hand

    # Batches.

    def next_view(self) -> BatchView[W] | None:
        """Open the next batch that has records; None where nothing is there.

        Raises:
            RiverrunError: of a partition that cannot be read any more, or a damaged batch.
        """
        if self._error is not None and not self._put_back:
            error, self._error, self._error_of = self._error, None, None
            raise error
        if (part := self._put_back.take()) is not None:
            view = self._view(part.taken)
            self._open(part.taken, [], is_hole=part.is_hole)
            self._opened_records += len(view)
            return view
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
        if self.taken is None or self.empty:
            return None
        rest = self._rest_of(self.taken)
        view = self._view(rest)
        self._open(rest, [], is_hole=self._is_hole)
        return view

    def given(self, view: BatchView[W]) -> None:
        """Note that the open batch is handed out whole."""
        assert self.taken is not None, "a view was taken from somewhere"
        self._hand_over(view.offsets[0], view.next_offset, len(view))

    # Records.

    def take_apart(self, view: BatchView[W]) -> None:
        """Get the records of the open batch ready.

        Raises:
            CorruptDataError: it cannot be taken apart; its partition is given up.
            DeserializationError: of its first record; its partition is given up.
        """
        assert self.taken is not None, "a view was taken from somewhere"
        try:
            records = view.to_records()
        except CorruptDataError as error:
            self._opened_records -= len(view)
            self._machine.corrupt(self.taken.reader, error)
            raise
        self._open(self.taken, records, is_hole=self._is_hole)
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
        index = self.index
        if index >= self._stop:
            return None
        assert self.taken is not None, "records were taken from somewhere"
        records = self._records
        record = records[index]
        self.index = index = index + 1
        at_end = index == len(records)
        if not self._is_hole:
            self.taken.reader.position = self._next_offset if at_end else record.offset + 1
        return record

    def undo(self, index: int) -> None:
        """Undo what `one` may have done since the next record was that one; nothing else was done."""
        if self.index > index:
            assert self.taken is not None, "a record was taken from somewhere"
            reader, record = self.taken.reader, self._records[index]
            if not self._is_hole and reader.position > record.offset:
                reader.position = record.offset
            self.index = index

    def some(self, count: int) -> Sequence[Record[Any, Any]]:
        """Hand out up to so many of the records that are ready."""
        records = self._records[self.index : min(self.index + count, self._ready)]
        self.index += len(records)
        # `one` is not to go on from here before it is known that these are finished with.
        self._since = self._stop = self.index
        end = self._next_offset if self.empty else records[-1].offset + 1
        self._hand_over(records[0].offset, end, len(records))
        return records

    def _hand_over(self, first: int, end: int, count: int) -> None:
        """Note what is in hand now; `end` is where to go on from."""
        assert self.taken is not None, "records were taken from somewhere"
        reader = self.taken.reader
        first = min(first, reader.position)
        self._in_hand[reader] = min(first, self._in_hand.get(reader, first))
        self._given.append(Given(self.taken, first, end, count, self.seeks))
        reader.position = max(reader.position, end)

    # Back from who was given it.

    @property
    def waits(self) -> bool:
        """Whether something that was put back waits, paused partitions included."""
        return bool(self._put_back)

    def given_by_call(self) -> Sequence[Given[B]]:
        """Return what was handed out since more was asked for, to be put back if it reaches nobody."""
        return self._given

    def given_one(self, taken: Taken[B], record: Record[Any, Any], seeks: int) -> Given[B]:
        """Return the same of what `one` has handed out, for it keeps no account.

        Args:
            taken: the batch that was open then.
            record: what it returned.
            seeks: what `seeks` was then.
        """
        end = record.offset + 1
        if self.taken is taken and self._records and self.empty:
            # Behind the last record the position steps over what follows without records.
            last = self._records[-1].offset == record.offset
            end = self._next_offset if last else end
        return Given(taken, record.offset, end, 1, seeks)

    def put_back(self, given: Sequence[Given[B]]) -> None:
        """Take back what has reached nobody: it comes next, and the open batch behind it."""
        own_hand = self._own_hand()
        if self.taken is not None and not self.empty:
            self._put_back.add_part(self._rest_of(self.taken), is_hole=self._is_hole)
            self._opened_records -= len(self._records) - self.index
        self._open(None, [])
        # Of each partition the last ones first: its position goes back step by step.
        for part in reversed(given):
            if self._put_back.add(part):
                self._opened_records -= part.records
                self._given = []
        self._in_hand = own_hand

    def _rest_of(self, taken: Taken[B]) -> Taken[B]:
        return taken._replace(first=self._records[self.index].offset)

    def postpone(self, error: RiverrunError) -> None:
        """Keep an error for the next call, behind the records that this one returns."""
        self._error = error
        readers = self._machine.readers.values()
        self._error_of = next((reader for reader in readers if reader.error is error), None)

    # Going elsewhere.

    def forget(self, partition: TopicPartition, *, pausing: bool = False) -> bool:
        """Drop what is left of a batch of this partition, and its error; return whether something was.

        Whoever goes elsewhere gives up what was put back; who only pauses (`pausing`) is given it later.
        """
        if pausing and self._is_hole and self.taken is not None:
            # It is not to be read again from the position, and waits until the pause is over.
            self.put_back(())
        put_back = self._put_back.pause if pausing else self._put_back.seek
        dropped = put_back(partition)
        self.seeks = self._put_back.seeks
        postponed = self._error_of is not None and self._error_of.partition == partition
        if postponed:
            # Whoever goes elsewhere has nothing to do with it; whoever comes back is told again.
            self._error = self._error_of = None
        if self.taken is None or self.taken.reader.partition != partition:
            return postponed or dropped
        left = not self.empty
        self._let_go()
        return left or postponed or dropped

    def clear(self) -> None:
        """Let go of everything; what is in hand stays in hand."""
        self._let_go()
        self._put_back.clear()
        self._given = []

    def _let_go(self) -> None:
        self._in_hand = self._own_hand()
        self._opened_records -= len(self._records) - self.index
        self._open(None, [])

    def _open(
        self, taken: Taken[B] | None, records: list[Record[Any, Any]], *, is_hole: bool = False
    ) -> None:
        self.taken = taken
        self._is_hole = is_hole
        self._records = records
        self.index = self._stop = self._ready = self._since = 0

    def _get_ready(self) -> None:
        """Deserialise some more where that is to be done, and let them be handed out."""
        if self._deserialize is None:
            self._ready = len(self._records)
        elif self._ready <= self.index:
            self._deserialize_some(self._deserialize)
        self._stop = self._ready

    def _deserialize_some(self, deserialize: Deserialize) -> None:
        records, first = self._records, self.index
        end = min(first + _READY_RECORDS, len(records))
        for index in range(first, end):
            try:
                records[index] = deserialize(records[index])
            except DeserializationError as error:
                if index > first:
                    # Those before it come first.
                    end = index
                    break
                assert self.taken is not None, "records were taken from somewhere"
                reader = self.taken.reader
                self._let_go()
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
                first=taken.first,
                end=taken.end,
                next_offset=next_offset,
                high_watermark=taken.high_watermark,
            )
        except CorruptDataError as error:
            self._machine.corrupt(reader, error)
            raise
