"""From what was read ahead to the application: batches checked, and taken apart record by record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from riverrun._core.batch_view import BatchView, WireBatch
from riverrun._core.decoding import WireRecord
from riverrun._core.partition_reader import Taken
from riverrun._core.reading import ReaderMachine
from riverrun._core.records import Record, TopicPartition
from riverrun.errors import CorruptDataError, RiverrunError

B = TypeVar("B", bound=WireBatch)
W = TypeVar("W", bound=WireRecord)


class HandingOut(Generic[B, W]):
    """One batch at a time. Transitions: nothing -> open (`next_view`) -> apart (`take_apart`) -> ...

    A reader's position follows what has been handed out and nothing else: what was only opened, or
    taken apart, has not been given yet.

    Args:
        machine: what was read ahead, and where each partition stands.
        parse: makes records of a serialised record set.
    """

    def __init__(self, machine: ReaderMachine[B], parse: Callable[[bytes], Sequence[W]]) -> None:
        self._machine = machine
        self._parse = parse
        self._taken: Taken[B] | None = None
        self._records: Sequence[Record] = ()
        self._index = 0
        self._next_offset = 0
        self._error: RiverrunError | None = None

    @property
    def empty(self) -> bool:
        """Whether no record is left of the batch that was taken apart."""
        return self._index >= len(self._records)

    # Batches.

    def next_view(self) -> BatchView[W] | None:
        """Open the next batch that has records; None where nothing is there.

        Raises:
            RiverrunError: of a partition that cannot be read any more, or a damaged batch.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        while (taken := self._machine.ahead.take()) is not None:
            view = self._view(taken)
            if len(view):
                self._taken = taken
                self._records, self._index = (), 0
                taken.reader.position_epoch = view.leader_epoch
                return view
            self._machine.advanced(taken.reader, view.next_offset)
        return None

    def rest(self) -> BatchView[W] | None:
        """Give up taking apart: return what is left of the open batch, if there is something."""
        if self._taken is None or self.empty:
            return None
        self._records, self._index = (), 0
        return self._view(self._taken)

    def given(self, view: BatchView[W]) -> None:
        """Note that the open batch is handed out whole."""
        assert self._taken is not None, "a view was taken from somewhere"
        self._machine.advanced(self._taken.reader, view.next_offset)

    # Records.

    def take_apart(self, view: BatchView[W]) -> None:
        """Get the records of the open batch ready.

        Raises:
            CorruptDataError: it cannot be taken apart; its partition is given up.
        """
        assert self._taken is not None, "a view was taken from somewhere"
        try:
            self._records, self._index = view.to_records(), 0
        except CorruptDataError as error:
            self._machine.corrupt(self._taken.reader, error)
            raise
        self._next_offset = view.next_offset

    def one(self) -> Record | None:
        """Hand out the next record; None where none is left."""
        index, records = self._index, self._records
        if index >= len(records):
            return None
        assert self._taken is not None, "records were taken from somewhere"
        record = records[index]
        self._index = index = index + 1
        at_end = index == len(records)
        self._taken.reader.position = self._next_offset if at_end else record.offset + 1
        return record

    def some(self, count: int) -> Sequence[Record]:
        """Hand out up to so many records."""
        assert self._taken is not None, "records were taken from somewhere"
        records = self._records[self._index : self._index + count]
        self._index += len(records)
        position = self._next_offset if self.empty else records[-1].offset + 1
        self._taken.reader.position = position
        return records

    def postpone(self, error: RiverrunError) -> None:
        """Keep an error for the next call, behind the records that this one returns."""
        self._error = error

    # Going elsewhere.

    def forget(self, partition: TopicPartition) -> bool:
        """Drop what is left of a batch of this partition; return whether something was."""
        if self._taken is None or self._taken.reader.partition != partition:
            return False
        left = not self.empty
        self.clear()
        return left

    def clear(self) -> None:
        """Let go of the open batch."""
        self._taken = None
        self._records, self._index = (), 0

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
