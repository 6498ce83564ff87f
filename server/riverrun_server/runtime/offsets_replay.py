"""Reads a partition of the offsets topic from its start to the end that it has in this leader epoch."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, NamedTuple

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets_partition import OffsetsPartition
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.ports.threads import Threads
from riverrun_server.wire.group_records import read_batches

NOT_YET: Final = frozenset(
    {
        Reason.NOT_LEADER,
        Reason.FENCED_LEADER_EPOCH,
        Reason.UNKNOWN_LEADER_EPOCH,
        Reason.OFFSET_NOT_AVAILABLE,
    }
)
"""This broker does not lead the partition, or does not know yet what is committed: that passes."""

# What is not committed may be cut off, and then nobody wakes who waits for it.
_LOOK_AGAIN_S: Final = 1.0


class Replayed(NamedTuple):
    """What was read of a log.

    Attributes:
        leader_epoch: in which this broker leads it.
        log_start_offset: where it begins.
        end_offset: behind everything that an earlier leader may have acknowledged.
    """

    leader_epoch: int
    log_start_offset: int
    end_offset: int

    async def check_same(self, access: PartitionAccess) -> None:
        """Check that this is still the leader epoch.

        Raises:
            Refusal
        """
        await _check_same(access, self.leader_epoch)


async def replay(
    access: PartitionAccess, partition: OffsetsPartition, threads: Threads, read_bytes: int
) -> Replayed:
    """Replay everything that an earlier leader may have acknowledged.

    Nobody but its coordinator appends to the log, and that waits for this.

    Args:
        access: the partition itself.
        partition: empty.
        threads: where batches are taken apart.
        read_bytes: how much is read in one step.

    Raises:
        CorruptData, Refusal: it cannot be read now, or another leader epoch has begun meanwhile.
    """
    marks = await access.watermarks()
    end = marks.log_end_offset
    wake = asyncio.Event()
    cursor = access.cursor(marks.log_start_offset, wake.set)
    try:
        while cursor.position < end:
            wake.clear()
            chunk = cursor.take(read_bytes)
            if chunk is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        await wake.wait()
                await _check_same(access, marks.leader_epoch)
                continue
            for logged in await threads.run(read_batches, chunk.batches, chunk.first_offset):
                partition.replay(logged.record, logged.offset)
    finally:
        cursor.close()
    await _check_same(access, marks.leader_epoch)
    return Replayed(marks.leader_epoch, marks.log_start_offset, end)


async def _check_same(access: PartitionAccess, leader_epoch: int) -> None:
    marks = await access.watermarks()
    if marks.leader_epoch != leader_epoch:
        raise Refusal(
            Reason.FENCED_LEADER_EPOCH,
            f"leader epoch {marks.leader_epoch} of {access.id} has begun while its log was read in "
            f"epoch {leader_epoch}",
        )
