"""All replicas of one broker's process: brings envelopes, metadata, syncs and ticks to each.

Synchronous, like the replicas: an asyncio driver and a simulator call it the same way. After any call
`take` has what is to be sent and asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from riverrun_server.core.cluster.image import ClusterImage, Versioned
from riverrun_server.core.cluster.standing import broker_epoch
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    Durability,
    Id,
    PartitionValue,
    TopicValue,
)
from riverrun_server.core.cluster.values import (
    Replica as Life,
)
from riverrun_server.core.errors import Reason
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.replication.feeding import Windows
from riverrun_server.core.replication.messages import Envelope, Refused
from riverrun_server.core.replication.terms import Registered, Terms
from riverrun_server.runtime.replication.outbox import Outbox, Outcome, Proposal
from riverrun_server.runtime.replication.replica import Replica
from riverrun_server.runtime.replication.replica_log import ReplicaServices, SyncPoint


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be carried out.

    Attributes:
        envelopes: to be sent, in order.
        proposals: of which the outcomes are to be told.
        more: there is more to be sent, take again.
    """

    envelopes: list[Envelope]
    proposals: list[Proposal]
    more: bool = False


class Replicas:
    """The replicas of one process of a broker.

    Transitions of one: absent -> open (`open_missing`, or `prepare` and `adopt`) -> forgotten (`forget`,
    its topic is deleted).

    Args:
        me: this broker.
        broker_epoch: of this process.
        services: what all replicas share.
        terms: times and bounds.
        allows_loss: whether a topic allows an election of a replica that does not have everything.
    """

    def __init__(
        self,
        me: int,
        broker_epoch: int,
        services: ReplicaServices,
        terms: Terms,
        allows_loss: Callable[[TopicValue], bool] = lambda _topic: False,
    ) -> None:
        self.me = me
        self.broker_epoch = broker_epoch
        self._services = services
        self._terms = terms
        self._allows_loss = allows_loss
        self._outbox = Outbox()
        self._windows = Windows(terms.max_window_bytes)
        self._replicas: dict[PartitionId, Replica] = {}
        self._lease_deadline = float("-inf")

    def __iter__(self) -> Iterator[Replica]:
        """Yield all replicas."""
        return iter(self._replicas.values())

    def find(self, partition: PartitionId) -> Replica | None:
        """Return the replica of a partition, if there is one here."""
        return self._replicas.get(partition)

    # What the metadata says.

    def update(
        self, image: ClusterImage, now: float, topic_ids: Iterable[Id] | None = None
    ) -> None:
        """Bring the open replicas in line with the metadata, those of some topics or all.

        A changed registration concerns all topics.
        """
        registered = {
            durability: {
                broker: _registered(registration, durability)
                for broker, registration in image.brokers.items()
            }
            for durability in Durability
        }
        for topic, partition, value in _partitions(image, topic_ids):
            replica = self._replicas.get(partition)
            if replica is not None:
                brokers = registered[value.value.durability]
                loss = self._allows_loss(topic)
                replica.update(value.value, value.mod_revision, brokers, now, allows_loss=loss)

    def lease(self, deadline: float) -> None:
        """Learn until when this broker's session with the metadata store is known to hold."""
        self._lease_deadline = deadline
        for replica in self:
            replica.lease(deadline)

    def forget(self, partition: PartitionId, why: str) -> None:
        """Serve a partition no more."""
        replica = self._replicas.pop(partition, None)
        if replica is not None:
            replica.retire(why)

    def outcome(
        self, proposal: Proposal, outcome: Outcome, now: float, *, revision: int = 0
    ) -> None:
        """Learn what became of a change that was asked for; `revision` where it was written."""
        replica = self.find(proposal.partition)
        if replica is not None:
            replica.outcome(proposal, outcome, now, revision=revision)

    # What other brokers say.

    def receive(self, envelope: Envelope, now: float) -> None:
        """Take an envelope; one for another broker is none of ours."""
        if envelope.to != self.me:
            return
        for message in envelope.messages:
            replica = self.find(message.partition)
            if replica is not None:
                replica.receive(envelope.sender, envelope.sender_epoch, message, now)
            elif not isinstance(message, Refused):
                refused = Refused(message.partition, 0, Reason.UNKNOWN_LEADER_EPOCH)
                self._outbox.send(envelope.sender, refused)

    def connected(self, broker: int, now: float) -> None:
        """Ask a broker anew for everything that it leads and is followed here: the stream is new."""
        for replica in self:
            replica.connected(broker, now)

    def disconnected(self, broker: int) -> None:
        """Learn that the stream on which a broker followed has ended."""
        for replica in self:
            replica.disconnected(broker)

    # The disk and the time.

    @property
    def is_dirty(self) -> bool:
        """Whether something may have been written that no sync has proved."""
        return bool(self._outbox.dirty)

    def sync_points(self) -> list[SyncPoint]:
        """Return what a sync of the store that begins now will prove; nothing where it proves nothing."""
        points = []
        for partition in list(self._outbox.dirty):
            replica = self.find(partition)
            point = None if replica is None else replica.sync_point()
            if point is None:
                del self._outbox.dirty[partition]
            else:
                points.append(point)
        return points

    def synced(self, points: Iterable[SyncPoint], now: float) -> None:
        """Learn that the sync that began at these points has ended well."""
        for point in points:
            replica = self.find(point.partition)
            if replica is not None:
                replica.synced(point, now)
                if replica.log.is_synced:
                    self._outbox.dirty.pop(point.partition, None)

    def tick(self, now: float) -> None:
        """Do what is due: several times a second, evenly."""
        for replica in self:
            replica.tick(now)

    def take(self) -> Work:
        """Return, and forget, what is to be sent and asked for."""
        envelopes = self._outbox.take_envelopes(self.me, self.broker_epoch)
        return Work(envelopes, self._outbox.take_proposals(), self._outbox.has_more)

    # Opening.

    def open_missing(self, image: ClusterImage, topic_ids: Iterable[Id] | None = None) -> None:
        """Open what this broker holds and has not open, of some topics or all; `update` gives it a role.

        Raises:
            StorageError: the disk takes no new replica now; those before it are open, do it again.
        """
        for _, partition, value in _partitions(image, topic_ids):
            if partition not in self._replicas and self.me in value.value.replicas:
                replica = self.prepare(partition)
                replica.recover()
                self.adopt(replica)

    def prepare(self, partition: PartitionId) -> Replica:
        """Return a new replica that is not served yet; `recover` it, in a thread perhaps, and `adopt` it."""
        return Replica(
            partition,
            self.me,
            self.broker_epoch,
            self._services,
            self._terms,
            self._outbox,
            self._windows,
        )

    def adopt(self, replica: Replica) -> None:
        """Serve a replica that has been recovered."""
        assert replica.partition not in self._replicas, replica.partition
        replica.lease(self._lease_deadline)
        self._replicas[replica.partition] = replica


def _partitions(
    image: ClusterImage, topic_ids: Iterable[Id] | None
) -> Iterator[tuple[TopicValue, PartitionId, Versioned[PartitionValue]]]:
    """Yield the partitions of some topics or all; not of one that is incomplete or on its way out.

    Nor a partition that its topic does not show yet: whoever adds it after all begins it anew, with
    everybody in sync because it is empty.
    """
    for topic_id in list(image.partitions) if topic_ids is None else topic_ids:
        topic = image.topic_by_id(topic_id)
        if topic is not None:
            for number, value in image.partitions.get(topic_id, {}).items():
                if number < topic.value.partitions:
                    yield topic.value, PartitionId(topic_id, number), value


def _registered(registration: Versioned[BrokerRegistration], durability: Durability) -> Registered:
    value = registration.value
    return Registered(
        broker_epoch(registration),
        Life(value.broker_id, value.incarnations.of(durability)),
        registration.mod_revision,
        fenced=value.fenced,
        draining=value.draining,
        synced=Life(value.broker_id, value.incarnations.fsync),
    )
