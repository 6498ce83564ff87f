"""Deletes what is older or more than a topic keeps, a partition at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog

from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.errors import Refusal
from riverrun_server.core.guarded_clock import TimeGap
from riverrun_server.core.log.state import LogState
from riverrun_server.core.retention import Keep, RetentionRule, RetentionScan, TrimTo
from riverrun_server.core.time_lookup import NeedRows
from riverrun_server.ports.log import (
    Log,
    StorageError,
    StorageFailed,
    StorageFull,
    StorageStalled,
    Table,
)
from riverrun_server.ports.threads import Threads
from riverrun_server.runtime.broker_clock import BrokerClock

_log = structlog.stdlib.get_logger(__name__)

_CLOCK_KEY = b"clock/persisted_ms"
_UNKNOWN_MS = 1 << 62


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at all partitions came to.

    Attributes:
        trimmed: partitions from which something was deleted.
        failed: partitions that could not be looked at or deleted from.
        paused: partitions from which nothing is deleted by age, for the clock is not believed.
        ended_ms: when it ended, by the broker's clock.
    """

    trimmed: int
    failed: int
    paused: int
    ended_ms: int


class Retained(Protocol):
    """What retention needs of a partition."""

    @property
    def config(self) -> TopicConfig:
        """The topic's configuration."""
        ...

    @property
    def offline(self) -> Refusal | None:
        """Why nothing can be done with the partition, or None."""
        ...

    async def retain(self, rule: RetentionRule, now_ms: int) -> int | None:
        """Delete what a rule does not keep; return the new log start, or None."""
        ...


async def find_trim(
    log: Log, state: LogState, rule: RetentionRule, now_ms: int, threads: Threads
) -> int | None:
    """Return where a log should begin by a rule, or None where it is to stay as it is."""
    scan = RetentionScan(state, rule, now_ms)
    decision = scan.start()
    while True:
        match decision:
            case NeedRows(from_offset, limit):
                decision = scan.on_rows(await threads.run(log.index_rows, from_offset, limit))
            case TrimTo(log_start, _):
                return log_start
            case Keep():
                return None


def last_persisted_ms(table: Table) -> int | None:
    """Return the time that the last process persisted last; None in a new store."""
    value = table.get(_CLOCK_KEY)
    return None if value is None else int.from_bytes(value, "big", signed=True)


@dataclass(slots=True)
class Retention:
    """Looks at every partition now and then.

    Attributes:
        partitions: returns those that are here.
        clock: the broker's guarded clock.
        gap: how long the broker was away; deletion by age waits where that is too long to believe.
        table: where the time is persisted for the next start.
        interval_s: between two looks.
        told: is told what each look came to.
    """

    partitions: Callable[[], Iterable[Retained]]
    clock: BrokerClock
    gap: TimeGap
    table: Table
    interval_s: float
    told: Callable[[Look], None] = lambda _: None

    async def run(self) -> None:
        """Look until cancelled."""
        self._warn_of_gap()
        while True:
            await self.look()
            await asyncio.sleep(self.interval_s)

    async def look(self) -> None:
        """Look at every partition once."""
        self.clock.report()
        shortest_ms = _UNKNOWN_MS
        trimmed = failed = all_paused = 0
        for partition in list(self.partitions()):
            config = partition.config
            if config.retention_ms is not None:
                shortest_ms = min(shortest_ms, config.retention_ms)
            if partition.offline is not None:
                continue
            paused = config.retention_ms is not None and self.gap.pauses(config.retention_ms)
            all_paused += paused
            rule = RetentionRule(config.retention_ms, config.retention_bytes, paused)
            try:
                log_start = await partition.retain(rule, self.clock())
            except (Refusal, StorageError) as error:
                if isinstance(error, StorageFailed):
                    raise
                _log.warning("retention failed", partition=str(partition), why=str(error))
                failed += 1
                continue
            if log_start is not None:
                _log.info("retention", partition=str(partition), log_start=log_start)
                trimmed += 1
        self.told(Look(trimmed, failed, all_paused, self.clock()))
        if shortest_ms == _UNKNOWN_MS and self.gap.pauses(0):
            return  # nothing is known of what may be paused, so the gap is kept for the next look
        persisted_ms = self.gap.to_persist_ms(self.clock(), shortest_ms)
        try:
            self.table.write([(_CLOCK_KEY, persisted_ms.to_bytes(8, "big", signed=True))])
        except (StorageStalled, StorageFull) as error:
            _log.warning("the time could not be written down, trying again later", why=str(error))

    def _warn_of_gap(self) -> None:
        paused = [
            str(partition)
            for partition in self.partitions()
            if partition.config.retention_ms is not None
            and self.gap.pauses(partition.config.retention_ms)
        ]
        if paused:
            _log.warning(
                "nothing is deleted by age: the clock is further ahead of the time that was "
                "persisted last than these partitions keep their records; if it is right, start "
                "once with confirm_clock = true",
                gap_ms=self.gap.gap_ms,
                partitions=paused[:20],
                count=len(paused),
            )
