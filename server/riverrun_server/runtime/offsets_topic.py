"""The internal topic that keeps committed offsets: found, or made by the first broker that needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.partitions import Directory

OFFSETS_TOPIC: Final = "__consumer_offsets"

# Offsets live as long as their topic; the log is kept short by rewriting it, never by age.
OFFSETS_TOPIC_CONFIGS: Final[Mapping[str, str]] = {
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "fsync": "true",
    "max.batch.bytes": str(3 << 20),
}


class InternalTopics(Protocol):
    """Makes topics that belong to the brokers."""

    async def ensure_internal_topic(
        self, name: str, partitions: int, configs: Mapping[str, str]
    ) -> None:
        """Make a topic with the default replication factor, or find that it is there.

        Several brokers may do so at once: one of them makes it, all return once it can be used.

        Raises:
            Refusal: it could not be made.
        """
        ...


class OffsetsTopic:
    """The offsets topic.

    Args:
        directory: finds partitions.
        topics: makes the topic.
        partitions: that it gets when it is made; it keeps them for good.
        caught_up: returns once everything is known here that the metadata said before the call.
        wait_s: how long to wait for that.
    """

    def __init__(
        self,
        directory: Directory,
        topics: InternalTopics,
        partitions: int,
        caught_up: Callable[[], Awaitable[None]],
        wait_s: float,
    ) -> None:
        self._directory = directory
        self._topics = topics
        self._partitions = partitions
        self._caught_up = caught_up
        self._wait_s = wait_s
        self._making = asyncio.Lock()

    def partitions(self) -> list[PartitionId]:
        """Return its partitions in order; none where no such topic is known here.

        Raises:
            Refusal: NOT_READY.
        """
        try:
            return [each.id for each in self._directory.partitions(OFFSETS_TOPIC)]
        except Refusal as refusal:
            if refusal.reason is Reason.TOPIC_NOT_FOUND:
                return []
            raise

    async def make(self) -> None:
        """Make it where it is not there.

        Raises:
            Refusal: it could not be made; definite, for nothing was stored in it.
        """
        async with self._making:
            try:
                await self._topics.ensure_internal_topic(
                    OFFSETS_TOPIC, self._partitions, OFFSETS_TOPIC_CONFIGS
                )
            except Refusal as refusal:
                if refusal.meaning.definite:
                    raise
                raise Refusal(
                    Reason.NOT_READY,
                    "no offsets were stored, for the topic that keeps them is only being made "
                    f"({refusal.message}); ask again",
                ) from refusal

    async def caught_up(self) -> None:
        """Return once it is known here if it is there at all.

        Another broker may have made it and acknowledged commits of which nobody must be told that they
        are not there.

        Raises:
            Refusal: NOT_READY, the metadata store does not tell.
        """
        try:
            async with asyncio.timeout(self._wait_s):
                await self._caught_up()
        except TimeoutError:
            raise Refusal(
                Reason.NOT_READY,
                "the metadata store does not answer, and without it this broker cannot tell whether "
                "any offsets were ever committed; ask again",
            ) from None

    def has(self, partition: PartitionId) -> bool:
        """Return whether any partition, of which offsets are kept, is still there."""
        try:
            self._directory.partition("", partition.topic_id, partition.partition)
        except Refusal as refusal:
            return refusal.reason not in (Reason.TOPIC_NOT_FOUND, Reason.PARTITION_NOT_FOUND)
        return True
