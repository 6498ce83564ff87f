"""Asks again for partitions that cannot be read just now, and tells people that they cannot.

Intuition: a partition that is offline may come back, so a consumer never tires of asking; but it may
take an operator, so a person hears of it. Only where an end was asked for is there a limit: a partition
that cannot be read has none.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable

from riverrun._core.backoff import Backoff
from riverrun._core.episodes import Episodes
from riverrun._core.partition_reader import PartitionReader
from riverrun._core.reading import Verdict
from riverrun._core.records import TopicPartition
from riverrun._net.beginnings import Beginnings
from riverrun._net.channel import Connections
from riverrun._net.subscribe_settings import SubscribeSettings
from riverrun._net.subscribe_stream import Machine
from riverrun.errors import RiverrunError

_log = logging.getLogger("riverrun")


class PartitionRetries:
    """The partitions of one consumer that are in trouble.

    Owns the timers of those that are to be asked for again, and lookups; `close` ends them.

    Args:
        connections: how long trouble may last.
        beginnings: tells where partitions begin that have never begun.
        machine: takes what comes.
        settings: what is asked of each stream.
        backoff: delays between attempts.
        say_seek: sends the seek that a reader waits for.
        on_sought: called with a reader whose seek is refused, and why.
        changed: called after the machine has taken something.
    """

    def __init__(
        self,
        connections: Connections,
        beginnings: Beginnings,
        machine: Machine,
        settings: SubscribeSettings,
        backoff: Backoff,
        *,
        say_seek: Callable[[PartitionReader], None],
        on_sought: Callable[[PartitionReader, RiverrunError | None], None],
        changed: Callable[[], None],
    ) -> None:
        self._connections = connections
        self._beginnings = beginnings
        self._machine = machine
        self._settings = settings
        self._backoff = backoff
        self._say_seek = say_seek
        self._on_sought = on_sought
        self._changed = changed
        self._episodes: Episodes[TopicPartition] = Episodes()
        self._timers: dict[TopicPartition, asyncio.TimerHandle] = {}
        self._lookups: dict[TopicPartition, asyncio.Task[None]] = {}

    def failed(
        self, partition: TopicPartition, topic_id: bytes, error: RiverrunError, seek_id: int = 0
    ) -> None:
        """Take that a partition cannot be read: ask again, or tell whoever is to hear of it.

        Args:
            partition: which.
            topic_id: of its topic.
            error: why.
            seek_id: of the seek that this answers; 0 for none.
        """
        verdict = self._machine.failed(partition, topic_id, error, seek_id)
        if verdict == "ask again":
            verdict = self._tried(partition, error)
        if verdict == "seek refused":
            self._on_sought(self._machine.readers[partition], error)

    def look(self) -> None:
        """See which partitions can be read again."""
        for partition in self._episodes.subjects:
            reader = self._machine.readers.get(partition)
            if (reader is None or reader.trouble is None) and self._episodes.worked(partition):
                _log.info("%s can be read again", partition)

    async def close(self) -> None:
        """Ask for nothing any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        lookups = [*self._lookups.values()]
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)

    def _tried(self, partition: TopicPartition, error: RiverrunError) -> Verdict:
        """Ask again later, or give up where an end was asked for and does not come."""
        now_s, limit_s = asyncio.get_running_loop().time(), self._connections.request_timeout_s
        if self._episodes.failed(partition, error, now_s):
            _log.warning("cannot be read, trying again: %s", error.message)
        waited_s = self._episodes.lasted_s(partition, now_s)
        if self._settings.stop_at_end and waited_s >= limit_s:
            final = copy.copy(error)
            final.message = (
                f"gave up waiting for the end after {limit_s:g} s (request_timeout_s): "
                f"{error.message}"
            )
            return self._machine.give_up(self._machine.readers[partition], final)
        if partition not in self._timers:
            delay_s = self._backoff.next_s(error.retry_after_s)
            loop = asyncio.get_running_loop()
            self._timers[partition] = loop.call_later(delay_s, self._ask_again, partition)
        return "ask again"

    def _ask_again(self, partition: TopicPartition) -> None:
        del self._timers[partition]
        reader = self._machine.readers.get(partition)
        if reader is None:
            return  # its group has given it to another member
        if not reader.begun and self._settings.follows_group(partition):
            if partition not in self._lookups:
                task = asyncio.create_task(self._begin_again(reader), name="riverrun lookup")
                self._lookups[partition] = task
                task.add_done_callback(lambda _: self._lookups.pop(partition, None))
            return
        self._say_seek(self._machine.ask_again(partition))

    async def _begin_again(self, reader: PartitionReader) -> None:
        """Ask once more for a partition that has never begun."""
        partition = reader.partition
        try:
            await self._beginnings.place([partition])
        except RiverrunError as error:
            self.failed(partition, reader.topic_id, error)
            self._changed()
        else:
            if self._machine.readers.get(partition) is reader:
                self._say_seek(self._machine.ask_again(partition))
