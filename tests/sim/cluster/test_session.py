"""A broker's session comes up, lives through a store in trouble, and never goes back in time."""

from __future__ import annotations

import dataclasses

import pytest

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.steps import ABSENT, EARLIER, Erase, Guard, Step, Write
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    ClusterValue,
    Id,
    Tombstone,
    TombstoneState,
)
from riverrun_server.ports.metadata import TransactionResult
from tests.sim.cluster.clock import BrokerClock
from tests.sim.cluster.disk import SimDisk
from tests.sim.cluster.metadata import STORE, SimMetadata
from tests.sim.cluster.network import Lost, Network
from tests.sim.cluster.session import LEASE_S, Session
from tests.sim.cluster.world import Process, World

OTHER = keys.tombstone(Id(bytes(16)))
CLUSTER = ClusterValue(cluster_id="c", create_time_ms=1)


class Stage:
    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed)
        self.network = Network(self.world)
        self.store = SimMetadata(self.world, self.network)
        self.disk = SimDisk(self.world, 1)
        self.started = 0
        self.begin()

    def begin(self) -> None:
        self.started += 1
        self.process = Process(f"1.{self.started}")
        self.revisions: list[int] = []
        self.ready: list[float] = []
        self.network.attach(1, self)
        self.session = Session(
            self.world,
            self.network,
            self.store,
            self.process,
            BrokerClock(self.world),
            1,
            self.started,
            self.registration,
            lambda touched: self.revisions.append(self.session.image.revision),
            lambda: self.ready.append(self.world.now_s),
        )
        self.session.begin()

    def registration(self, before: BrokerRegistration | None) -> BrokerRegistration:
        return BrokerRegistration(
            broker_id=1,
            incarnations=self.disk.incarnations,
            endpoints={},
            start_time_ms=self.started,
        )

    def run(self, for_s: float) -> None:
        self.world.run(self.world.now_s + for_s)

    def live(self):
        return self.store.get(keys.live(1))


def test_a_process_is_alive_before_it_is_registered_and_its_epoch_is_the_revision():
    stage = Stage()
    stage.run(1.0)
    entry = stage.store.get(keys.broker(1))
    assert len(stage.ready) == 1
    assert stage.session.broker_epoch == entry.mod_revision
    assert stage.live().mod_revision < entry.mod_revision
    stage.run(30.0)
    assert stage.live()
    assert stage.session.deadline_s > stage.world.now_s


@pytest.mark.parametrize("seed", range(20))
def test_lost_replies_only_cost_time(seed):
    stage = Stage(seed)
    stage.network.lose_replies[STORE] = 0.6
    stage.run(60.0)
    stage.network.lose_replies.clear()
    stage.run(5.0)
    assert len(stage.ready) == 1
    assert stage.session.broker_epoch == stage.store.get(keys.broker(1)).mod_revision
    assert stage.revisions == sorted(stage.revisions)
    assert stage.network.bitten["replies lost"] > 3


def test_a_session_whose_lease_was_lost_gets_another_and_keeps_its_epoch():
    stage = Stage()
    stage.run(1.0)
    epoch = stage.session.broker_epoch
    stage.network.cut(1, STORE)
    stage.run(3 * LEASE_S)
    assert stage.live() is None
    assert stage.session.deadline_s < stage.world.now_s
    stage.network.mend(1, STORE)
    stage.run(3.0)
    assert stage.live()
    assert stage.session.broker_epoch == epoch
    assert len(stage.ready) == 1
    assert stage.session.interrupted_s > 1.0


def test_a_later_process_has_a_larger_epoch():
    stage = Stage()
    stage.run(1.0)
    epoch = stage.session.broker_epoch
    stage.world.end(stage.process)
    stage.begin()
    stage.run(1.0)
    assert stage.session.broker_epoch > epoch
    stage.world.end(stage.process)
    stage.disk.wipe()
    stage.begin()
    stage.run(1.0)
    assert stage.ready == []  # the lease of the other life has to end first
    stage.run(2 * LEASE_S)
    assert len(stage.ready) == 1


def test_the_image_lives_through_compaction_and_broken_watches():
    stage = Stage()
    stage.run(1.0)
    for number in range(30):
        stage.store.interrupt_watches(1)
        step = Step((Write(keys.CLUSTER, dataclasses.replace(CLUSTER, create_time_ms=number), 0),))
        before = stage.store.get(keys.CLUSTER)
        if before is not None:
            change = dataclasses.replace(step.changes[0], mod_revision=before.mod_revision)
            step = Step((change,))
        stage.session.commit([step], lambda answer: None)
        stage.store.compact(keep=1)
        stage.run(0.05)
    stage.run(2.0)
    assert stage.session.image.cluster.value.create_time_ms == 29
    assert stage.revisions == sorted(stage.revisions)


def test_steps_apply_in_order_and_stop_at_one_that_does_not_fit():
    stage = Stage()
    stage.run(1.0)
    topic = Tombstone(topic="t", topic_id=Id(bytes(16)), state=TombstoneState.CREATING)
    ended: list[object] = []
    steps = [
        Step((Write(keys.CLUSTER, CLUSTER, ABSENT),)),
        Step((Guard(keys.CLUSTER, EARLIER), Write(OTHER, topic, ABSENT))),
        Step((Erase(OTHER, EARLIER),)),
    ]
    stage.session.commit(steps, ended.append)
    stage.run(1.0)
    assert ended[0].succeeded
    assert stage.store.get(OTHER) is None
    stage.session.commit(steps, ended.append)
    stage.run(1.0)
    assert isinstance(ended[1], TransactionResult)
    assert not ended[1].succeeded
    stage.network.cut(1, STORE)
    stage.session.commit(steps, ended.append)
    stage.run(3.0)
    assert ended[2] is Lost.LOST
