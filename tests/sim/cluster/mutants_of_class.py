"""Bugs planted into what becomes of a partition whose topic is to be durable, or need not be any more."""

from __future__ import annotations

import dataclasses
from unittest.mock import patch

from riverrun_server.core.cluster import partition_changes
from riverrun_server.core.cluster.values import Durability
from riverrun_server.core.replication.leadership import Leadership
from riverrun_server.core.replication.terms import Change
from tests.sim.cluster.options import Options
from tests.sim.cluster.planting import mutant


def changing_class(options: Options) -> Options:
    """Return a cluster whose topic becomes durable and is so no more, in turn."""
    return dataclasses.replace(
        options, unclean=True, relaxed=True, brokers=3, replication_factor=3, mean_gap_s=0.5
    )


@mutant(
    "what is to be durable is durable as soon as an epoch begins in which only what is synced counts",
    "another_class",
    "slow_disk",
    "power_cut",
    options=changing_class,
)
def durable_as_soon_as_asked_for():
    def with_class(partition, standing, *, fsync):
        changed = original(partition, standing, fsync=fsync)
        if changed is None or changed.durability is not Durability.SYNCING:
            return changed
        isr = tuple(standing.replica(each.broker, Durability.FSYNC) for each in changed.isr)
        return dataclasses.replace(changed, isr=isr, elr=(), durability=Durability.FSYNC)

    original = partition_changes.with_class
    with patch.object(partition_changes, "with_class", with_class):
        yield


@mutant(
    "once the leader has synced, everybody has",
    "another_class",
    "slow_disk",
    "power_cut",
    options=changing_class,
)
def nobody_is_asked_what_is_synced():
    def becoming_durable(self):
        value = self.insync.committed
        members = [self.registered[each.broker] for each in value.isr]
        changed = self.insync.become_durable([each.life(Durability.FSYNC) for each in members])
        return None if changed is None else Change(changed, self.insync.revision)

    with patch.object(Leadership, "_becoming_durable", becoming_durable):
        yield


@mutant(
    "a class changes without a leader epoch",
    "another_class",
    "slow_disk",
    "power_cut_of_all",
    options=changing_class,
)
def roles_count_as_they_began():
    def with_class(partition, standing, *, fsync):
        changed = original(partition, standing, fsync=fsync)
        return changed and dataclasses.replace(changed, leader_epoch=partition.leader_epoch)

    original = partition_changes.with_class
    with patch.object(partition_changes, "with_class", with_class):
        yield
