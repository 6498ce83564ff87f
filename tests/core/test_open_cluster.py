"""What the controller and topic changes leave undone; each fails until what it found is repaired."""

from __future__ import annotations

from riverrun_server.core.cluster.changes import alter, follow_config
from riverrun_server.core.cluster.values import Durability
from tests.core.control_world import ControlWorld


def test_a_partition_whose_leader_was_away_becomes_durable_when_another_leads():
    world = ControlWorld(3)
    world.make("t", fsync="relaxed")
    controller = world.control(2)
    world.settle(controller)
    leader = world.partition("t", 0).leader
    controller = world.control(next(each for each in (1, 2, 3) if each != leader))
    world.change(leader, fenced=True)
    world.die(leader)
    world.run(alter(world.image, "t", {"fsync": "true"}, (), world.policy).steps)
    world.run(follow_config(world.image, "t", world.policy))
    world.settle(controller)
    value = world.partition("t", 0)
    assert value.leader != leader
    assert value.durability is Durability.FSYNC, "the topic says fsync=true, nobody ever follows"


def test_a_change_of_class_counts_only_disks_that_have_what_is_committed():
    """What was committed as written is not on the disks that the new in-sync set vouches for."""
    world = ControlWorld(3)
    world.make("t", fsync="relaxed")
    before = world.partition("t", 0)
    world.run(alter(world.image, "t", {"fsync": "true"}, (), world.policy).steps)
    world.run(follow_config(world.image, "t", world.policy))
    value = world.partition("t", 0)
    # Roles are taken once for each leader epoch, with the class that the value had then.
    assert value.durability is before.durability or value.leader_epoch > before.leader_epoch
