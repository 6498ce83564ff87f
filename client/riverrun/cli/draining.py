"""Waiting until nothing depends on a broker that drains."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from riverrun import Admin, BrokerDescription, DrainResult
from riverrun.cli.counts import counted
from riverrun.cli.exits import Complaint, Exit
from riverrun.cli.progress import Progress

LOOK_EVERY_S = 0.5


async def wait_drained(admin: Admin, result: DrainResult, timeout_s: float) -> BrokerDescription:
    """Wait until a broker has nothing left that others can take; return it as it is then.

    Raises:
        Complaint: it takes longer, or the broker drains no more.
        RiverrunError: no broker tells how it is.
    """
    now = result.broker
    total = max(0, now.in_sync_replicas - result.stranded_partitions)
    deadline = asyncio.get_running_loop().time() + timeout_s
    async with Progress(total, lambda: total - _left(now, result), "partitions"):
        while _left(now, result):
            if asyncio.get_running_loop().time() >= deadline:
                raise _unfinished(now, timeout_s)
            await asyncio.sleep(LOOK_EVERY_S)
            found = (await admin.describe_cluster()).broker(now.broker_id)
            if found is None or found.fenced:
                # What it led is another's, or will be.
                return found or replace(now, fenced=True)
            if found.broker_epoch != now.broker_epoch or not found.draining:
                raise _not_draining(found, restarted=found.broker_epoch != now.broker_epoch)
            now = found
    return now


def _left(broker: BrokerDescription, result: DrainResult) -> int:
    """Count the partitions that are still to be taken from a broker."""
    depending = max(broker.leaders, broker.in_sync_replicas)
    return max(0, depending - result.stranded_partitions)


def _unfinished(broker: BrokerDescription, timeout_s: float) -> Complaint:
    return Complaint(
        f"after {timeout_s:g} s broker {broker.broker_id} still leads "
        f"{counted(broker.leaders, 'partition')} and is in sync in {broker.in_sync_replicas:,}; it goes "
        "on draining: the same command waits on, and --undo lets it serve again",
        Exit.PARTLY,
        "DRAIN_UNFINISHED",
        {"leads": broker.leaders, "in_sync_replicas": broker.in_sync_replicas},
    )


def _not_draining(broker: BrokerDescription, *, restarted: bool) -> Complaint:
    how = "was restarted" if restarted else "was told to serve again"
    return Complaint(
        f"broker {broker.broker_id} {how} while it drained, and drains no more; drain it again if that "
        "is still wanted",
        Exit.CONFLICT,
        "CONFLICT",
    )
