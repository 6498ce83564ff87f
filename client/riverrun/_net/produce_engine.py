"""What stands behind a producer: its machine and stream, the topics it knows, its buffer's queue."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from riverrun._core.accumulator import Accumulator
from riverrun._core.backoff import Backoff
from riverrun._core.encoding import Row
from riverrun._core.outgoing import OutgoingBatch
from riverrun._core.producer_statistics import ProducerStatistics
from riverrun._core.producing import ProducerMachine
from riverrun._core.records import RecordMetadata, TopicPartition
from riverrun._core.sequences import PartitionLane
from riverrun._net.buffer_room import BufferRoom
from riverrun._net.cluster import Cluster
from riverrun._net.delivery_reports import OnDelivery, report_soon
from riverrun._net.failures import as_error
from riverrun._net.produce_loop import ProduceLoop
from riverrun._net.produce_settings import ProducerConfig
from riverrun._net.produce_topics import ProduceTopics
from riverrun._net.receipts import Flush, RecordFutures, mark_told
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


class Submission(NamedTuple):
    """A record that has been checked; `size_bytes` is its `size_bound`."""

    topic: str
    partition: int | None
    row: Row
    size_bytes: int
    on_delivery: OnDelivery | None = None


# With the time when it was taken.
_Waiting: TypeAlias = tuple[Submission, asyncio.Future[RecordMetadata], float]


class ProduceEngine:
    """Takes records and batches, and sees to it that each is resolved.

    Owns the task that keeps the stream; `close` ends it, and those that ask for topics.
    """

    def __init__(
        self, cluster: Cluster, config: ProducerConfig, uniform: Callable[[], float]
    ) -> None:
        self._config = config
        self.delivery_timeout_s = config.delivery_timeout_s
        self._uniform = uniform
        accumulator = Accumulator(
            RecordFutures,
            batch_bytes=config.batch_bytes,
            linger_s=config.linger_s,
            delivery_timeout_s=config.delivery_timeout_s,
        )
        self.machine = ProducerMachine(
            self._new_lane,
            accumulator,
            config.buffer_bytes,
            config.new_route,
            cluster.leaders.destination,
        )
        self._stream = ProduceLoop(
            cluster,
            self.machine,
            uniform,
            acks=config.acks,
            codec=config.codec,
            idempotent=config.idempotent,
            delivery_timeout_s=config.delivery_timeout_s,
            deliver=self._deliver,
        )
        self._topics = ProduceTopics(
            cluster,
            self.machine,
            uniform,
            timeout_s=config.delivery_timeout_s,
            learnt=self._learnt,
        )
        self._waiting: dict[str, list[_Waiting]] = {}
        self._room = BufferRoom(self.machine)
        # The largest record that `take` has refused since it last took one.
        self._refused_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._end: RiverrunError | None = None
        self._closed = False
        self._gone = asyncio.Event()
        self._began_s = time.monotonic()

    def check_open(self) -> None:
        """Refuse what comes after the end.

        Raises:
            ClosedError: the producer was closed.
            FatalError: it cannot go on; the error says why.
        """
        if self._end is not None:
            # A copy: an exception that is raised again and again would grow a traceback without end.
            raise copy.copy(self._end)

    def take(self, submission: Submission) -> asyncio.Future[RecordMetadata]:
        """Accept one record.

        Raises:
            BufferFullError: there is no room, or others wait for it.
        """
        self.check_open()
        size_bytes = submission.size_bytes
        if not self._room.take_now(size_bytes):
            self._refused_bytes = max(self._refused_bytes, size_bytes)
            why = f"has no room for {size_bytes} more"
            if self.machine.has_room(size_bytes):
                why = f"others wait for room before these {size_bytes}"
            raise BufferFullError(
                f"the producer's buffer holds {self.machine.buffered_bytes} bytes of "
                f"{self._config.buffer_bytes} (buffer_bytes) and {why}; await drain() and call again",
                reason=Reason.BUFFER_FULL,
            )
        self._refused_bytes = 0
        return self._accept(submission)

    async def take_in_turn(self, submission: Submission) -> asyncio.Future[RecordMetadata]:
        """Accept one record as soon as there is room, behind those who have waited longer."""
        await self.reserve(submission.size_bytes)
        return self._accept(submission)

    def _accept(self, submission: Submission) -> asyncio.Future[RecordMetadata]:
        loop = asyncio.get_running_loop()
        future, taken_s = loop.create_future(), loop.time()
        topic = submission.topic
        waiting = self._waiting.get(topic)
        if waiting is not None:
            waiting.append((submission, future, taken_s))
        elif self._topics.knows(topic, submission.partition):
            self._place(submission, future, taken_s)
        else:
            self._waiting[topic] = [(submission, future, taken_s)]
            self._topics.load(topic)
        return future

    async def known_topic(self, topic: str, partition: int | None) -> None:
        """Return once the machine knows the topic, and that the partition exists.

        Raises:
            TopicNotFoundError: no such topic or partition.
        """
        if topic in self._waiting:
            # Single records wait for the same answer, and were given before.
            await self._topics.loaded([topic])
        if not self._topics.knows(topic, partition):
            await self._topics.learn(topic)
            self._topics.check_partition(topic, partition)

    def submit(self, batch: OutgoingBatch) -> None:
        """Take a whole batch, whose bytes were reserved by `reserve` just before."""
        self.machine.submit(batch)
        self._touched(batch.partition)

    async def reserve(self, size_bytes: int) -> None:
        """Wait until so much has room, behind those who have waited longer, and keep it.

        Raises:
            TimedOutError: there was none within the delivery timeout; nothing is kept.
            RiverrunError: the producer has ended; nothing is kept.
        """
        self.check_open()
        if not self._room.reserve_now(size_bytes):
            try:
                async with asyncio.timeout(self._config.delivery_timeout_s):
                    await self._room.reserve(size_bytes)
            except TimeoutError:
                raise self.no_room(size_bytes) from None
        # What was kept when the end came dies with the producer.
        self.check_open()

    def no_room(self, size_bytes: int) -> TimedOutError:
        """Make the error for what has waited for room in vain."""
        timeout_s = self._config.delivery_timeout_s
        return TimedOutError(
            f"{size_bytes} bytes found no room in the producer's buffer within {timeout_s:g} s "
            f"(delivery_timeout_s): it holds {self.machine.buffered_bytes} of "
            f"{self._config.buffer_bytes} (buffer_bytes), and more waits before them; send less at a "
            "time, or see why the broker does not acknowledge more",
            reason=Reason.TIMED_OUT,
        )

    async def room(self, size_bytes: int) -> None:
        """Wait until so much has room, and what was refused last, and keep nothing.

        Others have their turn in any case: whoever asks for a record's room after each record would
        keep the loop for itself.
        """
        self.check_open()
        await asyncio.sleep(0)
        await self._room.wait(max(size_bytes, self._refused_bytes))
        self.check_open()

    async def flush(self) -> None:
        """Wait until everything taken so far is resolved."""
        await self._topics.loaded(self._waiting)
        self.machine.seal_all()
        self._begin()
        self._deliver()
        self._stream.wake_all()
        await Flush(self.machine.unresolved()).wait()
        # Callbacks of what is resolved stand in the loop's queue already.
        await asyncio.sleep(0)

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
        # Without a stream there is nothing to end in order: it may be looking for a broker in vain.
        in_order = self.machine.idle and self._stream.is_open
        self._abandon(_closed())
        self._stream.close()
        tasks = self._topics.cancel()
        if self._task is not None:
            if in_order:
                await asyncio.wait({self._task}, timeout=_STREAM_END_TIMEOUT_S)
            self._task.cancel()
            tasks.append(self._task)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._stream.end()

    def statistics(self) -> ProducerStatistics:
        """Tell what has been done so far."""
        return self.machine.counters.snapshot(
            elapsed_s=time.monotonic() - self._began_s,
            batches_in_flight=self.machine.batches_in_flight,
            buffered_bytes=self.machine.buffered_bytes,
            buffer_wait_s=self._room.waited_s,
        )

    def _new_lane(self, partition: TopicPartition) -> PartitionLane:
        return PartitionLane(
            partition,
            idempotent=self._config.idempotent,
            window=_WINDOW,
            backoff=Backoff(self._uniform),
            split=halve,
        )

    def _learnt(self, topic: str, failure: RiverrunError | None) -> None:
        """Let the records that wait for a topic go on, or fail them."""
        if failure is not None and topic not in self._waiting:
            # It was known and is only stale: the appends themselves will tell what is wrong.
            self._topics.keep(topic)
        waiting = self._waiting.pop(topic, ())
        for submission, future, taken_s in waiting:
            try:
                if failure is not None:
                    raise failure
                self._topics.check_partition(topic, submission.partition)
            except RiverrunError as error:
                self._refuse(submission, future, error)
            else:
                self._place(submission, future, taken_s)
        if waiting:
            # They were taken before records that have a batch already, and give up before those.
            self._stream.rearm()

    def _place(
        self, submission: Submission, future: asyncio.Future[RecordMetadata], taken_s: float
    ) -> None:
        topic, number, row, size_bytes, on_delivery = submission
        if number is not None:
            partition = TopicPartition(topic, number)
        else:
            try:
                partition = self.machine.partition_for(topic, row)
            except UsageError as error:
                self._refuse(submission, future, error)
                return
        now_s = asyncio.get_running_loop().time()
        receipt = self.machine.append(partition, row, size_bytes, now_s, taken_s)
        receipt.add(future, row[2], on_delivery)
        self._touched(partition)

    def _refuse(
        self,
        submission: Submission,
        future: asyncio.Future[RecordMetadata],
        error: RiverrunError,
    ) -> None:
        self.machine.release(submission.size_bytes)
        self.machine.counters.failed(1)
        if submission.on_delivery is not None:
            report_soon([(submission.on_delivery, error, None)])
        if not future.done():
            future.set_exception(error)
        if submission.on_delivery is not None:
            mark_told(future)
        self._room.grant()

    # Progress.

    def _touched(self, partition: TopicPartition) -> None:
        """See to what the machine was given for a partition."""
        if self._task is None:
            self._begin()
        self._deliver()
        self._stream.wake(partition)

    def _begin(self) -> None:
        """See to it that there is a task that sends."""
        if self._task is None:
            self._task = asyncio.create_task(self._stream.run(), name="riverrun producer")
            self._task.add_done_callback(self._ended)

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
        error: RiverrunError | None
        if not task.cancelled():
            error = as_error(task.exception())
        elif self._closed:
            error = None
        else:
            text = "the producer's task was cancelled, by no call of close()"
            error = FatalError(text, reason=Reason.INTERNAL, outcome_known=False)
        if error is None:
            return
        if self._end is None:
            self._end = error
        self._abandon(error)

    def _abandon(self, error: RiverrunError) -> None:
        for waiting in self._waiting.values():
            for submission, future, _ in waiting:
                self._refuse(submission, future, error)
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
