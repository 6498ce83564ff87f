"""Histories in which replicas do what they must not; each fails until what it found is repaired."""

from __future__ import annotations

import asyncio
import contextlib

from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.errors import Refusal
from riverrun_server.ports.log import StorageFull
from riverrun_server.ports.metadata import StoreEnded
from riverrun_server.ports.partitions import Acks
from riverrun_server.runtime.replication.driver import ReplicationDriver
from riverrun_server.runtime.replication.outbox import Outcome
from tests.runtime.replication_world import ID, ready
from tests.runtime.test_leader_damage import damage


def test_a_leader_that_is_alone_in_sync_and_damaged_is_no_leader_to_the_controller():
    """Otherwise the partition counts as led, and the topic's policy is never asked."""
    world = ready()
    world.shrink(1)
    world[1].replica.stop("a batch is damaged")
    world.settle(40)
    image = world[2].image
    assert not Standing(image.brokers).leads(world.value)


def test_a_replica_that_found_damage_does_not_come_in_sync_with_it_after_a_restart():
    world = ready(min_isr=2)
    for number in range(8):
        world[1].append(bytes(60), producer_id=9, base_sequence=number)
        world.run()
    assert world[2].replica.log.log.snapshot()[0] > 1, "what lies below is not read at a start"
    damage(world[2], 0)
    world[2].replica.stop("a batch is damaged")
    world.settle(3)
    assert [each.broker for each in world.value.isr] == [1, 3]
    world.restart(2)
    world.learn()
    world.settle(5)
    stored = world[2].store._live.partitions[ID].batches[0]
    good = world[1].store._live.partitions[ID].batches[0]
    members = [each.broker for each in world.value.isr]
    assert stored == good or 2 not in members, (
        "it may be elected and cannot serve what it is to have"
    )


def test_a_leader_whose_disk_is_full_for_long_hands_on():
    world = ready(min_isr=2)
    world[2].store.refuse_writes(StorageFull("no space left on device"))
    world.elect(2)
    world.learn()
    world.settle(60)
    assert world[2].replica.leader is None
    assert not Standing(world[1].image.brokers).leads(world.value), "named for ever, leads never"


class _Ends:
    async def commit(self, steps):
        raise StoreEnded("etcd is another one")


class _Syncs:
    def __init__(self):
        self.touched = 0

    def touch(self, who):
        self.touched += 1


async def test_a_change_of_which_the_store_said_nothing_before_it_ended_stays_in_doubt():
    """An answer that shows another store is thrown away with what it said of the transaction."""
    world = ready(min_isr=1)
    world.shrink(1, 2)
    world.settle(0)
    world.tick()
    world.run()
    world.tick()
    world.collect()
    ((_, proposal),) = world.proposals
    told = []
    replicas = world[1].replicas
    replicas.outcome = lambda proposal, outcome, now, *, revision: told.append(outcome)
    driver = ReplicationDriver(replicas, _Syncs(), _Ends(), lambda envelope: None, lambda: 0.0)
    await driver._ask(proposal)
    assert told == [Outcome.UNKNOWN]


async def test_a_sync_that_proved_everything_is_not_followed_by_one_that_proves_nothing():
    world = ready()
    flusher = _Syncs()
    driver = ReplicationDriver(
        world[1].replicas, flusher, _Ends(), lambda envelope: None, lambda: world.now
    )
    world[1].append(b"a", acks=Acks.LEADER)
    driver.carry_out_soon()
    await asyncio.sleep(0)
    assert flusher.touched == 1
    points = driver.sync_point()
    world[1].store.sync()
    driver.synced(points)
    await asyncio.sleep(0)
    assert world[1].replica.log.is_synced
    assert flusher.touched == 1, "the flusher syncs again, with nothing to prove"


def test_a_leader_that_was_fenced_early_tells_nothing_that_is_over_though_its_lease_goes_on():
    """Two others find its port refusing; clients reach it, and its watch is slow: its lease lies."""
    world = ready(min_isr=2)
    world.elect(2, isr=world.value.isr[1:])
    world.learn(2, 3)
    world.run()
    told = world[2].append(b"a")
    world.run()
    assert (told[0].error, world[2].machine.high_watermark) == (None, 1)
    with contextlib.suppress(Refusal):
        latest = world[1].replica.latest_offset(world.now)
        assert latest == 1, "a position that is over"
