"""What brokers lead and hold is counted, and partitions that lack something stand in order of need."""

from __future__ import annotations

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.health import Lack, Share, health
from tests.core.control_world import ControlWorld


def without(world, name, number, *brokers):
    value = world.partition(name, number)
    world.put(name, number, isr=tuple(e for e in value.isr if e.broker not in brokers))


def test_a_cluster_that_is_well_lacks_nothing_and_everything_is_counted():
    world = ControlWorld(3)
    world.make("t", 6)
    world.make("__x", 3, replicas=1)
    found = health(world.image)
    assert (found.topics, found.partitions) == (2, 9)
    assert not found.lacking
    assert not found.lacks
    assert sum(share.leaders for share in found.shares.values()) == 9
    assert sum(share.preferred for share in found.shares.values()) == 9
    assert sum(share.replicas for share in found.shares.values()) == 21
    assert all(share.in_sync == share.replicas for share in found.shares.values())


def test_a_partition_may_lack_several_things_and_the_worst_comes_first():
    world = ControlWorld(4)
    world.make("a", 2)
    world.make("b", 1)
    world.make("c", 1)
    a = world.partition("a", 1)
    without(world, "a", 1, a.replicas[1])
    b = world.partition("b", 0)
    without(world, "b", 0, *b.replicas[1:])
    c = world.partition("c", 0)
    # Led by a process that is gone: another has been started since.
    world.put("c", leader_broker_epoch=1)
    found = health(world.image)
    assert [(each.topic, each.partition, each.lacks) for each in found.lacking] == [
        ("c", 0, (Lack.LEADER,)),
        ("b", 0, (Lack.MIN_ISR, Lack.REPLICAS)),
        ("a", 1, (Lack.REPLICAS,)),
    ]
    assert found.lacks == {Lack.LEADER: 1, Lack.MIN_ISR: 1, Lack.REPLICAS: 2}
    leaders = [a.leader, b.leader, world.partition("a", 0).leader]
    for broker, share in found.shares.items():
        assert share.leaders == leaders.count(broker)
        assert share.preferred == [*leaders, c.leader].count(broker)


def test_what_the_metadata_does_not_say_lacks_a_leader_and_a_broker_that_is_gone_is_counted_too():
    world = ControlWorld(3)
    world.make("t", 2)
    topic_id = world.image.topics["t"].value.topic_id
    world._store({keys.partition(topic_id, 1): None, keys.broker(3): None})
    value = world.partition("t", 0)
    found = health(world.image)
    assert (1, (Lack.LEADER,), None) in [
        (each.partition, each.lacks, each.value) for each in found.lacking
    ]
    assert found.shares[3] == Share(
        leaders=0, preferred=value.replicas[0] == 3, replicas=1, in_sync=1
    )


def test_a_broker_is_not_in_sync_by_a_life_of_its_data_that_is_over():
    world = ControlWorld(3)
    world.make("t", 2)
    world.start(3, life=1)
    found = health(world.image)
    assert found.shares[3].replicas == 2
    assert found.shares[3].in_sync == 0
    assert found.shares[2].in_sync == 2
