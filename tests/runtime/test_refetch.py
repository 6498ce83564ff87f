"""Replicas that find damage: what they throw away, when, and how they come back."""

from __future__ import annotations

import dataclasses

import pytest

from riverrun_server.core.cluster.keys import PartitionKey
from riverrun_server.core.cluster.values import Replica
from riverrun_server.core.errors import Reason
from riverrun_server.core.replication.messages import Follow, Push, Refused
from riverrun_server.ports.log import CorruptData, StorageFull
from riverrun_server.runtime.replication.outbox import Outcome
from riverrun_server.storage.memory import MemoryLog
from tests.runtime.replication_world import ID, TOPIC, World, life, ready


def filled(**how) -> World:
    """Return a world in which all three replicas have two batches."""
    world = ready(**how)
    world[1].append(b"a", b"b")
    world[1].append(b"c")
    world.run()
    world.tick()
    world.run()
    return world


def flip(broker, at: int = 0) -> None:
    """Flip a bit in a stored batch."""
    for image in (broker.store._live, broker.store._durable):
        stored = image.partitions[ID]
        data = stored.batches[at]
        stored.batches[at] = data[:-1] + bytes([data[-1] ^ 1])
    broker.replica.log.tail.clear()


def in_sync(world) -> set[int]:
    return {each.broker for each in world.value.isr}


def until(world, condition, seconds: int = 30) -> None:
    for _ in range(seconds):
        if condition():
            return
        world.settle(1)
    raise AssertionError(world.value)


def test_a_follower_that_finds_damage_throws_its_data_away_and_takes_the_leaders():
    world = filled()
    flip(world[2])
    world[2].replica.stop("a batch is damaged")
    until(world, lambda: 2 not in in_sync(world))
    until(world, lambda: 2 in in_sync(world))
    assert world[2].log() == world[1].log()
    assert world[2].replica.why_stopped is None
    assert world[2].replica.stopped.refetching.rounds == 1
    assert world[2].replica.log.log.scan(0, 1 << 20)


def test_a_process_that_finds_damage_at_its_start_does_so_too():
    world = filled()
    flip(world[2])
    world.restart(2)
    world.learn()
    assert "checksum" in world[2].replica.why_stopped
    until(world, lambda: world[2].replica.why_stopped is None and 2 in in_sync(world))
    assert world[2].log() == world[1].log()


def test_a_process_that_cannot_read_its_leader_epochs_does_so_too(monkeypatch):
    def damaged(_log):
        raise CorruptData("a block of the index is damaged")

    world = filled()
    with monkeypatch.context() as patched:
        patched.setattr(MemoryLog, "epochs", damaged)
        world.restart(2)
        world.learn()
    assert world[2].replica.why_stopped == "a block of the index is damaged"
    until(world, lambda: world[2].replica.why_stopped is None and 2 in in_sync(world))
    assert world[2].log() == world[1].log()
    assert world[2].replica.log.epochs.latest == world[1].replica.log.epochs.latest


def test_a_leader_that_finds_damage_takes_the_data_of_its_successor():
    world = filled()
    flip(world[1])
    world[1].replica.stop("a batch is damaged")
    until(world, lambda: 1 not in in_sync(world))
    world.elect(2)
    world.learn()
    until(world, lambda: 1 in in_sync(world))
    assert world[1].log() == world[2].log()


def test_what_is_known_of_producers_comes_back_with_the_data():
    world = ready()
    for sequence in range(3):
        world[1].append(b"x", producer_id=7, producer_epoch=0, base_sequence=sequence)
        world.run()
    flip(world[3])
    world[3].replica.stop("a batch is damaged")
    until(world, lambda: world[3].replica.why_stopped is None and 3 in in_sync(world))
    assert world[3].producers() == world[1].producers()


