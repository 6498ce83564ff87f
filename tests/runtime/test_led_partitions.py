"""Who leads a partition, out of the metadata: only the process that was elected, while it is there."""

from __future__ import annotations

from riverrun_server.core.cluster.image import ClusterImage, Versioned
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    Id,
    Incarnations,
    PartitionValue,
    Replica,
)
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.leadership import Leadership
from riverrun_server.runtime.led_partitions import LedPartitions

TOPIC, OTHER = Id(b"t" * 16), Id(b"o" * 16)
PARTITION = PartitionId(TOPIC, 0)
HELD = object()


def life(broker):
    return Id(bytes([broker]) * 16)


def image_of(leader=1, leader_epoch=5, leader_broker_epoch=11, registered=((1, 11), (2, 12))):
    image = ClusterImage()
    for broker, epoch in registered:
        value = BrokerRegistration(
            broker_id=broker, incarnations=Incarnations(life(broker), life(broker)), endpoints={}
        )
        image.brokers[broker] = Versioned(value, epoch)
    value = PartitionValue(
        leader=leader,
        leader_epoch=leader_epoch,
        leader_broker_epoch=leader_broker_epoch,
        replicas=(1, 2),
        isr=(Replica(1, life(1)), Replica(2, life(2))),
    )
    image.partitions[TOPIC] = {0: Versioned(value, 20)}
    return image


def led(image, me=1, my_epoch=11, held=HELD):
    return LedPartitions(image, me, my_epoch, lambda _: held)


def test_the_leader_has_the_partition_itself_and_the_others_know_who_it_is():
    assert led(image_of()).of(PARTITION) == Leadership(1, 5, HELD)
    assert led(image_of(), me=2, my_epoch=12).of(PARTITION) == Leadership(1, 5, None)


def test_a_leader_whose_replica_is_not_open_yet_does_not_serve():
    assert led(image_of(), held=None).of(PARTITION) == Leadership(1, 5, None)


def test_a_process_that_came_after_the_elected_one_does_not_lead():
    image = image_of(registered=((1, 31), (2, 12)))
    assert led(image, my_epoch=31).of(PARTITION) == Leadership(None, 5, None)
    assert led(image, me=2, my_epoch=12).of(PARTITION) == Leadership(None, 5, None)


def test_nobody_leads_what_is_not_known():
    assert led(image_of()).of(PartitionId(OTHER, 0)) == Leadership(None, 0, None)
    assert led(image_of()).of(PartitionId(TOPIC, 7)) == Leadership(None, 0, None)


def test_who_watches_is_told_of_changes_of_its_topic_until_it_stops():
    partitions, told = led(image_of()), []
    unwatch = partitions.watch(PARTITION, lambda: told.append("a"))
    partitions.watch(PARTITION, lambda: told.append("b"))
    partitions.show([OTHER])
    assert told == []
    partitions.show([TOPIC])
    assert told == ["a", "b"]
    unwatch()
    partitions.show()
    assert told == ["a", "b", "b"]
