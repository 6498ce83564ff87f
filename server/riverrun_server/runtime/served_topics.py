"""The topics that can be used now, found by name, by id, or a page at a time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from typing import Final

from riverrun_server.core.cluster import topic_rules
from riverrun_server.core.cluster.naming import quoted
from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.cluster.values import PartitionValue, TopicValue
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.ports.partitions import PartitionAccess

NO_LEADER: Final = -1


@dataclass(frozen=True, slots=True)
class ServedTopic:
    """A topic that can be used.

    Attributes:
        value: what defines it.
        config: what holds for it.
        states: who holds and leads its partitions, in order; None where the metadata does not say.
        leaders: who leads them now, in order; `NO_LEADER` where the process that did is gone.
        partitions: in order.
    """

    value: TopicValue
    config: TopicConfig
    states: tuple[PartitionValue | None, ...]
    leaders: tuple[int, ...]
    partitions: tuple[PartitionAccess, ...]


class ServedTopics:
    """Implements ports.partitions.Directory.

    Transitions: starting (every look-up is refused with NOT_READY) -> ready.
    """

    def __init__(self) -> None:
        self.ready = False
        self.names: list[str] = []
        self._by_name: dict[str, ServedTopic] = {}
        self._by_id: dict[bytes, ServedTopic] = {}

    def put(self, topic: ServedTopic) -> None:
        """Serve a topic, or what it is now."""
        name = topic.value.topic
        before = self._by_name.get(name)
        if before is None:
            insort(self.names, name)
        elif before.value.topic_id != topic.value.topic_id:
            del self._by_id[before.value.topic_id]
        self._by_name[name] = topic
        self._by_id[topic.value.topic_id] = topic

    def remove(self, topic_id: bytes) -> None:
        """Serve the topic of an id no more; one made anew under its name stays."""
        topic = self._by_id.pop(topic_id, None)
        if topic is not None:
            del self._by_name[topic.value.topic]
            del self.names[bisect_left(self.names, topic.value.topic)]

    def get(self, name: str) -> ServedTopic | None:
        """Return a topic, or None.

        Raises:
            Refusal: NOT_READY.
        """
        found = self._by_name.get(name)
        if found is None:
            self.check_ready()
        return found

    def find(self, name: str) -> ServedTopic:
        """Return a topic.

        Raises:
            Refusal: TOPIC_NOT_FOUND, NOT_READY.
        """
        found = self.get(name)
        if found is None:
            raise self.missing(name)
        return found

    def missing(self, name: str) -> Refusal:
        """Return the refusal for a topic that is not there."""
        return topic_rules.missing_topic(name, self.names)

    def after(self, name: str) -> list[str]:
        """Return the names behind a name, in order."""
        self.check_ready()
        return self.names[bisect_right(self.names, name) :]

    # --- ports.partitions.Directory --------------------------------------------------------------

    def partition(self, topic: str, topic_id: bytes, partition: int) -> PartitionAccess:
        """Return one partition; `topic` or `topic_id` may be empty, not both."""
        partitions = self._find(topic, topic_id).partitions
        if not 0 <= partition < len(partitions):
            name = topic or self._by_id[topic_id].value.topic
            raise topic_rules.missing_partition(name, partition, len(partitions))
        return partitions[partition]

    def partitions(self, topic: str, topic_id: bytes = b"") -> list[PartitionAccess]:
        """Return all partitions of a topic in order."""
        return list(self._find(topic, topic_id).partitions)

    def is_internal(self, topic: str) -> bool:
        """Return whether a topic belongs to the brokers."""
        return topic_rules.is_internal(topic)

    def _find(self, name: str, topic_id: bytes) -> ServedTopic:
        if name:
            found = self.find(name)
            if topic_id and found.value.topic_id != topic_id:
                raise topic_rules.wrong_topic_id(name, found.value.topic_id, topic_id)
            return found
        if not topic_id:
            raise Refusal(Reason.INVALID_REQUEST, "topic is empty, expected its name or its id")
        by_id = self._by_id.get(topic_id)
        if by_id is None:
            self.check_ready()
            raise Refusal(
                Reason.TOPIC_NOT_FOUND,
                f"there is no topic with the id {quoted(topic_id.hex())}; it may have been deleted",
            )
        return by_id

    def check_ready(self) -> None:
        """Refuse as long as the broker starts.

        Raises:
            Refusal: NOT_READY.
        """
        if not self.ready:
            raise Refusal(
                Reason.NOT_READY, "the broker is starting: it opens its partitions; ask again"
            )
