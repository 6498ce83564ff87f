"""Drives one consumer: an outlet for each broker that it reads from, and what they share.

In a cluster of one broker there is one outlet, for whichever broker answers, and that broker says what
there is to read. Else each partition is read from its leader, and through any other broker where that
cannot be reached.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Set
from functools import partial

from riverrun._core.backoff import Backoff
from riverrun._core.leader_map import ANY
from riverrun._core.partition_reader import PartitionReader
from riverrun._core.records import From, TopicPartition
from riverrun._net.beginnings import Beginnings
from riverrun._net.channel import Connection
from riverrun._net.cluster import Cluster
from riverrun._net.contact import Contact
from riverrun._net.failures import as_error, from_proto
from riverrun._net.partition_retries import PartitionRetries
from riverrun._net.position_resets import tell_reset
from riverrun._net.seeks import Seeks
from riverrun._net.subscribe_outlet import SubscribeOutlet
from riverrun._net.subscribe_settings import SubscribeSettings
from riverrun._net.subscribe_stream import Machine, SubscribeStream
from riverrun.errors import (
    ClosedError,
    FatalError,
    NoBrokerError,
    Reason,
    RetriableError,
    RiverrunError,
)

_log = logging.getLogger("riverrun")


class SubscribeLoop:
    """Drives one consumer's machine. Transitions: idle -> running -> ended, and perhaps running again.

    Owns its task, those of its outlets, and what asks again for partitions; `close` ends them.

    Args:
        cluster: finds brokers, and tells who leads.
        machine: takes what comes.
        settings: what is asked of each stream.
        uniform: returns a random number in [0, 1), for delays between streams, and between attempts at
            a partition.
    """

    def __init__(
        self,
        cluster: Cluster,
        machine: Machine,
        settings: SubscribeSettings,
        uniform: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._connections = cluster.connections
        self._machine = machine
        self._settings = settings
        self._uniform = uniform
        self._contact = Contact(self._connections, stop_at_end=settings.stop_at_end)
        self._outlets: dict[int, SubscribeOutlet] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._look = asyncio.Event()
        self._changed = asyncio.Event()
        self._seeks = Seeks()
        self._position_reset = partial(tell_reset, settings.on_reset)
        self._beginnings = Beginnings(self._connections, machine, settings)
        self._retries = PartitionRetries(
            self._connections,
            self._beginnings,
            machine,
            settings,
            Backoff(uniform),
            say_seek=self._say_seek,
            on_sought=self._seeks.answered,
            changed=self._wake,
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def holds_back(self) -> bool:
        """Whether the application is to be given nothing for now, whatever has come."""
        return False

    async def leave(self) -> None:
        """Leave the group, where it is a member of one."""

    @property
    def reconnects(self) -> int:
        """How many streams there were after the first one to a broker that began."""
        return sum(each.reconnects for each in self._outlets.values())

    def start(self) -> None:
        """Begin, if it has not begun."""
        if self._task is None:
            self._contact.start()
            self._task = asyncio.create_task(self._run(), name="riverrun consumer")
            self._task.add_done_callback(self._ended)

    def _start_again(self) -> None:
        """Begin anew where all had been delivered and there is now something else to read."""
        task = self._task
        if task is not None and task.done() and not task.cancelled() and not task.exception():
            self._task = None
            self.start()

    def waited_in_vain(self) -> None:
        """Tell, once, who has waited for records that there is no broker that could send any."""
        if self._task is not None and not self._task.done():
            self._contact.waited_in_vain()

    async def change(self) -> None:
        """Wait until the machine has something new."""
        self._changed.clear()
        await self._changed.wait()

    def wake(self) -> None:
        """Have whoever waits for records look again."""
        self._changed.set()

    def credit_freed(self) -> None:
        """Say that the application has taken something."""
        for outlet in self._outlets.values():
            if outlet.stream is not None:
                outlet.stream.wake()

    async def seek(self, places: Mapping[TopicPartition, From]) -> None:
        """Go elsewhere in some partitions; return once the broker has done so.

        Raises:
            RiverrunError: the broker refuses a place, or nothing will come any more.
        """
        if self._machine.error is not None:
            raise copy.copy(self._machine.error)
        waiting = [self._begin_seek(partition, to) for partition, to in places.items()]
        self._start_again()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _begin_seek(self, partition: TopicPartition, to: From) -> asyncio.Future[None]:
        done = self._seeks.begin(partition)
        self._say_seek(self._machine.seek(partition, to))
        return done

    def pause(self, partitions: Iterable[TopicPartition]) -> list[PartitionReader]:
        """Stop partitions; return those that were flowing."""
        changed = self._machine.pause(partitions)
        for stream, readers in self._by_stream(changed):
            stream.pause(readers)
        self.credit_freed()
        return changed

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Go on with paused partitions."""
        changed = self._machine.resume(partitions)
        for reader, has_seek in changed:
            if has_seek:
                self._say_seek(reader)
        for stream, readers in self._by_stream([reader for reader, _ in changed]):
            stream.resume(readers)
        if any(has_seek for _, has_seek in changed):
            self._start_again()
        self._changed.set()

    async def close(self) -> None:
        """End the streams and all that belongs to them. Safe to call twice."""
        self._contact.closing = True
        self._cluster.ignore(self._moved)
        try:
            await asyncio.gather(*(outlet.close() for outlet in self._outlets.values()))
        finally:
            # Also where whoever closes is cancelled.
            self._changed.set()
            try:
                if self._task is not None:
                    self._task.cancel()
                    await asyncio.gather(self._task, return_exceptions=True)
            finally:
                await self._retries.close()

    async def _run(self) -> None:
        """See to the outlets until everything asked for has been delivered."""
        try:
            await self._find_leaders()
            self._cluster.listen(self._moved)
            for broker_id in {reader.home for reader in self._machine.readers.values()} or {ANY}:
                self._outlet(broker_id).gain()
            while not (self._settings.stop_at_end and self._machine.ended):
                self._look.clear()
                for task in self._tasks.values():
                    if task.done():
                        task.result()
                await self._look.wait()
        finally:
            self._cluster.ignore(self._moved)
            tasks, self._tasks = self._tasks, {}
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    # Who leads.

    async def _find_leaders(self) -> None:
        """Find out what is to be read from whom, before the first stream and where there is a choice.

        Raises:
            RiverrunError: no broker answers, or none of the topics is there.
        """
        if self._machine.readers:
            self._move(self._machine.readers)
            return
        topics = {*self._settings.topics, *(place.topic for place in self._settings.places)}
        try:
            told = await self._cluster.ask(topics)
        except NoBrokerError:
            raise
        except RetriableError as error:
            # Any broker can be read from, also where none says who leads.
            _log.info("reading from whichever broker answers: %s", error)
            return
        if not self._cluster.leaders.several:
            return
        self._cluster.follow(topics)
        missing = {each.topic: each.error for each in told.topics if each.HasField("error")}
        for topic in told.topics:
            if topic.topic in self._settings.topics:
                self._expect(
                    *(TopicPartition(topic.topic, n) for n in range(len(topic.partitions)))
                )
        self._expect(*(place for place in self._settings.places if place.topic not in missing))
        for name, why in missing.items():
            failure = from_proto(why, f"topic {name}")
            if not self._machine.readers:
                raise failure
            self._retries.failed(TopicPartition(name, -1), b"", failure)

    def _expect(self, *partitions: TopicPartition) -> None:
        leaders = self._cluster.leaders
        for partition in partitions:
            known = leaders.partitions(partition.topic)
            topic_id = b"" if known is None else known[0]
            self._machine.expect(partition, topic_id, leaders.destination(partition))

    def _moved(self, partitions: Set[TopicPartition]) -> None:
        """Read from elsewhere what is led elsewhere by now, and what is new."""
        if self._machine.readers and not self._settings.stop_at_end:
            for partition in partitions - self._machine.readers.keys():
                if partition.topic in self._settings.topics:
                    self._expect(partition)
                    reader = self._machine.readers[partition]
                    reader.place = "earliest"
                    self._beginnings.added.add(partition)
                    self._outlet(reader.home).gain()
        self._move(partitions)

    def _move(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            reader = self._machine.readers.get(partition)
            to = self._cluster.leaders.destination(partition)
            if reader is None or reader.home == to or reader.gone:
                continue
            if self._settings.stop_at_end and reader.delivered:
                continue
            left, reader.home = self._outlets.get(reader.home), to
            if left is not None:
                left.lose(reader)
            self._outlet(to).gain()

    def _failed(
        self,
        broker_id: int,
        partition: TopicPartition,
        topic_id: bytes,
        error: RiverrunError,
        seek_id: int,
    ) -> None:
        """Take that a broker cannot deliver a partition: go to who leads it, or ask again later."""
        reader = self._machine.readers.get(partition)
        error = self._cluster.judged(partition.topic, error)
        if error.leader is not None:
            self._cluster.hinted(partition, error.leader)
        if reader is not None and reader.home == broker_id and error.reason is Reason.NOT_LEADER:
            self._cluster.denied(partition, broker_id)
        if reader is None or reader.home == broker_id:
            self._retries.failed(partition, topic_id, error, seek_id)

    # Streams.

    def _outlet(self, broker_id: int) -> SubscribeOutlet:
        outlet = self._outlets.get(broker_id)
        if outlet is None:
            outlet = self._outlets[broker_id] = self._new_outlet(broker_id)
        if broker_id not in self._tasks:
            task = asyncio.create_task(outlet.run(), name="riverrun consumer: a broker")
            task.add_done_callback(lambda _: self._look.set())
            self._tasks[broker_id] = task
        return outlet

    def _new_outlet(
        self, broker_id: int, kind: type[SubscribeOutlet] = SubscribeOutlet
    ) -> SubscribeOutlet:
        return kind(
            broker_id,
            self._cluster,
            self._machine,
            self._contact,
            self._uniform,
            prepare=self._beginnings.find,
            new_stream=self._new_stream,
            ended=self._stream_ended,
        )

    def _new_stream(self, broker_id: int, connection: Connection) -> SubscribeStream:
        return self._reading_stream(broker_id, connection, self._settings)

    def _reading_stream(
        self, broker_id: int, connection: Connection, settings: SubscribeSettings
    ) -> SubscribeStream:
        homes = {reader.home for reader in self._machine.readers.values()}
        return SubscribeStream(
            connection,
            self._machine,
            settings,
            broker_id=broker_id,
            prefetch_bytes=max(1, self._settings.prefetch_bytes // max(1, len(homes))),
            whole=not self._cluster.leaders.several,
            changed=self._wake,
            on_sought=self._seeks.answered,
            on_failed=lambda *failed: self._failed(broker_id, *failed),
            on_reset=self._position_reset,
        )

    def _stream_ended(self) -> None:
        """Take that one broker has delivered everything."""
        if self._machine.stream_ended():
            self._look.set()

    def _stream_of(self, reader: PartitionReader) -> SubscribeStream | None:
        """Return the stream that a partition comes on just now."""
        outlet = self._outlets.get(reader.home)
        stream = None if outlet is None else outlet.stream
        return stream if stream is not None and stream.reads(reader.partition) else None

    def _by_stream(
        self, readers: Iterable[PartitionReader]
    ) -> Iterable[tuple[SubscribeStream, list[PartitionReader]]]:
        grouped: dict[SubscribeStream, list[PartitionReader]] = {}
        for reader in readers:
            stream = self._stream_of(reader)
            if stream is not None:
                grouped.setdefault(stream, []).append(reader)
        return grouped.items()

    def _wake(self) -> None:
        self._contact.begun = True
        self._retries.look()
        self._changed.set()

    def _say_seek(self, reader: PartitionReader) -> None:
        """Send a seek, if there is a stream for it; else the next one begins there."""
        if reader.partition not in self._machine.readers:
            return
        if self._task is not None and not self._task.done():
            # One that was through did not follow its leader; now there is more to read of it.
            self._move([reader.partition])
        stream = self._stream_of(reader)
        if stream is not None:
            stream.seek(reader)
        elif reader.home in self._outlets and reader.home in self._tasks:
            self._outlets[reader.home].gain()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Tell the application and whoever seeks why nothing more will come."""
        if task is not self._task:
            # It had come to its end, and another one has begun.
            return
        error: RiverrunError | None
        if not task.cancelled():
            error = as_error(task.exception())
            if error is None and not self._machine.ended:
                # There was something else to read before it had ended.
                self._start_again()
        elif self._contact.closing:
            error = ClosedError("the consumer was closed meanwhile", reason=Reason.CLOSED)
        else:
            error = FatalError("the consumer's task was cancelled", reason=Reason.INTERNAL)
        self._machine.error = error
        if error is not None:
            self._seeks.fail(error)
        self._changed.set()
