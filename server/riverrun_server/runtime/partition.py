"""One partition that is led here, from opening to closing: its two halves and everyone who waits.

Not here: what is decided (core/log/partition), writing (runtime/appender), a reader's place
(runtime/cursor), when the disk is synced (runtime/flusher).
"""

from __future__ import annotations

import structlog

from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.epochs import EpochEntry, EpochMap
from riverrun_server.core.log.hot_tail import HotTail
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.producers import ProducerTable
from riverrun_server.core.retention import RetentionRule
from riverrun_server.ports.log import CorruptData, StorageError
from riverrun_server.ports.partitions import Append
from riverrun_server.runtime.appender import Appender, storage_refusal
from riverrun_server.runtime.held_partition import HeldPartition
from riverrun_server.runtime.partition_services import PartitionServices
from riverrun_server.runtime.recovery import recover_producers
from riverrun_server.runtime.retention import find_trim

_log = structlog.stdlib.get_logger(__name__)


class LocalPartition(HeldPartition):
    """Implements ports.partitions.PartitionAccess.

    Transitions: opening -> online | offline (damage); online -> offline (damage found by a read);
    any -> closed | dropped.
    """

    def __init__(
        self,
        topic: str,
        partition: PartitionId,
        config: TopicConfig,
        leader_epoch: int,
        services: PartitionServices,
    ) -> None:
        log = services.store.open(partition)
        super().__init__(
            topic,
            partition,
            config,
            services,
            log,
            EpochMap(log.epochs()),
            PartitionMachine(
                log.state, ProducerTable(services.max_producers), leader_epoch=leader_epoch
            ),
            HotTail(services.tails),
        )
        self._appender = Appender(
            partition,
            self._log,
            self._machine,
            self._tail,
            services.now_ms,
            services.producer_retention_ms,
            services.flusher.fail,
        )
        self._gone = False

    async def open(self) -> None:
        """Bring the producers back and begin the leader epoch; damage leaves it offline."""
        machine, log = self._machine, self._log
        if log.damage:
            self.go_offline(log.damage)
            return
        try:
            await self._services.threads.run(
                recover_producers,
                self.id,
                log,
                machine.producers,
                self._services.producer_retention_ms,
            )
        except CorruptData as damage:
            self.go_offline(str(damage))
            return
        if (obstacle := self._epochs.obstacle(machine.leader_epoch)) is not None:
            self.go_offline(obstacle)
            return
        self._epochs.begin(machine.leader_epoch, machine.log_end)
        # What was recovered is on disk (opening the store wrote it into tables) and there is one
        # replica, so all of it is committed.
        machine.synced(machine.log_end)
        log.save(machine.state, epoch=EpochEntry(machine.leader_epoch, machine.log_end))
        self._services.flusher.touch(self)
        self._closed = None

    async def close(self) -> None:
        """Answer everyone, and write a snapshot so that the next start reads nothing again."""
        try:
            if self._closed is None:
                self._closed = Refusal(Reason.SHUTTING_DOWN, "the broker is shutting down")
                await self._services.flusher.durable()
                known = self._log.snapshot()
                if known is None or known[0] != self._machine.log_end:
                    self._log.save(self._machine.state, snapshot=self._appender.snapshot())
        finally:
            self._let_go()

    async def drop(self) -> None:
        """Delete everything that is stored of the partition."""
        self._closed = Refusal(Reason.TOPIC_NOT_FOUND, f"topic {self.topic!r} has been deleted")
        self._let_go()
        self._services.store.drop(self.id)

    def _let_go(self) -> None:
        self._gone = True
        self._services.flusher.forget(self)
        self._tail.clear()
        self._appender.give_up(
            Refusal(
                Reason.STORAGE_FAILED,
                f"{self} was closed before the append was known to be on disk; it may be there",
            )
        )
        self._wake_readers()

    # Appending.

    def submit(self, append: Append) -> None:
        """Append a batch; never raises, the answer comes through `append.done`."""
        try:
            self._check_append()
            self._appender.append(append)
        except Refusal as refusal:
            append.refuse(refusal, self._machine.log_start)
            return
        if not self._config.fsync:
            self.synced(self._machine.log_end)
        self._services.flusher.touch(self)

    @property
    def log_end_offset(self) -> int:
        """The offset that the next record gets."""
        return self._machine.log_end

    def sync_point(self) -> int:
        """Say up to which offset everything has been written."""
        return self._machine.log_end

    def synced(self, offset: int) -> None:
        """Answer what waited for this much to be on disk, and wake readers."""
        if self._gone:
            return  # closed or dropped while the disk worked
        if self._appender.synced(offset):
            self._wake_readers()

    # Deleting.

    async def retain(self, rule: RetentionRule, now_ms: int) -> int | None:
        """Delete what a rule does not keep; return the new log start, or None."""
        self._check_online()
        machine, services = self._machine, self._services
        machine.producers.expire(now_ms, services.producer_retention_ms)
        with self._reading("looking for what is to be deleted"):
            target = await find_trim(self._log, machine.state, rule, now_ms, services.threads)
        return None if target is None else await self.trim(target)

    async def trim(self, before_offset: int) -> int:
        """Delete the records before an offset (-1: all that is committed); return the log start.

        The producers' state never loses what the deleted records said: a snapshot at or above the
        new log start goes into the same write.
        """
        self._check_online()
        machine = self._machine
        target = machine.high_watermark if before_offset == -1 else before_offset
        machine.trim_plan(target, 0)
        snapshot = self._appender.snapshot()
        with self._reading(f"looking for offset {target}"):
            row = await self._services.threads.run(self._log.index_before, target)
        if machine.high_watermark < snapshot[0]:
            await self._services.flusher.durable()
        self._check_online()
        plan = machine.trim_plan(target, machine.bytes_below(target, row))
        if plan is None:
            return machine.log_start
        assert plan.log_start_offset <= snapshot[0] <= machine.high_watermark, (snapshot[0], plan)
        try:
            self._log.trim(plan, snapshot=snapshot)
        except CorruptData as damage:
            raise self._damaged(str(damage)) from damage
        except StorageError as error:
            raise storage_refusal(error) from error
        machine.trimmed(plan)
        self._epochs.trim_to(plan.log_start_offset)
        await self._services.flusher.durable()
        return machine.log_start
