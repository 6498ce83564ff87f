"""What a partition's value becomes as brokers come, go and end: the next leader, the next ISR.

Each change is one compare-and-swap of the one value, so a leader, its epoch and the ISR that it
begins with are never seen apart. A value that names a leader always names one: where nobody may
lead, nothing is written (KIP-966 has the rules of the ISR and of those who left it eligible).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from riverrun_server.core.cluster.eligible import eligible
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.cluster.values import Durability, PartitionValue, Replica
from riverrun_server.core.log.epochs import EPOCHS_LOST_MAX


def candidate(partition: PartitionValue, standing: Standing) -> int | None:
    """Return who may lead with all that was committed: of the ISR, else of the ELR.

    Of several it is the first among the partition's replicas, so that leaders stay spread as
    placement spread them. Whoever was alone with all data and found it damaged may lead again as another
    process, which may read it. None is nobody.
    """
    for among in (partition.isr, partition.elr):
        eligible = {each.broker for each in among if standing.may_lead(each, partition.durability)}
        for broker in partition.replicas:
            if broker in eligible:
                return broker
    for each in partition.isr:
        again = each.broker in partition.replicas and standing.may_lead(
            each.damaged(), partition.durability
        )
        if again and standing.epoch(each.broker) > partition.leader_broker_epoch:
            return each.broker
    return None


def last_resort(partition: PartitionValue, standing: Standing) -> int | None:
    """Return who may lead with what is left, where all data is nowhere.

    Who was in sync last lost least: what it had, or what it had not synced. Then come those that
    were behind, in the order of the replicas. Not who found its data damaged: it would again.
    """
    known = [each.broker for each in (*partition.isr, *partition.elr)]
    damaged = {
        each.broker
        for each in partition.isr
        if standing.same_life(each.damaged(), partition.durability)
    }
    for broker in (*known, *partition.replicas):
        if broker in partition.replicas and standing.stays(broker) and broker not in damaged:
            return broker
    return None


def is_lost(partition: PartitionValue, standing: Standing) -> bool:
    """Return whether no replica that had all data can come back with it."""
    return not any(
        standing.same_life(each, partition.durability) for each in (*partition.isr, *partition.elr)
    )


def successor(partition: PartitionValue, standing: Standing) -> int | None:
    """Return who leads in place of a leader that is there and about to end, of the ISR alone.

    Who left the ISR may lack what the leader has acknowledged to producers that wait for no other
    replica; that is given up where the leader has gone, and not while it is there.
    """
    if standing.stays(partition.leader):
        return None
    return candidate(dataclasses.replace(partition, elr=()), standing)


def preferred(partition: PartitionValue, standing: Standing) -> int | None:
    """Return the first replica where it should lead and does not."""
    first = partition.replicas[0]
    here = any(
        each.broker == first and standing.may_lead(each, partition.durability)
        for each in partition.isr
    )
    return first if here and first != partition.leader else None


def elected(partition: PartitionValue, broker: int, standing: Standing) -> PartitionValue:
    """Return a partition as a broker leads it that has all that was committed.

    In the same value everybody leaves the ISR who is fenced or whose data is another life's.
    """
    leader = standing.replica(broker, partition.durability)
    members = (*partition.isr, *partition.elr)
    assert leader in members or leader.damaged() in members, (partition, broker)
    isr = [each for each in partition.isr if _remains(each, partition, standing)]
    if leader not in isr:
        isr.append(leader)
    changed = _with_isr(partition, isr, standing)
    return _led(changed, broker, partition.leader_epoch + 1, standing)


def elected_with_loss(partition: PartitionValue, broker: int, standing: Standing) -> PartitionValue:
    """Return a partition as a broker leads it that has not all that was committed.

    The leader epoch rises above every one that may have been lost, so that positions in what is
    gone get the truncation error.
    """
    changed = dataclasses.replace(
        partition, isr=(standing.replica(broker, partition.durability),), elr=()
    )
    return _led(changed, broker, partition.leader_epoch + 1 + EPOCHS_LOST_MAX, standing)


def shrunk(partition: PartitionValue, standing: Standing) -> PartitionValue:
    """Return a partition without those in its ISR who are fenced, draining, or another life.

    Its leader is there and stays in the ISR, also while it drains: it is the last that could lead.
    The same value comes back where nobody leaves.
    """
    isr = [
        each
        for each in partition.isr
        if each.broker == partition.leader or standing.may_lead(each, partition.durability)
    ]
    if len(isr) == len(partition.isr):
        return partition
    changed = _with_isr(partition, isr, standing)
    return dataclasses.replace(changed, partition_epoch=partition.partition_epoch + 1)


def with_min_isr(partition: PartitionValue, min_isr: int) -> PartitionValue:
    """Return a partition that needs another number of replicas in sync.

    Who left while another number counted may lack what was committed under the new one.
    """
    if partition.min_isr == min_isr:
        return partition
    return dataclasses.replace(
        partition, partition_epoch=partition.partition_epoch + 1, min_isr=min_isr, elr=()
    )


def with_class(
    partition: PartitionValue, standing: Standing, *, fsync: bool
) -> PartitionValue | None:
    """Return a partition whose appends count by the other class; None where nothing is to be done now.

    It begins a new leader epoch under the same leader, for a replica counts as the value said when it
    took up the epoch. To become durable is not done with that: the leader says when everything that
    counted is on the disks. Who has everything on its disk is kept as a life that a crash ends, and
    whoever is eligible while too few are in sync would lose that by a crash of long ago: so that waits.
    """
    relaxed = partition.durability is Durability.RELAXED
    if relaxed is not fsync or not standing.stays(partition.leader):
        return None
    durability = Durability.SYNCING if fsync else Durability.RELAXED
    changed = dataclasses.replace(partition, durability=durability)
    if partition.durability is Durability.FSYNC:
        if len(partition.isr) < partition.min_isr:
            return None
        isr = tuple(standing.replica(each.broker, durability) for each in partition.isr)
        changed = dataclasses.replace(changed, isr=isr)
    return elected(changed, partition.leader, standing)


def _remains(replica: Replica, partition: PartitionValue, standing: Standing) -> bool:
    return standing.serves(replica.broker) and standing.same_life(replica, partition.durability)


def _led(
    partition: PartitionValue, broker: int, leader_epoch: int, standing: Standing
) -> PartitionValue:
    return dataclasses.replace(
        partition,
        leader=broker,
        leader_epoch=leader_epoch,
        leader_broker_epoch=standing.epoch(broker),
        partition_epoch=partition.partition_epoch + 1,
    )


def _with_isr(
    partition: PartitionValue, isr: Iterable[Replica], standing: Standing
) -> PartitionValue:
    """Return the ISR and who left it eligible: nobody while there are enough in sync."""
    now = tuple(isr)
    assert now, partition
    # One that has come back as another life lost what it had.
    stayed, left = eligible(
        partition, now, lambda each: not standing.replaced(each, partition.durability)
    )
    return dataclasses.replace(partition, isr=now, elr=(*stayed, *left))
