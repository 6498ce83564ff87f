"""Keeps a partition of the offsets topic short: what counts is appended again, and what lies before it trimmed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups.members import Record
from riverrun_server.core.groups.offsets_partition import OffsetsPartition
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.runtime.coordinator_services import CoordinatorServices
from riverrun_server.runtime.group_turn import Turn

_log = structlog.stdlib.get_logger(__name__)

_CATCH_UP_S = 5.0


class OffsetsRewrite:
    """The rewrites of one partition of the offsets topic.

    Transitions: resting -> writing (`begin`, where the log is much longer than what it says) -> trimming, once
    nothing that counts stands below its point -> resting; or given up, and left alone for a while.

    Args:
        partition: what the log says.
        access: the partition itself.
        services: what the coordinator's logs share.
        batch_bytes: how much is written at once.
        again_after_s: how long to leave one alone that could not be finished.
    """

    def __init__(
        self,
        partition: OffsetsPartition,
        access: PartitionAccess,
        services: CoordinatorServices,
        batch_bytes: int,
        again_after_s: float,
    ) -> None:
        self._partition = partition
        self._access = access
        self._services = services
        self._batch_bytes = batch_bytes
        self._again_after_s = again_after_s
        self._not_before = 0.0
        self._may_forget = False

    @property
    def is_due(self) -> bool:
        """Whether one is to begin."""
        now = asyncio.get_running_loop().time()
        partition = self._partition
        return not partition.rewriting and partition.rewrite_due() and now >= self._not_before

    @property
    def is_written(self) -> bool:
        """Whether what is under way has nothing left to write."""
        return self._partition.rewriting and not self._stale()

    async def begin(self) -> None:
        """Begin."""
        self._partition.begin_rewrite()
        # Another broker may have taken a commit for a topic so new that it is not known here; the rewrite
        # would delete it. Everything that stands below its point was committed before now.
        self._may_forget = await knows_topics(self._services)

    def write(self, turn: Turn) -> None:
        """Write the next part of what counts."""
        turn.rewrite(self._stale(), self._batch_bytes)

    async def end(self) -> None:
        """Trim the log: everything that counts stands above the point and is committed there."""
        point = self._partition.trimmable()
        assert point is not None, "nothing is left to rewrite, so nothing that counts stands below"
        try:
            log_start = await self._access.trim(point)
        except Refusal as refusal:
            self.give_up(refusal)
        else:
            if self._partition.rewriting:
                self._partition.end_rewrite(log_start)

    def give_up(self, refusal: Refusal) -> None:
        """Leave the log longer than it has to be; nothing is lost, and a later rewrite trims."""
        _log.warning(
            "offsets log cannot be shortened, will try again",
            partition=str(self._access.id),
            error=refusal.message,
        )
        if self._partition.rewriting:
            self._partition.end_rewrite(self._partition.offsets.log_start_offset)
        self._not_before = asyncio.get_running_loop().time() + self._again_after_s

    def _stale(self) -> Sequence[Record]:
        if not self._partition.rewriting:
            return []
        exists = self._services.exists if self._may_forget else _always
        return self._partition.rewritten(self._batch_bytes, exists)


async def knows_topics(services: CoordinatorServices) -> bool:
    """Wait, not for long, until every topic is known here that there was; return whether it is."""
    try:
        async with asyncio.timeout(_CATCH_UP_S):
            await services.caught_up()
    except (Refusal, TimeoutError):
        return False
    return True


def _always(_: PartitionId) -> bool:
    return True
