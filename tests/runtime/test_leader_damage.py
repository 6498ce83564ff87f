"""A leader that cannot serve what it has: it finds out, and others learn that it leads no more."""

from __future__ import annotations

import pytest

from riverrun_server.core.cluster.partition_changes import candidate, elected, last_resort
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.cluster.values import Replica
from riverrun_server.ports.log import StorageFull
from tests.runtime.replication_world import ID, life, ready


def damage(broker, at):
    """Flip a bit of a stored batch, wherever it stands."""
    for image in (broker.store._live, broker.store._durable):
        stored = image.partitions[ID]
        data = bytearray(stored.batches[at])
        data[8] ^= 1
        stored.batches[at] = bytes(data)
    broker.replica.log.tail.clear()


def test_a_leader_finds_its_own_damage_where_a_new_follower_of_the_epoch_cannot_read():
    """Behind more than it looks at in one go, and nothing was acknowledged in this epoch."""
    world = ready(min_isr=1)
    world.shrink(1, 2)
    for _ in range(12):
        world[1].append(bytes(900_000))
        world.run()
    end = world[3].machine.log_end
    world.broken |= {(1, 3), (3, 1)}
    for _ in range(2):
        world[1].append(bytes(900_000))
        world.run()
    assert (end, world[2].machine.log_end, world[3].machine.log_end) == (12, 14, 12)
    world[1].crash()
    world.elect(2)
    world.broken.clear()
    damage(world[2], 12)
    # The follower's acceptance of the epoch is on its disk before the first push comes.
    world.learn(3)
    world[3].sync()
    world.learn(2)
    for _ in range(10):
        world.tick()
        world.run()
    assert world[3].machine.log_end == 12
    assert world[2].replica.why_stopped is not None


def test_a_leader_that_is_alone_in_sync_and_damaged_is_no_leader_to_the_controller():
    """Otherwise the partition counts as led, and the topic's policy is never asked."""
    world = ready()
    world.shrink(1)
    world[1].replica.stop("a batch is damaged")
    world.settle(40)
    standing = Standing(world[2].image.brokers)
    assert not standing.leads(world.value)
    assert candidate(world.value, standing) is None
    assert last_resort(world.value, standing) == 2, "not the one that cannot read it"


def test_a_leader_that_was_alone_in_sync_and_damaged_may_lead_as_another_process():
    world = ready()
    world.shrink(1)
    world[1].replica.stop("a batch is damaged")
    world.settle(3)
    settled = world.value
    world.settle(10)
    assert world.value == settled, "it says so once"
    world.restart(1)
    world.learn()
    standing = Standing(world[1].image.brokers)
    assert candidate(world.value, standing) == 1
    assert elected(world.value, 1, standing).isr == (Replica(1, life(1)),)


def test_a_leader_whose_disk_is_full_for_long_hands_on():
    world = ready(min_isr=2)
    world[2].store.refuse_writes(StorageFull("no space left on device"))
    world.elect(2)
    world.learn()
    world.settle(8)
    assert Standing(world[1].image.brokers).leads(world.value), "it may yet begin"
    world.settle(8)
    standing = Standing(world[1].image.brokers)
    assert not standing.leads(world.value)
    assert candidate(world.value, standing) == 1
    world[2].store.refuse_writes(None)
    world.settle(3)
    assert world[2].replica.leader is None, "it has left, and is named until another is elected"
    world.elect(1)
    world.learn()
    world.settle(5)
    assert [each.broker for each in world.value.isr] == [1, 3, 2]


@pytest.mark.parametrize(("min_isr", "eligible"), [(2, [2]), (1, [])])
def test_a_leader_that_could_not_begin_stays_eligible_beside_too_few(min_isr, eligible):
    world = ready(min_isr=min_isr)
    world.shrink(1, 2)
    world[2].store.refuse_writes(StorageFull("no space left on device"))
    world[3].crash()
    world.elect(2)
    world.learn()
    world.settle(14)
    assert [each.broker for each in world.value.isr] == [1]
    assert [each.broker for each in world.value.elr] == eligible


def test_a_leader_that_could_not_begin_and_is_alone_stays_in_sync():
    world = ready(min_isr=1)
    world.shrink(2)
    world[2].store.refuse_writes(StorageFull("no space left on device"))
    world.elect(2, isr=world.value.isr)
    world.learn()
    world.settle(30)
    assert Standing(world[1].image.brokers).leads(world.value)


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
