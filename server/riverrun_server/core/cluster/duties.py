"""What the controller owes one partition next, and how urgent that is."""

from __future__ import annotations

import enum
from typing import NamedTuple

from riverrun_server.core.cluster import partition_changes
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.cluster.values import PartitionValue


class Duty(enum.IntEnum):
    """Why a partition changes, the most urgent first."""

    ELECT = 1
    ACCEPT_LOSS = 2
    HAND_ON = 3
    SHRINK = 4
    MIN_ISR = 5
    CLASS = 6
    PREFER = 7

    @property
    def elects(self) -> bool:
        """Whether a partition gets another leader, or the same in another epoch."""
        return self not in (Duty.SHRINK, Duty.MIN_ISR)


class Due(NamedTuple):
    """A partition as it has to become."""

    duty: Duty
    value: PartitionValue


def next_due(
    partition: PartitionValue, standing: Standing, min_isr: int, *, fsync: bool
) -> Due | None:
    """Return what is due of a partition, one thing at a time; None is nothing, or nobody can.

    Every change brings a partition nearer to where nothing is due: it ends there as long as the
    brokers stay what they are.
    """
    if not standing.leads(partition):
        leader = partition_changes.candidate(partition, standing)
        return None if leader is None else _led(Duty.ELECT, partition, leader, standing)
    leader = partition_changes.successor(partition, standing)
    if leader is not None:
        return _led(Duty.HAND_ON, partition, leader, standing)
    shrunk = partition_changes.shrunk(partition, standing)
    if shrunk != partition:
        return Due(Duty.SHRINK, shrunk)
    changed = partition_changes.with_min_isr(partition, min_isr)
    if changed != partition:
        return Due(Duty.MIN_ISR, changed)
    counted = partition_changes.with_class(partition, standing, fsync=fsync)
    if counted is not None:
        return Due(Duty.CLASS, counted)
    leader = partition_changes.preferred(partition, standing)
    return None if leader is None else _led(Duty.PREFER, partition, leader, standing)


def due_with_loss(partition: PartitionValue, standing: Standing) -> Due | None:
    """Return what is due of a partition whose topic accepts that it begins with what is left.

    None is nobody; also while somebody has all data who merely drains: it comes back with it.
    """
    assert partition_changes.candidate(partition, standing) is None, partition
    for each in (*partition.isr, *partition.elr):
        if standing.serves(each.broker) and standing.same_life(each, partition.durability):
            return None
    leader = partition_changes.last_resort(partition, standing)
    if leader is None:
        return None
    return Due(Duty.ACCEPT_LOSS, partition_changes.elected_with_loss(partition, leader, standing))


def _led(duty: Duty, partition: PartitionValue, leader: int, standing: Standing) -> Due:
    return Due(duty, partition_changes.elected(partition, leader, standing))
