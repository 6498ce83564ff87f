"""One turn of a coordinator: what its calls and timers write together, and what waits until that is committed.

Intuition: whoever is served later in a turn sees what was done earlier in it, and nobody outside sees
anything of it before it is committed. Groups are machines whose only memory is the log, so their records
are replayed as they are written; offsets are replayed once they are committed, for whoever asks for
offsets is not made to wait for a turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

from riverrun.v1.records_pb2 import Record as TopicRecord
from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups.groups import Groups
from riverrun_server.core.groups.members import Record
from riverrun_server.core.groups.offsets import CommittedOffsets, OffsetRecord
from riverrun_server.core.groups.offsets_partition import OffsetsPartition
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.wire.group_records import packed_bytes, to_record

T = TypeVar("T")

Answer: TypeAlias = Callable[[], T]
"""Says what to answer, once everything that the turn has written is committed."""

# Fewer than a batch may have; records of the offsets topic are seldom smaller than 50 bytes.
_BATCH_RECORDS = 20_000


class Turn:
    """What one turn writes and answers.

    Transitions: open (`write`, `store`, `answer`) -> appended, batch by batch -> `succeed` | `fail`.

    Args:
        partition: what the log says; records of groups are replayed there as they are written.
        now_ms: the broker's clock, one time for the whole turn.

    Attributes:
        base: the offset of the first record.
        has_groups: whether anything about groups was written, which is known already and may not come
            to be in the log.
        size_bytes: of all records, about.
    """

    def __init__(self, partition: OffsetsPartition, now_ms: int) -> None:
        self._partition = partition
        self._entries = self._entries_bytes = 0
        # What is appended together or not at all, with its size.
        self._units: list[tuple[list[TopicRecord], int]] = []
        self._count = 0
        self._offsets: list[tuple[int, OffsetRecord]] = []
        self._stored: set[tuple[str, PartitionId]] = set()
        self._answers: list[tuple[asyncio.Future[Any], Answer[Any] | Refusal]] = []
        self.now_ms = now_ms
        self.base = partition.offsets.next_offset
        self.has_groups = False
        self.size_bytes = 0

    @property
    def groups(self) -> Groups:
        """The groups, as they are after everything that this turn has written."""
        return self._partition.groups

    @property
    def offsets(self) -> CommittedOffsets:
        """The offsets, as they were before this turn."""
        return self._partition.offsets

    @property
    def is_empty(self) -> bool:
        """Whether nothing is written."""
        return not self._units

    @property
    def has_offsets(self) -> bool:
        """Whether offsets are written, which `offsets` does not know yet."""
        return bool(self._offsets)

    def write(self, records: Sequence[Record]) -> None:
        """Write records; after any first part of them the log is as good as after all."""
        for record in records:
            self._write([record])

    def store(self, group_id: str, records: Sequence[OffsetRecord]) -> None:
        """Write offsets of a group, all or none.

        Raises:
            Refusal: LIMIT_EXCEEDED, there is no room in memory.
        """
        offsets = self._partition.offsets
        entries, size = offsets.growth(records)
        offsets.check_room(group_id, self._entries + entries, self._entries_bytes + size)
        self._entries += entries
        self._entries_bytes += size
        if records:
            self._write(records)

    def store_each(self, group_id: str, records: Sequence[OffsetRecord]) -> None:
        """Write offsets of a group one by one, for all of them may be more than a batch.

        Raises:
            Refusal: as `store`.
        """
        for record in records:
            self.store(group_id, [record])

    def rewrite(self, stale: Sequence[Record], limit_bytes: int) -> None:
        """Write again what a rewrite says, as far as it fits.

        Offsets that this turn has replaced are left out: an old value behind a new one would bring the
        old one back. Of groups only what is known by now is written.
        """
        for record in stale:
            if isinstance(record, OffsetRecord) and (
                (record.group_id, record.partition) in self._stored
            ):
                continue
            if self.size_bytes > limit_bytes:
                return
            self._write([record])

    def answer(self, done: asyncio.Future[T], answer: Answer[T] | Refusal) -> None:
        """Answer a call once everything is committed."""
        self._answers.append((done, answer))

    def batches(self, limit_bytes: int) -> Iterator[list[TopicRecord]]:
        """Yield what is to be appended, in this order, in batches of about so many bytes."""
        batch: list[TopicRecord] = []
        size = 0
        for records, unit_bytes in self._units:
            full = size + unit_bytes > limit_bytes or len(batch) + len(records) > _BATCH_RECORDS
            if batch and full:
                yield batch
                batch, size = [], 0
            batch += records
            size += unit_bytes
        if batch:
            yield batch

    def succeed(self) -> None:
        """Take into account that everything is committed, and answer everybody."""
        for offset, record in self._offsets:
            self._partition.replay(record, offset)
        for done, answer in self._answers:
            if done.done():
                continue
            if isinstance(answer, Refusal):
                refuse(done, answer)
            else:
                done.set_result(answer())

    def fail(self, why: Refusal) -> None:
        """Tell everybody that it is not in the log, or that nobody knows."""
        for done, _ in self._answers:
            refuse(done, why)

    def _write(self, records: Sequence[Record]) -> None:
        packed = [to_record(record) for record in records]
        size = packed_bytes(packed)
        for at, record in enumerate(records, self.base + self._count):
            if isinstance(record, OffsetRecord):
                self._offsets.append((at, record))
                self._stored.add((record.group_id, record.partition))
            else:
                self.has_groups = True
                self._partition.replay(record, at)
        self._units.append((packed, size))
        self._count += len(records)
        self.size_bytes += size


def refuse(done: asyncio.Future[Any], why: BaseException) -> None:
    """Answer a call with a refusal, which its caller may be too late to hear."""
    if done.done():
        return
    # One that is raised twice collects both tracebacks.
    again = Refusal(why.reason, why.message) if type(why) is Refusal else why
    done.set_exception(again)
    done.exception()
