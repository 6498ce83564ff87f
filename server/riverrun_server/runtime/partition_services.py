"""What all partitions of a broker share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from riverrun_server.core.errors import Refusal
from riverrun_server.core.log.hot_tail import TailBudget
from riverrun_server.ports.log import LogStore
from riverrun_server.ports.threads import Threads
from riverrun_server.runtime.flusher import Flusher


@dataclass(frozen=True, slots=True)
class PartitionServices:
    """What all partitions of a broker share.

    Attributes:
        store: where they are stored.
        flusher: makes it durable.
        now_ms: the broker's guarded clock.
        tails: the memory that all hot tails may take.
        threads: where short reads of the disk run.
        admits_produce: None, or why nothing may be appended just now (the disk is full).
        max_producers: how many idempotent producers a partition knows at once.
        producer_retention_ms: after how long a silent one may be forgotten.
        data_dir: as the operator knows it, for commands in error texts.
    """

    store: LogStore
    flusher: Flusher
    now_ms: Callable[[], int]
    tails: TailBudget
    threads: Threads
    admits_produce: Callable[[], Refusal | None] = lambda: None
    max_producers: int = 5_000
    producer_retention_ms: int = 7 * 86_400_000
    data_dir: str = "data"
