"""A cluster of many brokers in one image: they start, die, drain and come back, and one controls."""

from __future__ import annotations

import dataclasses

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.changes import NewTopic, TopicPolicy, create
from riverrun_server.core.cluster.controller import Controller, Plan
from riverrun_server.core.cluster.fencing import Fencing
from riverrun_server.core.cluster.standing import Standing, broker_epoch
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    ControllerValue,
    Incarnations,
    LiveProcess,
    Replica,
)
from tests.core.cluster_world import World, make_id

TTL_S = 3.0
# More rounds than any of these worlds needs to come to rest.
ROUNDS_MAX = 60


def lives_of(broker: int, life: int = 0) -> Incarnations:
    return Incarnations(make_id(broker * 100 + life), make_id(broker * 100 + life + 50))


class ControlWorld(World):
    def __init__(self, brokers: int = 3, policy: TopicPolicy | None = None) -> None:
        super().__init__(policy)
        self.now = 100.0
        for broker in range(1, brokers + 1):
            self.start(broker)

    # --- brokers

    def start(self, broker: int, life: int = 0, host: str = "", rack: str = "") -> int:
        """Begin a process, whatever an earlier one left."""
        registration = BrokerRegistration(
            broker_id=broker,
            incarnations=lives_of(broker, life),
            endpoints={},
            host=host,
            rack=rack,
        )
        self.show(broker)
        self._store({keys.broker(broker): registration})
        return self.revision

    def show(self, broker: int) -> None:
        """Put the liveness key, anew where it is there."""
        self._store({keys.live(broker): LiveProcess(incarnation=lives_of(broker).fsync)})

    def die(self, broker: int) -> None:
        """End a process and its lease, and what goes with the lease."""
        gone = {keys.live(broker): None} if broker in self.image.live else {}
        if self.image.controller and self.image.controller.value.broker_id == broker:
            gone[keys.CONTROLLER] = None
        if gone:
            self._store(gone)

    def change(self, broker: int, **fields) -> None:
        found = self.image.brokers[broker]
        value = dataclasses.replace(found.value, broker_epoch=broker_epoch(found), **fields)
        self._store({keys.broker(broker): value})

    # --- partitions

    def make(self, name: str, partitions: int = 1, replicas: int = 3, **configs: str):
        self._ids += 1
        configs = {k.replace("_", "."): v for k, v in configs.items()}
        new = NewTopic(name, partitions, replicas, configs)
        plan = create(self.image, new, self.policy, self.leader, make_id(self._ids), 7)
        self.run(plan.steps)
        return plan.topic

    def put(self, name: str, number: int = 0, **fields) -> None:
        """Write what a leader could have written: a partition with other fields."""
        value = self.partition(name, number)
        value = dataclasses.replace(value, partition_epoch=value.partition_epoch + 1, **fields)
        topic_id = self.image.topics[name].value.topic_id
        self._store({keys.partition(topic_id, number): value})

    def replica(self, broker: int, life: int = 0) -> Replica:
        return Replica(broker, lives_of(broker, life).fsync)

    # --- the controller

    def control(self, broker: int, internal=()) -> Controller:
        """Make a broker the controller."""
        epoch = Standing(self.image.brokers).epoch(broker)
        if self.image.controller:
            self._store({keys.CONTROLLER: None})
        self._store({keys.CONTROLLER: ControllerValue(broker_id=broker, broker_epoch=epoch)})
        return Controller(broker, epoch, self.policy, Fencing(broker, TTL_S), internal)

    def round(self, controller: Controller, *, alone: bool = False) -> Plan:
        plan = controller.plan(self.image, self.now, alone=alone)
        self.run(plan.steps)
        return plan

    def settle(self, controller: Controller, *, alone: bool = False) -> list[Plan]:
        """Run rounds until nothing is planned any more, now or later."""
        plans = []
        for _ in range(ROUNDS_MAX):
            plan = self.round(controller, alone=alone)
            plans.append(plan)
            if not plan.steps:
                if plan.again_at is None:
                    return plans
                assert plan.again_at > self.now, "it would spin"
                self.now = plan.again_at
        raise AssertionError(f"the controller finds no rest: {plans[-1]}")
