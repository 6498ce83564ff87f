"""The metadata as one broker has applied it: pure, changed by whole revisions in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from riverrun_server.core.cluster.keys import (
    BrokerKey,
    ClusterKey,
    ControllerKey,
    Key,
    LiveKey,
    PartitionKey,
    TombstoneKey,
    TopicKey,
)
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    ClusterValue,
    ControllerValue,
    Id,
    LiveProcess,
    PartitionValue,
    Tombstone,
    TopicValue,
    Value,
)

V = TypeVar("V", bound=Value)
V_co = TypeVar("V_co", bound=Value, covariant=True)


@dataclass(frozen=True, slots=True)
class Versioned(Generic[V_co]):
    """A value and the revision at which it was written."""

    value: V_co
    mod_revision: int


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key as it stands now; None where it is gone."""

    key: Key
    now: Versioned[Value] | None


@dataclass(slots=True)
class Touched:
    """What a change may have changed."""

    topic_ids: set[Id] = field(default_factory=set)
    topics: set[str] = field(default_factory=set)
    brokers: bool = False


class ClusterImage:
    """Everything that the metadata store said, up to one revision.

    Transitions: empty -> loaded (`load`) -> loaded (`apply`, `load` again after a gap). The
    revision only grows.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.cluster: Versioned[ClusterValue] | None = None
        self.controller: Versioned[ControllerValue] | None = None
        self.brokers: dict[int, Versioned[BrokerRegistration]] = {}
        self.live: dict[int, Versioned[LiveProcess]] = {}
        self.topics: dict[str, Versioned[TopicValue]] = {}
        self.partitions: dict[Id, dict[int, Versioned[PartitionValue]]] = {}
        self.tombstones: dict[Id, Versioned[Tombstone]] = {}
        self._names: dict[Id, str] = {}

    def topic_by_id(self, topic_id: Id) -> Versioned[TopicValue] | None:
        """Return the topic that has an id."""
        name = self._names.get(topic_id)
        return None if name is None else self.topics[name]

    @property
    def partition_count(self) -> int:
        """How many partitions all topics have together."""
        return sum(topic.value.partitions for topic in self.topics.values())

    def load(self, revision: int, changes: Sequence[KeyChange]) -> Touched:
        """Replace everything by what stands at a revision; everything counts as touched."""
        assert revision >= self.revision, (revision, self.revision)
        touched = Touched(set(self._names) | set(self.tombstones), set(self.topics), brokers=True)
        self.cluster = self.controller = None
        for each in (self.brokers, self.live, self.topics, self.partitions, self.tombstones):
            each.clear()
        self._names.clear()
        return self._take(revision, changes, touched)

    def apply(self, revision: int, changes: Iterable[KeyChange]) -> Touched:
        """Take what one revision changed. A revision that was applied before changes nothing."""
        if revision <= self.revision:
            return Touched()
        return self._take(revision, changes, Touched())

    def _take(self, revision: int, changes: Iterable[KeyChange], touched: Touched) -> Touched:
        self.revision = revision
        for change in changes:
            now = change.now.value if change.now else None
            match change.key:
                case ClusterKey():
                    assert now is None or isinstance(now, ClusterValue), now
                    self.cluster = change.now  # type: ignore[assignment] # as asserted
                case BrokerKey(broker_id):
                    assert now is None or isinstance(now, BrokerRegistration), now
                    _set(self.brokers, broker_id, change.now)
                    touched.brokers = True
                case LiveKey(broker_id):
                    assert now is None or isinstance(now, LiveProcess), now
                    _set(self.live, broker_id, change.now)
                case ControllerKey():
                    assert now is None or isinstance(now, ControllerValue), now
                    self.controller = change.now  # type: ignore[assignment] # as asserted
                case TopicKey(name):
                    assert now is None or isinstance(now, TopicValue), now
                    self._set_topic(name, change.now, touched)
                case PartitionKey(topic_id, number):
                    assert now is None or isinstance(now, PartitionValue), now
                    self._set_partition(topic_id, number, change.now, touched)
                case TombstoneKey(topic_id):
                    assert now is None or isinstance(now, Tombstone), now
                    _set(self.tombstones, topic_id, change.now)
                    touched.topic_ids.add(topic_id)
        return touched

    def _set_topic(self, name: str, now: Versioned[Value] | None, touched: Touched) -> None:
        before = self.topics.get(name)
        _set(self.topics, name, now)
        touched.topics.add(name)
        if before is not None:
            self._names.pop(before.value.topic_id, None)
            touched.topic_ids.add(before.value.topic_id)
        if now is not None:
            topic_id = self.topics[name].value.topic_id
            self._names[topic_id] = name
            touched.topic_ids.add(topic_id)

    def _set_partition(
        self, topic_id: Id, number: int, now: Versioned[Value] | None, touched: Touched
    ) -> None:
        of_topic = self.partitions.setdefault(topic_id, {})
        _set(of_topic, number, now)
        if not of_topic:
            del self.partitions[topic_id]
        touched.topic_ids.add(topic_id)
        if (name := self._names.get(topic_id)) is not None:
            touched.topics.add(name)


K = TypeVar("K")


def _set(values: dict[K, Versioned[V]], key: K, now: Versioned[Value] | None) -> None:
    if now is None:
        values.pop(key, None)
    else:
        values[key] = now  # type: ignore[assignment] # the key decides the kind, the caller asserts