def test_where_the_leader_has_deleted_the_beginning_it_begins_where_the_leader_does():
    world = ready()
    for value in (b"a", b"b", b"c"):
        world[1].append(value, producer_id=7, producer_epoch=0, base_sequence=b"abc".index(value))
        world.run()
    world[1].replica.trim(2)
    world.run()
    world.tick()
    world.run()
    world[2].replica.stop("a batch is damaged")
    until(world, lambda: world[2].replica.why_stopped is None and 2 in in_sync(world))
    assert world[2].machine.log_start == world[1].machine.log_start == 2
    assert world[2].producers() == world[1].producers()


# What must not be thrown away.


def test_nothing_is_thrown_away_while_it_may_be_elected():
    world = filled(min_isr=2)
    world[2].replica.stop("a batch is damaged")
    value = world.value
    elr = (Replica(2, life(2)),)
    changed = dataclasses.replace(
        value, isr=(Replica(1, life(1)),), elr=elr, partition_epoch=value.partition_epoch + 1
    )
    world.write(PartitionKey(TOPIC, 0), changed)
    world.learn(2)
    world.run()
    for _ in range(5):
        world.tick()
        world.collect()
        # The leader does not hear of it, and answers all the same.
        assert not [each for broker, each in world.proposals if broker.id == 2]
        said = [each for envelope in world.links.get((2, 1), []) for each in envelope.messages]
        assert not [each for each in said if isinstance(each, Follow)]
        world.links.clear()
    assert world[2].machine.log_end == 3


def test_nothing_is_thrown_away_while_the_leader_does_not_answer():
    world = filled()
    flip(world[2])
    world[2].replica.stop("a batch is damaged")
    until(world, lambda: 2 not in in_sync(world))
    world.broken = {(1, 2)}
    world.settle(20)
    assert world[2].machine.log_end == 3
    assert world[2].replica.stopped.refetching.rounds == 0


def test_two_that_are_damaged_both_keep_what_they_have():
    world = filled()
    for broker in (2, 1):
        world.shrink(1)
        world[broker].replica.stop("a batch is damaged")
    world[3].crash()
    world.settle(20)
    assert world[2].machine.log_end == world[1].machine.log_end == 3


def test_what_contradicts_the_leader_is_kept():
    world = filled()
    world[2].replica.stop("the leader has another log", damaged=False)
    world.settle(20)
    assert world[2].machine.log_end == 3
    assert 2 not in in_sync(world)


def test_a_message_from_before_the_damage_is_no_answer():
    world = filled()
    world[2].replica.stop("a batch is damaged")
    until(world, lambda: 2 not in in_sync(world))
    push = Push(ID, 1, None, (), 3, 0, 1, 0)
    late = dataclasses.replace(world_envelope(world), messages=(push,))
    world[2].replicas.receive(late, world.now)
    assert world[2].machine.log_end == 3


def world_envelope(world):
    world[1].append(b"more")
    world.collect()
    return next(each for each in world.links[(1, 3)])


def asked_to_settle(world) -> None:
    """Bring broker 2 to where it asks for a change of nothing."""
    world[2].replica.stop("a batch is damaged")
    until(world, lambda: 2 not in in_sync(world))
    for _ in range(5):
        if any(broker.id == 2 for broker, _ in world.proposals):
            return
        world.run()
        world.tick()
        world.collect()
    raise AssertionError(world.proposals)


def test_a_change_of_nothing_insists_on_the_leaders_process():
    world = filled()
    asked_to_settle(world)
    (proposal,) = [each for broker, each in world.proposals if broker.id == 2]
    value = world.value
    assert proposal.change.value == dataclasses.replace(
        value, partition_epoch=value.partition_epoch + 1
    )
    assert proposal.change.guards == ((1, world[1].image.brokers[1].mod_revision),)


def test_of_a_change_of_nothing_that_nobody_knows_about_nothing_follows():
    world = filled()
    asked_to_settle(world)
    world.decide(Outcome.UNKNOWN, written=True)
    world.run()
    world.learn()
    assert world[2].machine.log_end == 3
    until(world, lambda: world[2].replica.why_stopped is None)


