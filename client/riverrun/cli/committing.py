"""Commits for a group what has been written, and nothing that has not."""

from __future__ import annotations

import asyncio

from riverrun import CommittedOffset, Consumer, RiverrunError, TopicPartition
from riverrun.cli.exits import write_note

INTERVAL_S = 1.0


class Committer:
    """Remembers how far each partition was written and commits that, once a second and at the end.

    Attributes:
        written: the position behind the last record written, by partition.
    """

    def __init__(self, consumer: Consumer) -> None:
        self.written: dict[TopicPartition, CommittedOffset] = {}
        self._consumer = consumer
        self._committed: dict[TopicPartition, CommittedOffset] = {}
        self._under_way: asyncio.Task[None] | None = None
        self._complained = False

    async def run(self) -> None:
        """Commit once a second until cancelled; what fails is tried again, and told once."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            self._under_way = asyncio.create_task(self._commit(), name="riverrun-commit")
            try:
                # Cancelled or not, the request is on its way: `finish` lets it end.
                await asyncio.shield(self._under_way)
            except RiverrunError as error:
                if not self._complained:
                    write_note(f"note: committing failed and is tried again: {error.message}")
                self._complained = True

    async def finish(self) -> None:
        """Let a commit that is under way end, which a later one must not overtake; commit the rest.

        Raises:
            RiverrunError: the group's offsets could not be stored.
        """
        if self._under_way is not None:
            await asyncio.wait([self._under_way])
        await self._commit()

    async def _commit(self) -> None:
        """Commit what was written since the last time."""
        new = {
            partition: position
            for partition, position in self.written.items()
            if self._committed.get(partition) != position
        }
        if new:
            await self._consumer.commit(new)
            self._committed.update(new)
