"""How far replicas are behind: asked of the leaders of some partitions, for a moment, and told of those that answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from riverrun_server.core.errors import Refusal
from riverrun_server.ports.partitions import PartitionAccess

# A leader that is there answers in milliseconds; for one that is not, nobody should wait who asks how
# the cluster is.
_WITHIN_S: Final = 1.0


async def lags_of(partitions: Sequence[PartitionAccess | None]) -> list[Mapping[int, int]]:
    """Return the lag in offsets of each partition's followers, by broker.

    Args:
        partitions: wherever they are led; None is one that is not known here.

    Returns:
        In their order; nothing where the leader does not tell at once.
    """
    asking = [
        None if each is None else asyncio.create_task(_ask(each), name="ask for lags")
        for each in partitions
    ]
    tasks = [task for task in asking if task is not None]
    try:
        if tasks:
            await asyncio.wait(tasks, timeout=_WITHIN_S)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [{} if task is None or task.cancelled() else task.result() for task in asking]


async def _ask(partition: PartitionAccess) -> Mapping[int, int]:
    try:
        return (await partition.watermarks()).lags
    except Refusal:
        return {}
