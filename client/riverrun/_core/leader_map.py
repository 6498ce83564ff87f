"""Who leads which partition, as far as is known, and so which broker to talk to about it.

News comes from several brokers, by pushes, answers and hints, and so in any order. A leader epoch
only rises: of two stories about a partition the one with the higher epoch is true, and of two with
the same epoch the one from the newer metadata. All else is old news.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from riverrun._core.records import TopicPartition

ANY: Final = -1
"""Where to send what no particular broker is known for: any broker serves every partition."""

NO_LEADER: Final = -1

# A broker that is said to lead may not have heard of it yet, and says so. One that keeps saying it
# is not the one that we take it for, or what we know is wrong: others will know better.
_DENIALS_BELIEVED = 3


class Leader(NamedTuple):
    """Who leads one partition.

    Attributes:
        broker_id: who; NO_LEADER where nobody does.
        epoch: of that leadership.
    """

    broker_id: int
    epoch: int


class TopicNews(NamedTuple):
    """What a broker tells of a topic.

    Attributes:
        topic: its name.
        topic_id: its id; empty where there is no such topic.
        leaders: of its partitions, in order.
    """

    topic: str
    topic_id: bytes
    leaders: tuple[Leader, ...]


@dataclass(slots=True)
class _Topic:
    """One topic, and the revision of the metadata that was last believed about it."""

    topic_id: bytes
    revision: int
    leaders: dict[int, Leader] = field(default_factory=dict)


class LeaderMap:
    """Brokers, leaders, and which brokers cannot be reached from here.

    A partition's destination is its leader; or ANY, where no leader is known, it cannot be reached,
    it keeps denying that it leads, or the cluster has one broker, so that nothing is to be chosen.
    Calls that change destinations return the partitions whose destination has changed.

    Attributes:
        endpoints: where clients reach each broker, as host:port; empty where they cannot.
    """

    def __init__(self) -> None:
        self.endpoints: dict[int, str] = {}
        self._brokers_revision = -1
        self._topics: dict[str, _Topic] = {}
        self._unreachable: set[int] = set()
        self._denials: dict[TopicPartition, int] = {}

    @property
    def several(self) -> bool:
        """Whether there is more than one broker, so that it matters whom to talk to."""
        return len(self.endpoints) > 1

    @property
    def unreachable_leaders(self) -> set[int]:
        """The brokers that cannot be reached and lead something."""
        if not self._unreachable:
            return set()
        leading = {at.broker_id for topic in self._topics.values() for at in topic.leaders.values()}
        return self._unreachable & leading

    def leader(self, partition: TopicPartition) -> Leader | None:
        """Return who leads a partition; None where nothing is known of it."""
        topic = self._topics.get(partition.topic)
        return None if topic is None else topic.leaders.get(partition.partition)

    def partitions(self, topic: str) -> tuple[bytes, int] | None:
        """Return a topic's id and how many partitions it has; None where it is not known."""
        known = self._topics.get(topic)
        return None if known is None else (known.topic_id, len(known.leaders))

    def destination(self, partition: TopicPartition) -> int:
        """Return the id of the broker to talk to about a partition, or ANY."""
        if len(self.endpoints) <= 1:
            return ANY
        leader = self.leader(partition)
        if leader is None or leader.broker_id in self._unreachable:
            return ANY
        if self._denials.get(partition, 0) >= _DENIALS_BELIEVED:
            return ANY
        return leader.broker_id if self.endpoints.get(leader.broker_id) else ANY

    def learn(
        self, revision: int, brokers: Mapping[int, str], topics: Iterable[TopicNews]
    ) -> set[TopicPartition]:
        """Take the cluster as a broker tells it; what it tells of brokers is always all of them."""
        before: dict[TopicPartition, int] = {}
        topics = [*topics]
        if revision >= self._brokers_revision and brokers != self.endpoints:
            before = {partition: self.destination(partition) for partition in self._known()}
        for news in topics:
            for number in range(max(len(news.leaders), self._count(news.topic))):
                partition = TopicPartition(news.topic, number)
                before.setdefault(partition, self.destination(partition))
        if revision >= self._brokers_revision:
            self._brokers_revision = revision
            # A broker that has moved may be reached where it is now.
            self._unreachable = {
                broker
                for broker in self._unreachable
                if brokers.get(broker) == self.endpoints.get(broker)
            }
            self.endpoints = dict(brokers)
        for news in topics:
            self._learn_topic(revision, news)
        return self._changed(before)

    def hinted(
        self, partition: TopicPartition, broker_id: int, endpoint: str, epoch: int
    ) -> set[TopicPartition]:
        """Take a broker's word on who leads a partition; old news, and the known, change nothing."""
        topic = self._topics.get(partition.topic)
        if topic is None:
            return set()
        known = topic.leaders.get(partition.partition)
        newer = known is None or epoch > known.epoch
        named = known is not None and epoch == known.epoch and known.broker_id == NO_LEADER
        if not newer and not named:
            return set()
        before = {partition: self.destination(partition)}
        if endpoint and not self.endpoints.get(broker_id):
            before = {each: self.destination(each) for each in self._known()} | before
            self.endpoints[broker_id] = endpoint
        topic.leaders[partition.partition] = Leader(broker_id, epoch)
        self._denials.pop(partition, None)
        return self._changed(before)

    def denied(self, partition: TopicPartition, broker_id: int) -> set[TopicPartition]:
        """Take that a broker says that it does not lead a partition, and cannot say who does."""
        leader = self.leader(partition)
        if broker_id == ANY or leader is None or leader.broker_id != broker_id:
            return set()
        before = {partition: self.destination(partition)}
        self._denials[partition] = self._denials.get(partition, 0) + 1
        return self._changed(before)

    def pardoned(self, partition: TopicPartition) -> set[TopicPartition]:
        """Try once more whether who is said to lead a partition says so too by now."""
        before = {partition: self.destination(partition)}
        self._denials.pop(partition, None)
        return self._changed(before)

    def unreachable(self, broker_id: int) -> set[TopicPartition]:
        """Reckon with a broker that cannot be reached from here."""
        if broker_id in self._unreachable or broker_id not in self.endpoints:
            return set()
        before = self._led_by(broker_id)
        self._unreachable.add(broker_id)
        return self._changed(before)

    def reachable(self, broker_id: int) -> set[TopicPartition]:
        """Reckon with a broker that has answered."""
        if broker_id not in self._unreachable:
            return set()
        before = self._led_by(broker_id)
        self._unreachable.discard(broker_id)
        return self._changed(before)

    def _learn_topic(self, revision: int, news: TopicNews) -> None:
        topic = self._topics.get(news.topic)
        if topic is not None and topic.topic_id != news.topic_id and revision < topic.revision:
            return
        if not news.topic_id:
            self._topics.pop(news.topic, None)
            return
        if topic is None or topic.topic_id != news.topic_id:
            topic = self._topics[news.topic] = _Topic(news.topic_id, revision)
        for number, leader in enumerate(news.leaders):
            known = topic.leaders.get(number)
            same = known is not None and leader.epoch == known.epoch
            if known is None or leader.epoch > known.epoch or (same and revision > topic.revision):
                topic.leaders[number] = leader
                if not same:
                    self._denials.pop(TopicPartition(news.topic, number), None)
        topic.revision = max(topic.revision, revision)

    def _count(self, topic: str) -> int:
        known = self._topics.get(topic)
        return 0 if known is None else len(known.leaders)

    def _known(self) -> Iterable[TopicPartition]:
        for name, topic in self._topics.items():
            for number in topic.leaders:
                yield TopicPartition(name, number)

    def _led_by(self, broker_id: int) -> dict[TopicPartition, int]:
        return {
            partition: self.destination(partition)
            for partition in self._known()
            if (leader := self.leader(partition)) is not None and leader.broker_id == broker_id
        }

    def _changed(self, before: Mapping[TopicPartition, int]) -> set[TopicPartition]:
        return {partition for partition, at in before.items() if self.destination(partition) != at}
