"""A partition of which this broker holds one of several replicas, as services and readers see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.retention import RetentionRule
from riverrun_server.ports.partitions import Append, Watermarks
from riverrun_server.runtime.held_partition import HeldPartition
from riverrun_server.runtime.partition_services import PartitionServices
from riverrun_server.runtime.replication.driver import ReplicationDriver
from riverrun_server.runtime.replication.replica import Replica
from riverrun_server.runtime.retention import find_trim


class ReplicatedPartition(HeldPartition):
    """Implements ports.partitions.PartitionAccess; only a leader serves.

    Transitions: opening -> away (another broker leads, or nobody) <-> leading, as the replica says;
    any -> offline (its data cannot be trusted) | closed | dropped.

    Args:
        topic: the topic's name.
        config: the topic's configuration.
        replica: what is held here.
        driver: drives it, and tells when it has changed.
        services: what all partitions share.
        now: the monotonic clock, in seconds.
    """

    def __init__(
        self,
        topic: str,
        config: TopicConfig,
        replica: Replica,
        driver: ReplicationDriver,
        services: PartitionServices,
        now: Callable[[], float],
    ) -> None:
        log = replica.log
        super().__init__(
            topic,
            replica.partition,
            config,
            services,
            log.log,
            log.epochs,
            log.machine,
            log.tail,
        )
        self._replica = replica
        replica.name = str(self)
        self._driver = driver
        self._now = now
        self._is_closed = False
        self._shown: tuple[int, bool] = (-1, False)
        driver.watch(self.id, self._look)
        self._look()

    async def open(self) -> None:
        """Recover what memory must know; damage leaves the replica stopped."""
        await self._services.threads.run(self._replica.recover)
        self._driver.adopt(self._replica)
        self._look()

    async def close(self) -> None:
        """Answer everyone, and write a snapshot so that the next start reads nothing again.

        Raises:
            StorageError: the snapshot was not written.
        """
        is_sound = self._replica.why_stopped is None
        self._let_go(Refusal(Reason.SHUTTING_DOWN, "the broker is shutting down"))
        self._driver.forget(self.id, "the broker is shutting down")
        if is_sound:
            self._replica.log.rest()

    async def drop(self) -> None:
        """Delete everything that is stored of the partition.

        Raises:
            StorageError: it is still there.
        """
        gone = Refusal(Reason.TOPIC_NOT_FOUND, f"topic {self.topic!r} has been deleted")
        self._let_go(gone)
        self._driver.forget(self.id, "its topic has been deleted")
        self._services.store.drop(self.id)

    def _let_go(self, why: Refusal) -> None:
        self._is_closed = True
        self._driver.unwatch(self.id)
        self._closed = why
        self._wake_readers()

    # Appending.

    def submit(self, append: Append) -> None:
        """Append a batch; never raises, the answer comes through `append.done`."""
        try:
            self._check_append()
        except Refusal as refusal:
            append.refuse(refusal, self._machine.log_start)
            return
        self._driver.append(self.id, append)

    # Reading.

    async def watermarks(self) -> Watermarks:
        """Return the partition's offsets.

        Raises:
            Refusal: this broker does not lead it, or OFFSET_NOT_AVAILABLE: it was elected so recently
                that it does not know yet what an earlier leader called committed (KIP-207).
        """
        self._check_online()
        self._replica.latest_offset(self._now())
        marks = await super().watermarks()
        leader = self._replica.leader
        return marks if leader is None else replace(marks, lags=leader.lags())

    async def offset_at_time(self, time_ms: int) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record at or after a time, or None.

        Raises:
            Refusal: as `watermarks`; what may be committed and is not known to be is not passed over.
        """
        self._check_online()
        self._replica.latest_offset(self._now())
        return await super().offset_at_time(time_ms)

    def go_offline(self, damage: str) -> None:
        """Serve nothing any more, for what is stored cannot be trusted; others may lead."""
        self._replica.stop(damage)
        super().go_offline(damage)
        self._driver.carry_out_soon()

    # Deleting.

    async def retain(self, rule: RetentionRule, now_ms: int) -> int | None:
        """Delete what a rule does not keep; return the new log start, or None.

        Followers delete what their leader has deleted.
        """
        if self._closed is not None:
            return None
        with self._reading("looking for what is to be deleted"):
            state = self._machine.state
            target = await find_trim(self._log, state, rule, now_ms, self._services.threads)
        return None if target is None else await self.trim(target)

    async def trim(self, before_offset: int) -> int:
        """Delete the records before an offset (-1: all that is committed); return the log start.

        It is done once what the producers are known by is committed, usually at once.
        """
        self._check_online()
        committed = self._machine.high_watermark
        self._replica.trim(committed if before_offset == -1 else before_offset)
        self._driver.carry_out_soon()
        await self._services.flusher.durable()
        return self._machine.log_start

    # How.

    def _look(self) -> None:
        """Take note of what the replica has become, and wake readers who wait for that."""
        if self._is_closed:
            return
        self._closed = self._replica.refusal
        shown = (self._machine.high_watermark, self._closed is None)
        if shown != self._shown:
            self._shown = shown
            self._wake_readers()
