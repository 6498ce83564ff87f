"""The state of a log as it was when it ended earlier, for a follower that has to truncate."""

from __future__ import annotations

import dataclasses

from riverrun_server.core.log.state import LogState
from riverrun_server.ports.log import CorruptData, Log

_STEP_BYTES = 1 << 20


def state_below(log: Log, state: LogState, offset: int) -> LogState:
    """Return the state of a log without the batches from `offset` on, which begins one.

    Reads what goes, and of what stays at most as much as lies behind one index row. Blocks.

    Args:
        log: where the batches are.
        state: of the log now.
        offset: at or above the log start.

    Raises:
        CorruptData: a batch is damaged or missing.
    """
    assert state.log_start_offset <= offset <= state.log_end_offset, (offset, state)
    row = log.index_before(offset - 1)
    at = max(row.base_offset if row else 0, state.log_start_offset)
    latest = append_time = interval_max = 0
    while at < offset:
        found = log.scan(at, _STEP_BYTES)
        if not found or found[0].stamp.base_offset > at:
            raise CorruptData(f"nothing is stored at offset {at}, and the log has {offset}")
        for batch in found:
            stamp = batch.stamp
            if stamp.base_offset >= offset:
                break
            at = stamp.next_offset
            latest, append_time = stamp.partition_max_timestamp_ms, stamp.append_time_ms
            interval_max = max(interval_max, batch.header.max_timestamp_ms or append_time)
    assert at == offset, (at, offset)
    return dataclasses.replace(
        state,
        log_end_offset=offset,
        high_watermark=min(state.high_watermark, offset),
        max_timestamp_ms=latest or state.max_timestamp_ms,
        last_append_time_ms=append_time or state.last_append_time_ms,
        appended_bytes=state.appended_bytes - _bytes_from(log, offset, state.log_end_offset),
        indexed_bytes=row.bytes_before if row else 0,
        # Without a row the next batch gets one: nothing is as long ago as this.
        indexed_append_time_ms=row.append_time_ms if row else 0,
        interval_max_timestamp_ms=interval_max,
    )


def _bytes_from(log: Log, offset: int, end: int) -> int:
    """Return how many bytes of batches lie from an offset on."""
    total = 0
    while offset < end:
        found = log.read(offset, end, _STEP_BYTES)
        if not found:
            raise CorruptData(f"nothing is stored from offset {offset} on, and the log has {end}")
        total += sum(len(batch.data) for batch in found)
        offset = found[-1].next_offset
    return total
