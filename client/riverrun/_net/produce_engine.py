"""What stands behind a producer: its machine and stream, the topics it knows, its buffer's queue."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from riverrun._core.accumulator import Accumulator
from riverrun._core.backoff import Backoff
from riverrun._core.encoding import Row
from riverrun._core.outgoing import OutgoingBatch
from riverrun._core.partitioner import RouteMaker
from riverrun._core.producing import ProducerMachine
from riverrun._core.records import RecordMetadata, TopicPartition
from riverrun._core.sequences import PartitionLane
from riverrun._net.buffer_room import BufferRoom
from riverrun._net.channel import Connections
from riverrun._net.metadata import TopicShape, fetch_topic
from riverrun._net.produce_loop import ProduceLoop
from riverrun._net.receipts import Flush, RecordFutures
from riverrun._net.splitting import halve
from riverrun.errors import (
    BufferFullError,
    ClosedError,
    FatalError,
    Reason,
    RiverrunError,
    TimedOutError,
    TopicNotFoundError,
    UsageError,
)

_log = logging.getLogger("riverrun")

# Until a broker has said otherwise.
_WINDOW = 64
_STREAM_END_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ProducerConfig:
    """A producer's settings, checked; `Client.producer` explains them."""

    acks: str
    idempotent: bool
    codec: int
    linger_s: float
    batch_bytes: int
    buffer_bytes: int
    delivery_timeout_s: float
    new_route: RouteMaker


class _Entry(NamedTuple):
    """A record that waits for its topic to be known; its bytes are reserved."""

    partition: int | None
    row: Row
    size_bytes: int
    future: asyncio.Future[RecordMetadata]


