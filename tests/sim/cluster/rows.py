"""Replica rows made by hand, for tests of what looks at them."""

from __future__ import annotations

import dataclasses

from riverrun_server.core.cluster.values import PartitionValue, Replica
from riverrun_server.core.log.batch import PartitionId, Stamp, StoredBatch
from riverrun_server.core.log.epochs import EpochEntry
from riverrun_server.ports.partitions import Acks
from tests.sim.cluster.batches import Batch
from tests.sim.cluster.disk import SimDisk
from tests.sim.cluster.history import History
from tests.sim.cluster.invariants import Invariants
from tests.sim.cluster.world import World

P0 = PartitionId(b"t" * 16, 0)


class Cluster:
    """Three disks whose rows are written by hand, and the invariants over them."""

    def __init__(self, *, unclean: bool = False, min_isr: int = 2) -> None:
        self.world = World(1)
        self.disks = {broker: SimDisk(self.world, broker) for broker in (1, 2, 3)}
        self.history = History()
        self.invariants = Invariants(self.disks, self.history, lambda: self.world.now_s)
        self.watched = self.invariants.watch(P0, unclean=unclean)
        self.value = PartitionValue(
            leader=1,
            leader_epoch=1,
            leader_broker_epoch=101,
            replicas=(1, 2, 3),
            isr=self.lives(1, 2, 3),
            min_isr=min_isr,
        )
        self.invariants.value_committed(P0, self.value, is_registered=True)

    def lives(self, *brokers: int) -> tuple[Replica, ...]:
        return tuple(Replica(each, self.disks[each].incarnations.fsync) for each in brokers)

    def change(self, *, is_registered: bool = True, **fields: object) -> None:
        epoch = fields.pop("partition_epoch", self.value.partition_epoch + 1)
        self.value = dataclasses.replace(self.value, partition_epoch=epoch, **fields)
        self.invariants.value_committed(P0, self.value, is_registered=is_registered)

    def elect(self, broker: int, *isr: int, **fields: object) -> None:
        self.change(
            leader=broker,
            leader_epoch=self.value.leader_epoch + 1,
            leader_broker_epoch=100 + broker,
            isr=self.lives(*(isr or (broker,))),
            **fields,
        )

    def append(self, *brokers: int, values: tuple[bytes, ...], epoch: int = 1, sync: bool = True):
        for broker in brokers:
            store = self.disks[broker].store
            log = store.open(P0)
            state = log.state
            base = state.log_end_offset
            stamp = Stamp(base, len(values) - 1, epoch, 1_000, 1_000)
            data = Batch(values).incoming(1_000).stamped(P0, stamp)
            end = base + len(values)
            known = {entry.leader_epoch for entry in log.epochs()}
            log.append(
                StoredBatch(base, end, epoch, data),
                dataclasses.replace(state, log_end_offset=end),
                epoch=None if epoch in known else EpochEntry(epoch, base),
            )
            if sync:
                store.sync()
        self.invariants.look()

    def truncate(self, broker: int, offset: int) -> None:
        store = self.disks[broker].store
        log = store.open(P0)
        state = dataclasses.replace(
            log.state,
            log_end_offset=offset,
            high_watermark=min(log.state.high_watermark, offset),
        )
        log.truncate(state, [entry for entry in log.epochs() if entry.start_offset < offset])
        store.sync()
        self.invariants.look()

    def accept(self, broker: int, epoch: int) -> None:
        store = self.disks[broker].store
        log = store.open(P0)
        log.save(dataclasses.replace(log.state, accepted_epoch=epoch))
        store.sync()
        self.invariants.look()

    def show(self, broker: int, offset: int, *, epoch: int = 1, process: str = "") -> None:
        self.invariants.watermark(broker, process or f"{broker}.1", P0, epoch, offset)

    def acknowledge(
        self, broker: int, *values: bytes, at: int, acks: Acks = Acks.ALL, epoch: int = 1
    ):
        self.invariants.acknowledged(broker, P0, Batch(values), acks, at, epoch)