def test_another_leader_epoch_asks_for_another_change_of_nothing():
    world = filled()
    asked_to_settle(world)
    world.broken = {(1, 2), (3, 2)}
    world.decide()
    world.proposals.clear()
    world.elect(3, isr=[Replica(1, life(1)), Replica(3, life(3))])
    world.learn()
    world.collect()
    assert [each.change.value.leader for broker, each in world.proposals if broker.id == 2] == [3]


# What the leader believes.


def test_what_was_acknowledged_before_the_damage_does_not_bring_it_back():
    """A join that was planned on it is refused, and nothing new is planned on it."""
    world = filled()
    asked_to_settle(world)
    # The leader has not heard of the damage, and believes what broker 2 had acknowledged.
    core = world[1].replica.leader.core
    progress = core.followers.of(2, world[2].replicas.broker_epoch)
    progress.offline, progress.durable_end = False, 3
    world.proposals = [each for each in world.proposals if each[0].id == 2]
    world.decide()
    world.learn()
    world.broken = {(2, 1)}
    world.run()
    for _ in range(5):
        world[1].replicas.tick(world.now)
        world.collect()
        assert not [each for broker, each in world.proposals if broker.id == 1]
        world.now += 0.3


# Again and again.


def test_a_replica_that_is_damaged_again_waits_longer_each_time():
    world = filled()
    waited = []
    for _ in range(4):
        world[2].replica.stop("a batch is damaged")
        began = world.now
        until(world, lambda: world[2].replica.why_stopped is None, 100)
        waited.append(world.now - began)
        until(world, lambda: 2 in in_sync(world))
    assert waited == sorted(waited)
    assert waited[0] < 5.0
    assert waited[3] > 4 * world.terms.refetch_s / 2
    assert world[2].replica.stopped.refetching.rounds == 4


def test_a_disk_without_room_throws_nothing_away_until_it_has_some():
    world = filled()
    world[2].replica.stop("a batch is damaged")
    world[2].store.refuse_writes(StorageFull("full"))
    world.settle(10)
    assert world[2].machine.log_end == 3
    world[2].store.refuse_writes(None)
    until(world, lambda: 2 in in_sync(world))


def test_a_crash_behind_the_throwing_away_keeps_the_accepted_epoch():
    world = filled()
    world.elect(3)
    world.learn()
    world.run()
    world[2].replica.stop("a batch is damaged")
    for _ in range(100):
        world.tick(0.2)
        world.run(sync=False)
        world.decide()
        world.learn()
        if world[2].replica.why_stopped is None:
            break
    assert world[2].replica.stopped.refetching.rounds == 1
    world.restart(2, survivors=world[2].store.unsynced_writes)
    world.learn()
    assert world[2].machine.state.accepted_epoch == 2
    until(world, lambda: 2 in in_sync(world))
    assert world[2].log() == world[3].log()


# Telling.


def test_who_stopped_says_so_until_it_is_out_though_streams_break():
    world = filled(min_isr=2)
    world.broken = {(2, 1)}
    world[2].replica.stop("a batch is damaged")
    world.run()
    world.broken = set()
    world.tick()
    world.run()
    world.settle(2)
    assert 2 not in in_sync(world)
    assert 2 not in {each.broker for each in world.value.elr}


def test_who_stopped_says_so_on_a_new_stream_at_once():
    world = filled()
    world.broken = {(2, 1)}
    world[2].replica.stop("a batch is damaged")
    world.run()
    world.broken = set()
    world[2].replicas.connected(1, world.now)
    world.collect()
    (refused,) = world.sent(Refused, to=1)
    assert refused.reason is Reason.PARTITION_OFFLINE


@pytest.mark.parametrize("broker", [1, 2])
def test_a_stop_is_told_once(broker):
    world = filled()
    told = []
    services = world[broker].replica._services
    world[broker].replica._services = dataclasses.replace(
        services, stopped=lambda partition, why: told.append((partition, why))
    )
    world[broker].replica.stop("one")
    world[broker].replica.stop("two")
    assert told == [(ID, "one")]
