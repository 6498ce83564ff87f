"""Who waits for seeks: a future for each partition that somebody wants to go elsewhere in."""

from __future__ import annotations

import asyncio
import copy

from riverrun._core.partition_reader import PartitionReader
from riverrun._core.records import TopicPartition
from riverrun.errors import Reason, RiverrunError, UsageError


class Seeks:
    """The newest seek of each partition of one consumer, as long as its answer is awaited."""

    def __init__(self) -> None:
        self._waiting: dict[TopicPartition, asyncio.Future[None]] = {}

    def begin(self, partition: TopicPartition) -> asyncio.Future[None]:
        """Return what is done once a seek is answered; an earlier one of the partition is over."""
        earlier = self._waiting.pop(partition, None)
        if earlier is not None and not earlier.done():
            earlier.set_result(None)
        done = self._waiting[partition] = asyncio.get_running_loop().create_future()
        return done

    def answered(self, reader: PartitionReader, error: RiverrunError | None) -> None:
        """Let who waits for a partition go on, or fail."""
        done = self._waiting.pop(reader.partition, None)
        if done is None or done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def gone(self, partition: TopicPartition) -> None:
        """Fail who waits for a partition that is not this consumer's any more."""
        done = self._waiting.pop(partition, None)
        if done is not None and not done.done():
            done.set_exception(
                UsageError(
                    f"{partition} is not being read any more: its group has given it to another member",
                    reason=Reason.PARTITION_NOT_ASSIGNED,
                )
            )

    def fail(self, error: RiverrunError) -> None:
        """Fail all that wait: nothing will be answered any more."""
        for done in self._waiting.values():
            if not done.done():
                done.set_exception(copy.copy(error))
        self._waiting.clear()
