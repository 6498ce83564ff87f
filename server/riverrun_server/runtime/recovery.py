"""Bringing a stored partition back: its producers are a snapshot and the batches behind it."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.producers import ProducerTable
from riverrun_server.ports.log import CorruptData, Log
from riverrun_server.wire.snapshots import decode_snapshot

# A step reads this much, so that a stop of the process never waits long for it.
_STEP_BYTES = 4 << 20


def recover_producers(
    partition: PartitionId, log: Log, producers: ProducerTable, retention_ms: int
) -> None:
    """Fill the table from the newest snapshot and every batch behind it; blocks, run in a thread.

    Producers that were silent for `retention_ms` of the log's own time are forgotten again.

    Every batch that is looked at has both checksums verified.

    Raises:
        CorruptData: a batch or the snapshot is damaged, or batches do not continue.
    """
    state = log.state
    offset = state.log_start_offset
    found = log.snapshot()
    if found is not None:
        offset, data = found
        try:
            producers.restore(decode_snapshot(data))
        except DecodeError as error:
            raise CorruptData(f"producer snapshot of {partition} at {offset}: {error}") from error
    elif offset > 0:
        # A trim writes a snapshot in its own step, so one must be there.
        raise CorruptData(f"{partition} begins at offset {offset} without a producer snapshot")
    while offset < state.log_end_offset:
        batches = log.scan(offset, _STEP_BYTES)
        if not batches:
            raise CorruptData(
                f"{partition} ends at offset {state.log_end_offset} but nothing is stored from "
                f"{offset} on"
            )
        for batch in batches:
            if batch.stamp.next_offset <= offset:
                continue
            if batch.stamp.base_offset > offset:
                raise CorruptData(
                    f"{partition} has no batch from offset {offset} to {batch.stamp.base_offset}"
                )
            producers.appended(batch.header, batch.stamp)
            offset = batch.stamp.next_offset
        # Those that had expired before the restart expire here too, or the table could overflow.
        producers.expire(batches[-1].stamp.append_time_ms, retention_ms)
