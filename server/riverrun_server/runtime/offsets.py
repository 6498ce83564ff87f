"""Committed offsets of all groups: which partition of the offsets topic keeps a group's, and how.

The offsets topic is made when the first offset is committed. A group belongs to the partition that
the CRC-32 of its id names, and the leader of that partition is the group's coordinator; on a single
broker that is always this one. Offsets are kept under the topic's id, so a topic made anew under
the same name starts without any.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import (
    OffsetCommit,
    check_commit,
    check_group_id,
    check_within,
)
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.events import CommitOutcome
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.partitions import Directory, PartitionAccess
from riverrun_server.ports.threads import Threads
from riverrun_server.runtime.loading_outage import LoadingOutage
from riverrun_server.runtime.offsets_log import OffsetsLog, OffsetsLogSettings

OFFSETS_TOPIC = "__consumer_offsets"

# Offsets live as long as their topic; the log is kept short by rewriting it, never by age.
OFFSETS_TOPIC_CONFIGS: Mapping[str, str] = {
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
        """Make a topic, or find that it is there.

        Raises:
            Refusal: it could not be made.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOffsetsSettings:
    """How committed offsets are kept.

    Attributes:
        partitions: of the offsets topic, when it is made; it keeps them for good.
        loading_wait_s: how long a call waits for offsets that are being loaded.
        log: how each partition is driven.
    """

    partitions: int = 16
    loading_wait_s: float = 2.0
    log: OffsetsLogSettings = field(default_factory=OffsetsLogSettings)


class GroupOffsets:
    """The committed offsets of all groups.

    Transitions: made -> running (run) -> closed (run is cancelled). Before `run` and behind it,
    everything is refused with NOT_READY.

    Args:
        directory: finds partitions, those of the offsets topic too.
        topics: makes the offsets topic.
        now_ms: the broker's clock.
        threads: where batches are taken apart.
        dice: spreads what is tried again.
    """

    def __init__(
        self,
        directory: Directory,
        topics: InternalTopics,
        now_ms: Callable[[], int],
        threads: Threads,
        dice: Dice,
        settings: GroupOffsetsSettings | None = None,
    ) -> None:
        self._directory = directory
        self._topics = topics
        self._now_ms = now_ms
        self._threads = threads
        self._dice = dice
        self._settings = settings or GroupOffsetsSettings()
        self._logs: list[OffsetsLog] = []
        self._making = asyncio.Lock()
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Load and serve until cancelled; the owner of every task that this starts."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                # Whatever cannot be found yet is looked for again by the first call that needs it.
                with contextlib.suppress(Refusal):
                    self._open()
                await asyncio.Event().wait()
        finally:
            self._tasks = None
            self._logs.clear()

    async def commit(self, group_id: str, commits: Sequence[OffsetCommit]) -> list[CommitOutcome]:
        """Store how far a group has come; an outcome for each commit, in order.

        Those that are in order are stored together, or not at all. Returns when they are durable
        and every replica in sync has them.

        Raises:
            Refusal: INVALID_REQUEST for the group's id; else outcomes have the refusals.
        """
        check_group_id(group_id)
        outcomes: list[CommitOutcome] = []
        records: list[OffsetRecord] = []
        now_ms = self._now_ms()
        for commit in commits:
            try:
                access = await self._check(commit)
            except Refusal as refusal:
                outcomes.append(
                    CommitOutcome(commit.topic, commit.topic_id, commit.partition, refusal)
                )
                continue
            outcomes.append(CommitOutcome(access.topic, *access.id))
            value = CommittedOffset(commit.offset, commit.leader_epoch, commit.metadata, now_ms)
            records.append(OffsetRecord(group_id, access.id, value))
        if not records:
            return outcomes
        try:
            log = await self._log_for_commit(group_id)
            await log.commit(group_id, records)
        except Refusal as refusal:
            return [
                CommitOutcome(each.topic, each.topic_id, each.partition, each.refusal or refusal)
                for each in outcomes
            ]
        return outcomes

    async def committed(self, group_id: str) -> Mapping[PartitionId, CommittedOffset]:
        """Return everything that a group has committed; what is not in the map it has not.

        Raises:
            Refusal: INVALID_REQUEST for the group's id, COORDINATOR_LOADING.
        """
        check_group_id(group_id)
        log = self._log(group_id)
        if log is None:
            return {}
        await log.ready(self._settings.loading_wait_s)
        return log.offsets.committed(group_id)

    # Inside.

    async def _check(self, commit: OffsetCommit) -> PartitionAccess:
        check_commit(commit)
        access = self._directory.partition(commit.topic, commit.topic_id, commit.partition)
        try:
            marks = await access.watermarks()
        except Refusal:
            # A partition that cannot answer just now must not keep a group from its offsets.
            return access
        check_within(commit, marks.log_start_offset, marks.log_end_offset)
        return access

    async def _log_for_commit(self, group_id: str) -> OffsetsLog:
        log = self._log(group_id)
        if log is None:
            async with self._making:
                await self._topics.ensure_internal_topic(
                    OFFSETS_TOPIC, self._settings.partitions, OFFSETS_TOPIC_CONFIGS
                )
            log = self._log(group_id)
            assert log is not None, "the offsets topic was made"
        await log.ready(self._settings.loading_wait_s)
        return log

    def _log(self, group_id: str) -> OffsetsLog | None:
        """Return the log of a group, or None where there is no offsets topic yet."""
        self._open()
        if not self._logs:
            return None
        return self._logs[zlib.crc32(group_id.encode()) % len(self._logs)]

    def _open(self) -> None:
        """Begin to load every partition of the offsets topic, if it is there."""
        if self._logs:
            return
        if self._tasks is None:
            raise Refusal(
                Reason.NOT_READY, "the broker does not keep offsets yet or any more; ask again"
            )
        try:
            accesses = self._directory.partitions(OFFSETS_TOPIC)
        except Refusal as refusal:
            if refusal.reason is Reason.TOPIC_NOT_FOUND:
                return
            raise
        loading = LoadingOutage()
        for access in accesses:
            log = OffsetsLog(
                access,
                self._now_ms,
                self._threads,
                self._exists,
                loading,
                self._dice,
                self._settings.log,
            )
            self._tasks.create_task(log.run(), name=f"offsets log {access.id.partition}")
            self._logs.append(log)

    def _exists(self, partition: PartitionId) -> bool:
        try:
            self._directory.partition("", partition.topic_id, partition.partition)
        except Refusal as refusal:
            return refusal.reason not in (Reason.TOPIC_NOT_FOUND, Reason.PARTITION_NOT_FOUND)
        return True
