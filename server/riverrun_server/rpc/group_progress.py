"""How far a group has come in each partition, and how far behind it is, in records and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from riverrun.v1 import consumer_pb2, group_pb2
from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups.offsets import CommittedOffset
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.partitions import Directory, PartitionAccess
from riverrun_server.rpc.group_descriptions import duration
from riverrun_server.wire.deliveries import ErrorWriter
from riverrun_server.wire.stored import record_times

# Each asks the leader, and where there is lag reads a record.
_AT_ONCE: Final = 16
# The oldest record that is left is looked for in so much.
_READ_BYTES: Final = 64 << 10
# So long is waited for the disk, or for another broker, to come up with it.
_READ_WAIT_S: Final = 1.0


class Progress:
    """Tells how far groups have come.

    Args:
        directory: finds partitions.
        write_error: makes the public Error of a refusal.
        now_ms: the wall clock, which records' timestamps are held against.
    """

    def __init__(
        self, directory: Directory, write_error: ErrorWriter, now_ms: Callable[[], int]
    ) -> None:
        self._directory = directory
        self._write_error = write_error
        self._now_ms = now_ms

    async def of(
        self, holders: Mapping[PartitionId, str], committed: Mapping[PartitionId, CommittedOffset]
    ) -> list[group_pb2.GroupPartition]:
        """Return a message for each partition that somebody has or that was committed for.

        By topic and number; topics that are not there any more are left out.
        """
        found = []
        for partition in {**holders, **committed}:
            try:
                found.append(self._directory.partition("", *partition))
            except Refusal:
                continue
        found.sort(key=lambda access: (access.topic, access.id.partition))
        messages: list[group_pb2.GroupPartition] = []
        for at in range(0, len(found), _AT_ONCE):
            messages += await asyncio.gather(
                *[
                    self._one(each, holders.get(each.id, ""), committed.get(each.id))
                    for each in found[at : at + _AT_ONCE]
                ]
            )
        return messages

    async def _one(
        self, access: PartitionAccess, holder: str, committed: CommittedOffset | None
    ) -> group_pb2.GroupPartition:
        message = group_pb2.GroupPartition(
            topic=access.topic,
            topic_id=access.id.topic_id,
            partition=access.id.partition,
            member_id=holder,
        )
        if committed is not None:
            message.committed.CopyFrom(
                consumer_pb2.CommittedOffset(
                    offset=committed.offset,
                    leader_epoch=committed.leader_epoch,
                    metadata=committed.metadata,
                    commit_time_ms=committed.commit_time_ms,
                )
            )
        try:
            marks = await access.watermarks()
            begin = marks.log_start_offset if committed is None else committed.offset
            begin = max(begin, marks.log_start_offset)
            message.log_start_offset = marks.log_start_offset
            message.high_watermark = marks.high_watermark
            message.lag_records = max(0, marks.high_watermark - begin)
            age_ms = await self._age_ms(access, begin) if message.lag_records else 0
        except Refusal as refusal:
            message.error.CopyFrom(self._write_error(refusal))
            return message
        if age_ms is not None:
            message.lag_time.CopyFrom(duration(age_ms))
        return message

    async def _age_ms(self, access: PartitionAccess, offset: int) -> int | None:
        """Return how old the first record from an offset on is; None where nobody can say in time."""
        wake = asyncio.Event()
        cursor = access.cursor(offset, wake.set)
        try:
            async with asyncio.timeout(_READ_WAIT_S):
                while (chunk := cursor.take(_READ_BYTES)) is None:
                    wake.clear()
                    await wake.wait()
        except TimeoutError:
            return None
        finally:
            cursor.close()
        for batch in chunk.batches:
            for at, timestamp_ms in record_times(batch.data):
                if at >= offset:
                    return max(0, self._now_ms() - timestamp_ms)
        return None
