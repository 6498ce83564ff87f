"""Lookup by time on a stored partition: gives the core's lookup the pieces that it asks for."""

from __future__ import annotations

from riverrun_server.core.log.state import LogState
from riverrun_server.core.time_lookup import Found, NeedBatches, NeedRows, NotFound, TimeLookup
from riverrun_server.ports.log import Log
from riverrun_server.ports.threads import Threads
from riverrun_server.wire.stored import record_times

_BATCH_STEP_BYTES = 1 << 20


async def find_time(
    log: Log, state: LogState, time_ms: int, threads: Threads
) -> tuple[int, int] | None:
    """Return (offset, timestamp) of the first committed record at or after a time, or None.

    Each step runs in a thread by itself, so that a long lookup never keeps a thread for long.

    Raises:
        CorruptData: a batch that had to be looked at is damaged.
    """
    lookup = TimeLookup(
        time_ms, state.log_start_offset, state.high_watermark, state.max_timestamp_ms
    )
    step = lookup.start()
    while True:
        match step:
            case NeedRows(from_offset, limit):
                step = lookup.on_rows(await threads.run(log.index_rows, from_offset, limit))
            case NeedBatches(from_offset, end):
                step = lookup.on_batches(*await threads.run(_read_times, log, from_offset, end))
            case Found(offset, timestamp_ms):
                return offset, timestamp_ms
            case NotFound():
                return None


def _read_times(log: Log, offset: int, end: int) -> tuple[list[tuple[int, int]], int]:
    batches = log.read(offset, end, _BATCH_STEP_BYTES)
    times = [time for batch in batches for time in record_times(batch.data)]
    return times, batches[-1].next_offset if batches else offset
