"""All replicas of a process: opened apart from being told what the metadata says."""

from __future__ import annotations

import pytest

from riverrun_server.core.cluster.image import KeyChange
from riverrun_server.core.cluster.keys import PartitionKey
from riverrun_server.ports.log import StorageFull
from tests.runtime.replication_world import ID, TOPIC, ready


def test_what_is_not_open_is_not_touched_by_the_metadata():
    world = ready()
    world.restart(2)
    changes = [KeyChange(key, at) for key, at in world.stored.items()]
    world[2].image.load(world.revision, changes)
    world[2].replicas.update(world[2].image, world.now)
    assert list(world[2].replicas) == []


def test_a_full_disk_opens_nothing_until_it_has_room():
    world = ready()
    other = world[2]
    other.wipe()
    other.start()
    other.store.refuse_writes(StorageFull("full"))
    with pytest.raises(StorageFull):
        other.learn()
    assert other.replicas.find(ID) is None
    other.replicas.update(other.image, world.now)
    other.store.refuse_writes(None)
    world.settle(3)
    assert other.replicas.find(ID).follower is not None


def test_opening_what_is_missing_opens_nothing_twice():
    world = ready()
    before = world[2].replica
    world[2].replicas.open_missing(world[2].image)
    assert world[2].replica is before
    world[2].replicas.open_missing(world[2].image, [])
    assert list(world[2].replicas) == [before]


def test_a_partition_that_its_topic_does_not_show_is_not_held():
    """A plan that was interrupted leaves its value; whoever makes it anew believes that it is empty."""
    world = ready()
    world.write(PartitionKey(TOPIC, 1), world.value)
    world.learn()
    assert world[1].replicas.find(ID._replace(partition=1)) is None
