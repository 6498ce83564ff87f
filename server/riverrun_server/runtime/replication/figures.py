"""Adds up what a broker's replicas are and how far behind their followers are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from riverrun_server.runtime.replication.replica import Replica


@dataclass(slots=True)
class ReplicaFigures:
    """What the replicas of one broker add up to; the names are those of observe.replication."""

    led: int = 0
    followed: int = 0
    stopped: int = 0
    under_replicated: int = 0
    under_min_isr: int = 0
    lag_records: int = 0


def add_up(replicas: Iterable[Replica]) -> ReplicaFigures:
    """Return the figures of replicas."""
    figures = ReplicaFigures()
    for replica in replicas:
        if replica.why_stopped is not None:
            figures.stopped += 1
        elif replica.leader is not None:
            core = replica.leader.core
            value = core.insync.committed
            figures.led += 1
            figures.under_replicated += len(value.isr) < len(value.replicas)
            figures.under_min_isr += core.insync.is_too_small
            figures.lag_records = max(figures.lag_records, *replica.leader.lags().values(), 0)
        elif replica.follower is not None:
            figures.followed += 1
    return figures
