"""What stands in a replica's stored rows, read past the machines that wrote them."""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

from google.protobuf.message import DecodeError

from riverrun.v1.records_pb2 import RecordBatch, RecordSet
from riverrun_server.storage.memory_image import StoredPartition


class RawRecord(NamedTuple):
    """One record as it is stored.

    Attributes:
        offset: where.
        leader_epoch: of its append.
        producer_id: 0 where its producer is not idempotent.
        producer_epoch: of the producer.
        sequence: of the producer in that epoch.
        value: what the client wrote; values are unique in a simulation.
    """

    offset: int
    leader_epoch: int
    producer_id: int
    producer_epoch: int
    sequence: int
    value: bytes


@lru_cache(50_000)
def records_of(data: bytes) -> tuple[RawRecord, ...]:
    """Return the records of one stored batch; nothing is verified."""
    batch = RecordBatch.FromString(data)
    return tuple(
        RawRecord(
            batch.base_offset + index,
            batch.leader_epoch,
            batch.producer_id,
            batch.producer_epoch,
            batch.base_sequence + index,
            record.value,
        )
        for index, record in enumerate(RecordSet.FromString(batch.records).records)
    )


def next_offset(data: bytes) -> int:
    """Return where the batch behind a stored one begins."""
    last = records_of(data)[-1]
    return last.offset + 1


def faults_of(stored: StoredPartition) -> list[str]:
    """Return what is wrong with the rows of one replica by themselves; nothing where they are well.

    Batches continue, their epochs only grow, and the epoch map says of each where it begins.
    """
    found: list[str] = []
    state = stored.state
    if not state.log_start_offset <= state.high_watermark <= state.log_end_offset:
        found.append(f"bounds out of order: {state}")
    expected, epoch = None, -1
    begins: dict[int, int] = {}
    for base, data in zip(stored.bases, stored.batches, strict=True):
        try:
            records = records_of(data)
        except DecodeError:
            return [*found, f"the batch at {base} cannot be read"]
        first = records[0]
        if first.offset != base:
            found.append(f"the batch at {base} says that it begins at {first.offset}")
        if expected is not None and base != expected:
            found.append(f"after offset {expected} comes {base}")
        if first.leader_epoch < epoch:
            found.append(f"epoch {first.leader_epoch} at {base} after epoch {epoch}")
        epoch = first.leader_epoch
        begins.setdefault(epoch, base)
        expected = records[-1].offset + 1
    if expected is not None and expected != state.log_end_offset:
        found.append(f"the last batch ends at {expected}, the log at {state.log_end_offset}")
    if expected is None and state.log_start_offset != state.log_end_offset:
        found.append(f"no batch from {state.log_start_offset} to {state.log_end_offset}")
    found += _faults_of_epochs(stored, begins)
    return found


def _faults_of_epochs(stored: StoredPartition, begins: dict[int, int]) -> list[str]:
    found: list[str] = []
    entries = sorted(stored.epochs.items())
    starts = [start for _, start in entries]
    if starts != sorted(starts):
        found.append(f"the epoch map goes back: {entries}")
    if entries and entries[-1][1] > stored.state.log_end_offset:
        found.append(f"epoch {entries[-1]} begins behind the end {stored.state.log_end_offset}")
    first_base = stored.bases[0] if stored.bases else stored.state.log_start_offset
    for epoch, base in begins.items():
        said = stored.epochs.get(epoch)
        # The epoch of the first batch may have begun in what was deleted.
        if said is None or (said != base and (base != first_base or said > base)):
            found.append(f"epoch {epoch} begins at {base}, the epoch map says {said}")
    for epoch, start in entries:
        if epoch in begins or start >= stored.state.log_end_offset or start < first_base:
            continue
        following = bisect_left(entries, (epoch + 1, 0))
        if following >= len(entries) or entries[following][1] != start:
            found.append(f"epoch {epoch} has no batch and no other begins at {start}")
    return found
