"""Applies planned steps to an image as a store would, or stops after any of them."""

from __future__ import annotations

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.changes import Leader, NewTopic, TopicPolicy, create
from riverrun_server.core.cluster.image import ClusterImage, KeyChange, Versioned
from riverrun_server.core.cluster.steps import EARLIER, MAX_CHANGES, Erase, Write
from riverrun_server.core.cluster.values import BrokerRegistration, Id, Incarnations


def make_id(number: int) -> Id:
    return Id(number.to_bytes(16, "big"))


LIVES = Incarnations(make_id(0xF), make_id(0xE))


class Outdated(Exception):
    pass


class World:
    def __init__(self, policy: TopicPolicy | None = None) -> None:
        self.image = ClusterImage()
        self.policy = policy or TopicPolicy()
        self.stored: dict[str, Versioned] = {}
        self.revision = 0
        self._ids = 0
        self.leader = self.register(LIVES)

    def register(self, incarnations: Incarnations) -> Leader:
        self._store(
            {
                keys.broker(1): BrokerRegistration(
                    broker_id=1, incarnations=incarnations, endpoints={"clients": "h:1"}
                )
            }
        )
        self.leader = Leader(1, self.revision, incarnations)
        return self.leader

    def run(self, steps, stop_after: int | None = None) -> None:
        written: dict[str, int] = {}
        for number, step in enumerate(steps):
            if number == stop_after:
                return
            assert len(step.changes) <= MAX_CHANGES
            changed = {}
            for change in step.changes:
                expected = change.mod_revision
                if expected == EARLIER:
                    expected = written[change.key]
                actual = self.stored[change.key].mod_revision if change.key in self.stored else 0
                if actual != expected:
                    raise Outdated(change)
                if isinstance(change, Write):
                    changed[change.key] = change.value
                elif isinstance(change, Erase):
                    changed[change.key] = None
            self._store(changed)
            written |= dict.fromkeys(changed, self.revision)

    def create(self, name: str, partitions: int = 1, **configs: str):
        self._ids += 1
        new = NewTopic(
            name, partitions, configs={k.replace("_", "."): v for k, v in configs.items()}
        )
        plan = create(self.image, new, self.policy, self.leader, make_id(self._ids), 7)
        self.run(plan.steps)
        return plan.topic

    def partition(self, name: str, number: int):
        return self.image.partitions[self.image.topics[name].value.topic_id][number].value

    def _store(self, changed) -> None:
        self.revision += 1
        changes = []
        for key, value in changed.items():
            if value is None:
                del self.stored[key]
            else:
                self.stored[key] = Versioned(value, self.revision)
            changes.append(KeyChange(keys.parse(key), self.stored.get(key)))
        self.image.apply(self.revision, changes)
