"""What operators do with the one topic of a simulated cluster: make it, grow it, change it, make it anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from riverrun_server.core.cluster import changes, deletions, keys
from riverrun_server.core.cluster.changes import NewTopic, TopicPolicy
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.standing import Leader, broker_epoch
from riverrun_server.core.cluster.steps import Step
from riverrun_server.core.cluster.values import Id, TopicValue
from riverrun_server.core.errors import Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.metadata import Compare, Put, Transaction
from tests.sim.cluster.metadata import SimMetadata
from tests.sim.cluster.options import Options
from tests.sim.cluster.session import change, transaction

TOPIC = "t"


class Topics:
    """The one topic, as it stands in the store; what is planned here is planned on what stands there.

    Args:
        store: of the metadata.
        policy: what holds for topics.
        options: what the topic is like.
        seed: of the run.
    """

    def __init__(
        self, store: SimMetadata, policy: TopicPolicy, options: Options, seed: int
    ) -> None:
        self._store, self._policy, self._options = store, policy, options
        self._seed = seed
        self._made = 0

    @property
    def value(self) -> TopicValue:
        """The topic."""
        entry = self._store.get(keys.topic(TOPIC))
        assert entry is not None
        value: TopicValue = entry.value
        return value

    @property
    def partitions(self) -> list[PartitionId]:
        """The partitions of the topic."""
        value = self.value
        return [PartitionId(value.topic_id, number) for number in range(value.partitions)]

    @property
    def min_isr(self) -> int:
        """How many replicas in sync the topic asks for."""
        return int(self.value.configs["min.insync.replicas"])

    @property
    def is_relaxed(self) -> bool:
        """Whether appends to the topic are to count once they are written."""
        return self.value.configs.get("fsync") == "relaxed"

    def make(self) -> None:
        """Make the topic, with an id that no other had."""
        options = self._options
        configs = {"min.insync.replicas": str(options.min_isr)}
        if options.unclean:
            configs["unclean.recovery"] = "accept"
        if options.relaxed:
            configs["fsync"] = "relaxed"
        self._made += 1
        name = b"topic" + self._made.to_bytes(1, "big") + self._seed.to_bytes(10, "big")
        new = NewTopic(TOPIC, options.partitions, options.replication_factor, configs)
        image = self._image()
        planned = changes.create(image, new, self._policy, _planner(image), Id(name), 1)
        self._carry_out(planned.steps)

    def make_anew(self) -> bool:
        """Delete the topic and make another one of the same name; return whether that could be."""
        image = self._image()
        try:
            changes._check_replicas(image, self._options.replication_factor)
        except Refusal:
            return False
        self._carry_out(deletions.delete(image, TOPIC).steps)
        self.make()
        return True

    def grow(self) -> bool:
        """Give the topic one more partition; return whether that could be."""
        image = self._image()
        number = self.value.partitions + 1
        try:
            plan = changes.add_partitions(image, TOPIC, number, self._policy, _planner(image))
        except Refusal:
            return False
        self._carry_out(plan.steps)
        return True

    def change_min_isr(self, min_isr: int) -> bool:
        """Change what the topic asks for; return whether it was another number."""
        return self._configure("min.insync.replicas", str(min_isr))

    def change_class(self) -> bool:
        """Have the topic become durable, or not need to be so any more; return whether that was written."""
        return self._configure("fsync", "true" if self.is_relaxed else "relaxed")

    def _configure(self, name: str, to: str) -> bool:
        key, value = keys.topic(TOPIC), self.value
        configs = {**value.configs, name: to}
        entry = self._store.get(key)
        if configs == value.configs or entry is None:
            return False
        changed = dataclasses.replace(value, configs=configs)
        compare = Compare.unchanged(key, entry.mod_revision)
        return self._store.transact(Transaction((compare,), (Put(key, changed),))).succeeded

    def _image(self) -> ClusterImage:
        listing = self._store.scan()
        image = ClusterImage()
        image.load(listing.revision, [change(each.key, each) for each in listing.entries])
        return image

    def _carry_out(self, steps: Sequence[Step]) -> None:
        written: dict[str, int] = {}
        for step in steps:
            result = self._store.transact(transaction(step, written))
            assert result.succeeded, (step, result)
            written.update(dict.fromkeys((each.key for each in step.changes), result.revision))


def _planner(image: ClusterImage) -> Leader:
    broker, found = min(image.brokers.items())
    return Leader(broker, broker_epoch(found), found.value.incarnations)
