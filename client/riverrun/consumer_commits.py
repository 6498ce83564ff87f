"""How far a group has come: committed by the application, behind it, or ahead of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from riverrun._core.committing import Positions, front_of
from riverrun._core.handing_out import HandingOut
from riverrun._core.records import CommittedOffset, TopicPartition
from riverrun._net.channel import Connections
from riverrun._net.group_commits import CommitSettings, GroupCommits
from riverrun._net.offsets import fetch_group_offsets
from riverrun._net.subscribe_loop import SubscribeLoop
from riverrun._net.subscribe_settings import SubscribeSettings
from riverrun._net.subscribe_stream import Machine
from riverrun.consumer_positions import ConsumerPositions
from riverrun.errors import Reason, RiverrunError, UsageError
from riverrun.v1 import records_pb2

_log = logging.getLogger("riverrun")


class ConsumerCommits(ConsumerPositions):
    """The part of `Consumer` that is about the offsets of its group."""

    def __init__(
        self,
        connections: Connections,
        settings: SubscribeSettings,
        commits: CommitSettings,
        machine: Machine,
        loop: SubscribeLoop,
        handing_out: HandingOut[records_pb2.RecordBatch, records_pb2.Record],
    ) -> None:
        super().__init__(connections, settings, machine, loop, handing_out)
        self._commit_mode = commits.mode
        self._commit_interval_s = commits.interval_s
        self._commits = GroupCommits(connections, settings.group, self._topic_ids)

    async def commit(
        self, offsets: Mapping[TopicPartition, int | CommittedOffset] | None = None
    ) -> None:
        """Store how far the group has come: the given offsets, else all positions.

        An offset is that of the next record to read. It may lie before what is stored: then the
        group reads again. It is there for `commit="manual"`, and does no harm in the other modes.

            async with riverrun.Client() as client:
                async with client.consumer("orders", group="billing", stop_at_end=True) as consumer:
                    async for record in consumer:
                        print(record.value)
                        await consumer.commit({record.topic_partition: record.offset + 1})

        Raises:
            UsageError: the consumer has no group, or an offset is below 0.
            RiverrunError: of the first partition that refused; the others may have been stored.
        """
        self._checked_group()
        await self._commits.commit(self._machine.positions() if offsets is None else offsets)

    async def committed(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, CommittedOffset | None]:
        """Tell how far the group has come, by default in the partitions being read.

            async with riverrun.Client() as client:
                async with client.consumer("orders", group="billing") as consumer:
                    for partition, at in (await consumer.committed()).items():
                        print(partition, at.offset if at else "nothing yet")

        Raises:
            UsageError: the consumer has no group.
            RiverrunError: of the first partition of which nobody can say, or of the call.
        """
        group = self._checked_group()
        asked = await self.assignment() if partitions is None else tuple(partitions)
        if not asked:
            return {}
        return await fetch_group_offsets(self._connections, group, asked, self._topic_ids())

    def _begin(self) -> None:
        super()._begin()
        if self._commit_mode == "auto":
            self._commits.start(self._commit_interval_s, self._finished)

    def _finished(self) -> Positions:
        """Return up to where the application is through with what it was given."""
        return self._machine.finished_positions(self._handing_out.in_hand())

    async def _release(self) -> bool:
        """Commit the batches that are next in turn, then let them be taken; say whether any were.

        Raises:
            RiverrunError: they could not be committed, and have not been released.
        """
        if self._commit_mode != "on_delivery":
            return False
        front = front_of(self._machine.ahead)
        if not front.batches:
            return False
        await self._commits.commit(front.positions)
        self._machine.ahead.release(front.batches)
        return True

    async def _end_commits(self, *, through: bool, quiet: bool) -> None:
        """Commit what is left to commit at the end.

        Args:
            through: the application is through with what it has in hand.
            quiet: something else is being raised already.

        Raises:
            RiverrunError: it could not be committed; unless `quiet`, where it is logged.
        """
        try:
            await self._commits.finish()
            if through:
                self._handing_out.asked()
            if self._commit_mode == "auto":
                await self._commits.commit_due(self._finished)
            elif self._commit_mode == "on_delivery":
                # What was released and not given is the group's again: nobody has seen it.
                await self._commits.commit_due(lambda: self._machine.finished_positions({}))
        except RiverrunError as error:
            if not quiet:
                raise
            _log.warning("group %s: the last commit failed: %s", self._group, error)

    def _checked_group(self) -> str:
        if not self._group:
            raise UsageError(
                "the consumer has no group; give it one: client.consumer(topic, group=...)",
                reason=Reason.INVALID_REQUEST,
            )
        return self._group