class ProduceEngine:
    """Takes records and batches, and sees to it that each is resolved.

    Owns the task that keeps the stream, and one for each topic that is being asked for; `close`
    ends them.
    """

    def __init__(
        self, connections: Connections, config: ProducerConfig, uniform: Callable[[], float]
    ) -> None:
        self._connections = connections
        self._config = config
        self._uniform = uniform
        accumulator = Accumulator(
            RecordFutures,
            batch_bytes=config.batch_bytes,
            linger_s=config.linger_s,
            delivery_timeout_s=config.delivery_timeout_s,
        )
        self.machine = ProducerMachine(
            self._new_lane, accumulator, config.buffer_bytes, config.new_route
        )
        self._stream = ProduceLoop(
            connections,
            self.machine,
            Backoff(uniform),
            acks=config.acks,
            codec=config.codec,
            idempotent=config.idempotent,
            delivery_timeout_s=config.delivery_timeout_s,
            deliver=self._deliver,
        )
        self._shapes: dict[str, TopicShape] = {}
        self._waiting: dict[str, list[_Entry]] = {}
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._room = BufferRoom(self.machine)
        self._task: asyncio.Task[None] | None = None
        self._end: RiverrunError | None = None
        self._closed = False
        self._gone = asyncio.Event()

    def check_open(self) -> None:
        """Refuse what comes after the end.

        Raises:
            ClosedError: the producer was closed.
            FatalError: it cannot go on; the error says why.
        """
        if self._end is not None:
            # A copy: an exception that is raised again and again would grow a traceback without end.
            raise copy.copy(self._end)

    def take(
        self, topic: str, partition: int | None, row: Row, size_bytes: int
    ) -> asyncio.Future[RecordMetadata]:
        """Accept one record, whose `size_bound` is `size_bytes`.

        Raises:
            BufferFullError: there is no room.
        """
        self.check_open()
        if not self.machine.has_room(size_bytes):
            raise BufferFullError(
                f"the producer's buffer holds {self.machine.buffered_bytes} bytes of "
                f"{self._config.buffer_bytes} (buffer_bytes) and has no room for {size_bytes} more; "
                "await drain() and call again",
                reason=Reason.BUFFER_FULL,
            )
        self.machine.reserve(size_bytes)
        return self._accept(topic, partition, row, size_bytes)

    async def take_in_turn(
        self, topic: str, partition: int | None, row: Row, size_bytes: int
    ) -> asyncio.Future[RecordMetadata]:
        """Accept one record as soon as there is room, behind those who have waited longer."""
        await self.reserve(size_bytes)
        return self._accept(topic, partition, row, size_bytes)

    def _accept(
        self, topic: str, partition: int | None, row: Row, size_bytes: int
    ) -> asyncio.Future[RecordMetadata]:
        future = asyncio.get_running_loop().create_future()
        entry = _Entry(partition, row, size_bytes, future)
        waiting = self._waiting.get(topic)
        if waiting is not None:
            waiting.append(entry)
        elif self._knows(topic, partition):
            self._place(topic, entry)
        else:
            self._waiting[topic] = [entry]
            self._load(topic)
        return future

    async def known_topic(self, topic: str, partition: int | None) -> None:
        """Return once the machine knows the topic, and that the partition exists.

        Raises:
            TopicNotFoundError: no such topic or partition.
        """
        if topic in self._waiting:
            # Single records wait for the same answer, and were given before.
            await asyncio.wait({self._loads[topic]})
        if not self._knows(topic, partition):
            await self._learn(topic)
            self._check_partition(topic, partition)

    def submit(self, batch: OutgoingBatch) -> None:
        """Take a whole batch, whose bytes were reserved by `reserve` just before."""
        self.machine.submit(batch)
        self._touched()

    async def reserve(self, size_bytes: int) -> None:
        """Wait until so much has room, behind those who have waited longer, and keep it.

        Raises:
            RiverrunError: the producer has ended; nothing is kept.
        """
        self.check_open()
        await self._room.reserve(size_bytes)
        # What was kept when the end came dies with the producer.
        self.check_open()

    async def room(self, size_bytes: int) -> None:
        """Wait until so much has room, and keep nothing."""
        self.check_open()
        await self._room.wait(size_bytes)
        self.check_open()

    async def flush(self) -> None:
        """Wait until everything taken so far is resolved."""
        while self._loads:
            await asyncio.wait(self._loads.values())
        self.machine.seal_all()
        self._touched()
        await Flush(self.machine.unresolved()).wait()

    async def close(self, timeout_s: float | None) -> None:
        """Flush for at most so long, then end everything. Called again, it waits for the end."""
        if self._closed:
            await self._gone.wait()
            return
        self._closed = True
        try:
            if self._end is None:
                self._end = _closed()
                self._room.end()
                async with asyncio.timeout(timeout_s):
                    await self.flush()
        except TimeoutError:
            pass
        finally:
            try:
                await self._shut_down()
            finally:
                self._gone.set()

    async def _shut_down(self) -> None:
        in_order = self.machine.idle
        self._abandon(_closed())
        self._stream.close()
        tasks = [*self._loads.values()]
        if self._task is not None:
            if in_order:
                await asyncio.wait({self._task}, timeout=_STREAM_END_TIMEOUT_S)
            tasks.append(self._task)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _new_lane(self, partition: TopicPartition) -> PartitionLane:
        return PartitionLane(
            partition,
            idempotent=self._config.idempotent,
            window=_WINDOW,
            backoff=Backoff(self._uniform),
            split=halve,
        )

    # Topics.

    def _knows(self, topic: str, partition: int | None) -> bool:
        """Whether a record for that place can go on; a topic that may have grown is asked for."""
        route = self.machine.route(topic)
        if route is None or (partition is not None and partition >= route.partitions):
            return False
        if self._shapes[topic].is_stale(asyncio.get_running_loop().time()):
            self._load(topic)
        return True

    def _load(self, topic: str) -> None:
        if topic not in self._loads:
            task = asyncio.create_task(self._learn_for_waiting(topic), name=f"riverrun {topic}")
            self._loads[topic] = task
            task.add_done_callback(lambda _: self._loads.pop(topic, None))

    async def _learn(self, topic: str) -> None:
        timeout_s = self._config.delivery_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                shape = await fetch_topic(self._connections, topic)
        except TimeoutError:
            raise TimedOutError(
                f"topic {topic}: no broker told about it within {timeout_s:g} s "
                "(delivery_timeout_s)",
                reason=Reason.TIMED_OUT,
            ) from None
        self._shapes[topic] = shape
        first = int(self._uniform() * shape.partitions)
        self.machine.learn_topic(topic, shape.topic_id, shape.partitions, first)

    async def _learn_for_waiting(self, topic: str) -> None:
        """Learn a topic, then let the records that wait for it go on, or fail them."""
        failure: RiverrunError | None = None
        try:
            await self._learn(topic)
        except RiverrunError as error:
            failure = error
            if topic in self._shapes and topic not in self._waiting:
                # It was known and is only stale: the appends themselves will tell what is wrong.
                self._shapes[topic] = self._shapes[topic].renewed(asyncio.get_running_loop().time())
        for entry in self._waiting.pop(topic, ()):
            try:
                if failure is not None:
                    raise failure
                self._check_partition(topic, entry.partition)
            except RiverrunError as error:
                self._refuse(entry, error)
            else:
                self._place(topic, entry)

    def _check_partition(self, topic: str, partition: int | None) -> None:
        route = self.machine.route(topic)
        assert route is not None, "the topic has been learnt"
        if partition is not None and partition >= route.partitions:
            raise TopicNotFoundError(
                f"topic {topic} has {route.partitions} partitions, numbered from 0; partition "
                f"{partition} does not exist",
                reason=Reason.PARTITION_NOT_FOUND,
            )

    def _place(self, topic: str, entry: _Entry) -> None:
        row = entry.row
        if entry.partition is not None:
            partition = TopicPartition(topic, entry.partition)
        else:
            try:
                partition = self.machine.partition_for(topic, row)
            except UsageError as error:
                self._refuse(entry, error)
                return
        now_s = asyncio.get_running_loop().time()
        receipt = self.machine.append(partition, row, entry.size_bytes, now_s)
        receipt.add(entry.future, row[2])
        self._touched()

    def _refuse(self, entry: _Entry, error: RiverrunError) -> None:
        self.machine.release(entry.size_bytes)
        if not entry.future.done():
            entry.future.set_exception(error)
        self._room.grant()

    # Progress.

    def _touched(self) -> None:
        """See to what the machine was given: it has a task, which is awake."""
        if self._task is None:
            self._task = asyncio.create_task(self._stream.run(), name="riverrun producer")
            self._task.add_done_callback(self._ended)
        self._deliver()
        self._stream.wake()

    def _deliver(self) -> None:
        resolved = self.machine.take_resolved()
        for resolution in resolved:
            if isinstance(resolution.error, TopicNotFoundError):
                self.machine.forget_topic(resolution.batch.partition.topic)
            try:
                resolution.deliver()
            except Exception:  # noqa: BLE001
                # Whoever waits for the others must hear of them all the same.
                _log.exception("a bug in the client: telling of %s", resolution.batch.partition)
        if resolved:
            self._room.grant()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Fail everything where the task ended of itself, which only a fatal error makes it do."""
        error: BaseException | None
        if not task.cancelled():
            error = task.exception()
        elif self._closed:
            error = None
        else:
            text = "the producer's task was cancelled, by no call of close()"
            error = FatalError(text, reason=Reason.INTERNAL, outcome_known=False)
        if error is None:
            return
        if not isinstance(error, RiverrunError):
            text = f"a bug in the client: {type(error).__name__}: {error}"
            error = FatalError(text, reason=Reason.INTERNAL, outcome_known=False)
        if self._end is None:
            self._end = error
        self._abandon(error)

    def _abandon(self, error: RiverrunError) -> None:
        for entries in self._waiting.values():
            for entry in entries:
                self._refuse(entry, error)
        self._waiting.clear()
        self.machine.abandon(error)
        self._deliver()
        self._room.end()


def _closed() -> ClosedError:
    return ClosedError(
        "the producer was closed; make a new one with Client.producer()", reason=Reason.CLOSED
    )


def now_ms() -> int:
    """Return the time in ms since 1970."""
    return time.time_ns() // 1_000_000
