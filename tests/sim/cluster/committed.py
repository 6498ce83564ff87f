"""What has been committed of one partition: the log that every reader and every leader must agree with."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from google.protobuf.message import DecodeError

from riverrun_server.storage.memory_image import StoredPartition
from tests.sim.cluster.raw_log import RawRecord, next_offset, records_of

NO_DAMAGE: Mapping[bytes, bytes] = {}


class CommittedLog:
    """The committed prefix, as the first replica that exposed each part of it had it stored.

    It only grows, but for a loss that was accepted: then it ends where the new leader's log departs.
    Batches are never forgotten here, also when their partition deletes them.

    Attributes:
        end: the largest high watermark that anybody ever exposed.
        deleted_below: the largest log start that was asked for.
    """

    def __init__(self) -> None:
        self.end = 0
        self.deleted_below = 0
        self._bases: list[int] = []
        self._batches: list[bytes] = []

    def expose(
        self,
        stored: StoredPartition,
        high_watermark: int,
        damaged: Mapping[bytes, bytes] = NO_DAMAGE,
    ) -> str | None:
        """Take into account that a replica showed its log up to a watermark; say what is wrong."""
        fault = self.difference(stored, min(high_watermark, self.end), damaged)
        if fault is not None or high_watermark <= self.end:
            return fault
        first = bisect_left(stored.bases, self.end)
        expected = self.end
        for base, data in zip(stored.bases[first:], stored.batches[first:], strict=True):
            if base >= high_watermark:
                break
            if base != expected:
                return f"offset {expected} is committed and the log goes on with {base}"
            self._bases.append(base)
            self._batches.append(damaged.get(data, data))
            try:
                expected = next_offset(self._batches[-1])
            except DecodeError:
                return f"the batch at offset {base} cannot be read"
        if expected != high_watermark:
            return (
                f"the high watermark is {high_watermark} and the batches below it end at {expected}"
            )
        self.end = expected
        return None

    def difference(
        self,
        stored: StoredPartition,
        upto: int | None = None,
        damaged: Mapping[bytes, bytes] = NO_DAMAGE,
    ) -> str | None:
        """Return where a replica's rows depart from what is committed below `upto`, or None.

        Args:
            stored: the replica's rows.
            upto: an offset; everything committed if it is not given.
            damaged: what a bit was flipped in, and what it was; it counts as what it was.
        """
        upto = self.end if upto is None else upto
        state = stored.state
        if state.log_start_offset > self.deleted_below:
            return (
                f"it begins at {state.log_start_offset}, and nothing was deleted behind "
                f"{self.deleted_below}"
            )
        if state.log_end_offset < upto:
            return f"it ends at {state.log_end_offset}, and everything below {upto} is committed"
        begin = stored.bases[0] if stored.bases else state.log_end_offset
        if begin > state.log_start_offset:
            return f"its first batch is at {begin}, its log start at {state.log_start_offset}"
        first, last = bisect_left(self._bases, begin), bisect_left(self._bases, upto)
        count = max(0, last - first)
        ours, theirs = self._batches[first:last], stored.batches[:count]
        if ours == theirs:
            return None
        for base, data, other in zip(self._bases[first:last], ours, theirs, strict=False):
            if data != damaged.get(other, other):
                return f"at offset {base} it has {_said(other)}, and {_said(data)} is committed"
        return (
            None if len(theirs) == count else f"it has {len(theirs)} of {count} committed batches"
        )

    def at(self, offset: int) -> RawRecord | None:
        """Return the record that is committed at an offset."""
        if not 0 <= offset < self.end:
            return None
        place = bisect_left(self._bases, offset + 1) - 1
        for record in records_of(self._batches[place]):
            if record.offset == offset:
                return record
        return None

    def batch_at(self, base_offset: int) -> bytes | None:
        """Return the committed batch that begins at an offset."""
        place = bisect_left(self._bases, base_offset)
        if place < len(self._bases) and self._bases[place] == base_offset:
            return self._batches[place]
        return None

    def last_batch(self) -> tuple[int, bytes] | None:
        """Return the newest committed batch and where it begins."""
        return (self._bases[-1], self._batches[-1]) if self._bases else None

    def records(self) -> list[RawRecord]:
        """Return everything that was ever committed and not lost, in order."""
        return [record for data in self._batches for record in records_of(data)]

    def accept_loss(
        self, stored: StoredPartition, damaged: Mapping[bytes, bytes] = NO_DAMAGE
    ) -> int:
        """End where a replica's log departs; return that offset.

        A batch in which a bit was flipped is not lost by that: it counts as what it was.
        """
        kept = 0
        have = dict(zip(stored.bases, stored.batches, strict=True))
        first = stored.bases[0] if stored.bases else stored.state.log_end_offset
        for base, data in zip(self._bases, self._batches, strict=True):
            found = have.get(base)
            if base >= first and (found is None or damaged.get(found, found) != data):
                break
            kept += 1
        self.end = self._bases[kept] if kept < len(self._bases) else self.end
        del self._bases[kept:], self._batches[kept:]
        return self.end


def _said(data: bytes) -> str:
    try:
        records = records_of(data)
    except Exception as error:  # flipped bits may be anything
        return f"{len(data)} unreadable bytes ({type(error).__name__})"
    values = [record.value.decode(errors="replace") for record in records]
    return f"epoch {records[0].leader_epoch} {values}"
