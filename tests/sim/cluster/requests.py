"""What simulated clients and brokers say to each other."""

from __future__ import annotations

from dataclasses import dataclass

from riverrun_server.core.errors import Reason
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.partitions import Acks
from tests.sim.cluster.batches import Batch


@dataclass(frozen=True, slots=True)
class Produce:
    """Append a batch, at an offset or nowhere if one is given; `tag` comes back with the answer."""

    tag: int
    partition: PartitionId
    batch: Batch
    acks: Acks
    expected_offset: int | None = None


@dataclass(frozen=True, slots=True)
class Produced:
    """What became of a batch; with a reason it was not appended, or nobody knows.

    With OUT_OF_ORDER_SEQUENCE comes the sequence that the partition expects, with
    EXPECTED_OFFSET_MISMATCH where its log ends.
    """

    tag: int
    base_offset: int | None = None
    duplicate: bool = False
    reason: Reason | None = None
    expected_sequence: int | None = None
    log_end: int | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a read brought.

    Attributes:
        records: (offset, value) of each, from the position on.
        next_offset: where to go on.
        last_epoch: the leader epoch of the last record; None where there is none.
        reason: why nothing was read.
        diverging_offset: where the log departs from what the reader saw.
        log_start: the first offset that can be read, where the position was below it.
    """

    records: tuple[tuple[int, bytes], ...] = ()
    next_offset: int = 0
    last_epoch: int | None = None
    reason: Reason | None = None
    diverging_offset: int | None = None
    log_start: int | None = None
