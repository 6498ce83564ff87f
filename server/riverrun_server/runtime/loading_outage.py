"""Tells the operator when offsets of groups cannot be loaded: once, not for each try of each partition."""

from __future__ import annotations

import asyncio

import structlog

from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.outage import Outage

# More often than this it is noise, more rarely it looks as if it were over.
_REMIND_EVERY_S = 60.0

_log = structlog.stdlib.get_logger(__name__)


class LoadingOutage:
    """The failed loads of all partitions of the offsets topic, in the log."""

    def __init__(self) -> None:
        self._outage = Outage(_REMIND_EVERY_S)

    def failed(self, partition: PartitionId, error: Exception) -> None:
        """Note that a partition could not be loaded and will be tried again."""
        now = asyncio.get_running_loop().time()
        notice = self._outage.failed(str(partition), str(error), now)
        if notice is not None:
            _log.warning(
                "offsets of groups cannot be loaded, will try again; calls of their groups are "
                "refused until then",
                partitions=len(notice.failing),
                first=notice.failing[0],
                error=notice.error,
                for_s=round(notice.lasted_s, 1),
            )

    def recovered(self, partition: PartitionId) -> None:
        """Note that a partition is loaded."""
        notice = self._outage.recovered(str(partition), asyncio.get_running_loop().time())
        if notice is not None:
            _log.info("offsets of groups are loaded again", after_s=round(notice.lasted_s, 1))

    def gone(self, partition: PartitionId) -> None:
        """Note that a partition is no longer this broker's to load; there is nothing to tell."""
        self._outage.recovered(str(partition), asyncio.get_running_loop().time())
