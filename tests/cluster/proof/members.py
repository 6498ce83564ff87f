"""What the brokers of a cluster tell of themselves, and waiting for all of them to be back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import riverrun
from riverrun import PartitionDescription, RiverrunError
from tests.cluster.processes import ClusterProcesses
from tests.e2e.kill.rig import BUG

_ASK_AGAIN_S = 0.1
WHOLE_S = 60.0


class Members:
    """The brokers, asked through any of them."""

    def __init__(self, cluster: ClusterProcesses, client: riverrun.Client) -> None:
        self._cluster = cluster
        self._admin = client.admin()

    async def partitions(self, topic: str) -> Sequence[PartitionDescription]:
        """Return who leads and who is in sync."""
        return (await self._admin.describe_topic(topic)).partitions

    async def controller(self) -> int:
        """Return who elects leaders; -1 where nobody does just now."""
        return (await self._admin.describe_cluster()).controller

    async def make(self, topic: str) -> None:
        """Make a topic."""
        await self._admin.create_topic(topic)

    async def whole(self, topic: str) -> float:
        """Wait until every partition is led and all of its replicas are in sync; return how long it took.

        Raises:
            AssertionError: it takes longer than a minute.
        """
        now_s = asyncio.get_running_loop().time
        began_s = now_s()
        found: object = None
        while now_s() < began_s + WHOLE_S:
            try:
                found = partitions = await self.partitions(topic)
            except RiverrunError as error:
                found = error
            else:
                if all(
                    p.leader > 0 and len(p.in_sync_replicas) == len(p.replicas) for p in partitions
                ):
                    return now_s() - began_s
            await asyncio.sleep(_ASK_AGAIN_S)
        raise AssertionError(
            f"{topic} does not get whole in {WHOLE_S} s: {found}\n{self._cluster.logs()}"
        )


@contextlib.asynccontextmanager
async def members_of(cluster: ClusterProcesses) -> AsyncIterator[Members]:
    """Have somebody who asks."""
    async with riverrun.Client(cluster.bootstrap, connect_timeout_s=WHOLE_S) as client:
        yield Members(cluster, client)


def logged(cluster: ClusterProcesses) -> list[str]:
    """Return what brokers have logged that nothing from outside is an excuse for."""
    return [
        f"broker {broker_id} has logged: {line}"
        for broker_id, broker in cluster.brokers.items()
        for line in broker.logs().splitlines()
        if BUG.search(line)
    ]
