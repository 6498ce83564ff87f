"""Brokers with replicas of one partition, on stores that crash, a network and metadata turned by hand."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.core.cluster.image import ClusterImage, KeyChange, Versioned
from riverrun_server.core.cluster.keys import BrokerKey, PartitionKey, TopicKey
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    Durability,
    Id,
    Incarnations,
    PartitionValue,
    Replica,
    TopicValue,
)
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.hot_tail import TailBudget
from riverrun_server.core.replication.terms import Terms
from riverrun_server.ports.partitions import Acks, Append
from riverrun_server.runtime.replication.outbox import Outcome
from riverrun_server.runtime.replication.replica_log import ReplicaServices
from riverrun_server.runtime.replication.replicas import Replicas
from riverrun_server.storage.memory import MemoryStore
from riverrun_server.wire.ingress import IngressLimits, accept
from riverrun_server.wire.stored import scan_batch, stored_batch

TOPIC = Id(b"t" * 16)
ID = PartitionId(TOPIC, 0)
NOW_MS = 1_700_000_000_000


def life(broker: int, number: int = 0) -> Id:
    return Id(bytes([broker, number]) * 8)


def batch(*values: bytes, **producer):
    data = RecordSet(records=[Record(value=value) for value in values]).SerializeToString()
    return accept(RecordBatch(records=data, **producer), IngressLimits(1 << 20), NOW_MS)


class Broker:
    """One broker: a store that outlives its processes, and the process."""

    def __init__(self, world: World, broker: int) -> None:
        self.world = world
        self.id = broker
        self.store = MemoryStore(stored_batch, scan_batch)
        self.incarnation = life(broker)
        self.lives = 0
        self.up = False
        self.failures = []

    def start(self) -> None:
        """Begin a process: it registers, and learns what the metadata says."""
        self.image = ClusterImage()
        registration = BrokerRegistration(
            broker_id=self.id,
            incarnations=Incarnations(self.incarnation, self.incarnation),
            endpoints={},
        )
        revision = self.world.write(BrokerKey(self.id), registration)
        services = ReplicaServices(
            self.store,
            TailBudget(1 << 20),
            scan_batch,
            lambda: self.world.wall_ms,
            self.failures.append,
            producer_retention_ms=1_800_000,
            snapshot_interval_bytes=200,
        )
        world = self.world
        self.replicas = Replicas(
            self.id, revision, services, world.terms, lambda _topic: world.allows_loss
        )
        self.replicas.lease(float("inf"))
        self.up = True

    def crash(self, survivors: int = 0) -> None:
        self.up = False
        self.store.crash(survivors)

    def wipe(self) -> None:
        """Lose the disk: what comes back is another life."""
        self.store = MemoryStore(stored_batch, scan_batch)
        self.lives += 1
        self.incarnation = life(self.id, self.lives)

    def learn(self) -> None:
        """Apply all of the metadata."""
        changes = [KeyChange(key, at) for key, at in self.world.stored.items()]
        self.image.load(self.world.revision, changes)
        self.replicas.open_missing(self.image)
        self.replicas.update(self.image, self.world.now)

    def sync(self) -> None:
        points = self.replicas.sync_points()
        self.store.sync()
        self.replicas.synced(points, self.world.now)

    @property
    def replica(self):
        found = self.replicas.find(ID)
        assert found is not None
        return found

    @property
    def machine(self):
        return self.replica.log.machine

    def append(self, *values: bytes, acks=Acks.ALL, **producer):
        """Append a batch; the list returned gets its answer."""
        answers = []
        self.replica.append(
            Append(batch(*values, **producer), acks, answers.append), self.world.now
        )
        return answers

    def producers(self):
        """Return what is known of each producer."""
        known = self.machine.producers.snapshot(self.machine.log_end).producers
        return {each.producer_id: (each.last_sequence, *each.batches) for each in known}

    def log(self):
        """Return (base, epoch, bytes) of everything that is stored."""
        log = self.replica.log
        found, at = [], log.machine.log_start
        while at < log.machine.log_end:
            part = log.log.read(at, log.machine.log_end, 1 << 20)
            assert part
            found += [(each.base_offset, each.leader_epoch, each.data) for each in part]
            at = part[-1].next_offset
        return found


@dataclass
class World:
    """Brokers 1 to n that hold one partition."""

    size: int = 3
    min_isr: int = 1
    terms: Terms = field(default_factory=Terms)
    allows_loss: bool = False
    durability: Durability = Durability.FSYNC

    def __post_init__(self) -> None:
        self.now = 100.0
        self.wall_ms = NOW_MS
        self.revision = 0
        self.stored = {}
        self.links = {}
        self.broken = set()
        self.proposals = []
        self.brokers = {each: Broker(self, each) for each in range(1, self.size + 1)}
        ids = tuple(self.brokers)
        self.write(
            TopicKey("t"),
            TopicValue(topic="t", topic_id=TOPIC, partitions=1, replication_factor=self.size),
        )
        for broker in self.brokers.values():
            broker.start()
        self.write(
            PartitionKey(TOPIC, 0),
            PartitionValue(
                leader=1,
                leader_epoch=1,
                leader_broker_epoch=self.brokers[1].replicas.broker_epoch,
                replicas=ids,
                isr=tuple(Replica(each, life(each)) for each in ids),
                min_isr=self.min_isr,
                durability=self.durability,
            ),
        )
        self.learn()

    def __getitem__(self, broker: int) -> Broker:
        return self.brokers[broker]

    # The metadata.

    def write(self, key, value) -> int:
        self.revision += 1
        self.stored[key] = Versioned(value, self.revision)
        return self.revision

    @property
    def value(self) -> PartitionValue:
        return self.stored[PartitionKey(TOPIC, 0)].value

    def elect(self, leader: int, *, isr=None, skip: int = 0, **changes) -> None:
        """Make a broker the leader; as the controller would, unless told otherwise."""
        value = self.value
        if isr is None:
            isr = [each for each in value.isr if self.brokers[each.broker].up]
            here = Replica(leader, self.brokers[leader].incarnation)
            isr = isr if here in isr else [*isr, here]
        self.write(
            PartitionKey(TOPIC, 0),
            dataclasses.replace(
                value,
                leader=leader,
                leader_epoch=value.leader_epoch + 1 + skip,
                leader_broker_epoch=self.brokers[leader].replicas.broker_epoch,
                partition_epoch=value.partition_epoch + 1,
                isr=tuple(isr),
                **changes,
            ),
        )

    def learn(self, *brokers: int) -> None:
        for broker in brokers or self.brokers:
            if self.brokers[broker].up:
                self.brokers[broker].learn()

    def decide(self, outcome=None, *, written: bool | None = None) -> None:
        """Write what was proposed, or say something else about it; nobody learns the value yet."""
        proposals, self.proposals = self.proposals, []
        for broker, proposal in proposals:
            change, key = proposal.change, PartitionKey(TOPIC, 0)
            fits = self.stored[key].mod_revision == change.mod_revision and all(
                self.stored[BrokerKey(each)].mod_revision == at for each, at in change.guards
            )
            if fits and written is not False:
                self.write(key, change.value)
            told = outcome or (Outcome.APPLIED if fits else Outcome.REFUSED)
            if broker.up:
                broker.replicas.outcome(proposal, told, self.now, revision=self.revision)

    # The network.

    def collect(self) -> None:
        """Take what the brokers want sent and asked for."""
        for broker in self.brokers.values():
            if not broker.up:
                continue
            work = broker.replicas.take()
            self.proposals += [(broker, each) for each in work.proposals]
            for envelope in work.envelopes:
                self.links.setdefault((broker.id, envelope.to), []).append(envelope)

    def deliver(self, link, count: int = 1) -> None:
        queue = self.links.get(link, [])
        for _ in range(min(count, len(queue))):
            envelope = queue.pop(0)
            if self.brokers[link[1]].up and link not in self.broken:
                self.brokers[link[1]].replicas.receive(envelope, self.now)

    def run(self, rounds: int = 30, *, sync: bool = True) -> int:
        """Deliver and sync everything until nothing happens; return after how many rounds."""
        for number in range(rounds):
            self.collect()
            links = [link for link, queue in self.links.items() if queue]
            for link in links:
                self.deliver(link, len(self.links[link]))
            dirty = [each for each in self.brokers.values() if each.up and sync]
            dirty = [each for each in dirty if each.replicas.sync_points()]
            for broker in dirty:
                broker.sync()
            if not links and not dirty:
                return number
        raise AssertionError(f"still busy after {rounds} rounds")

    def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds
        for broker in self.brokers.values():
            if broker.up:
                broker.replicas.tick(self.now)

    def settle(self, seconds: int = 5) -> None:
        """Let time pass with everything working."""
        for _ in range(seconds):
            self.run()
            self.decide()
            self.learn()
            self.tick()
        self.run()

    def restart(self, broker: int, survivors: int = 0) -> None:
        self[broker].crash(survivors)
        for link in list(self.links):
            if broker in link:
                del self.links[link]
        self[broker].start()
        for other in self.brokers.values():
            if other.up:
                other.replicas.disconnected(broker)

    def logs(self):
        return [each.log() for each in self.brokers.values() if each.up]

    def shrink(self, *left: int) -> None:
        """Let the replicas in sync be these, as the metadata say."""
        value = self.value
        isr = tuple(Replica(each, life(each)) for each in left)
        epoch = value.partition_epoch + 1
        changed = dataclasses.replace(value, isr=isr, partition_epoch=epoch)
        self.write(PartitionKey(TOPIC, 0), changed)
        self.learn()

    def sent(self, kind, *, to: int | None = None):
        """Return the messages of a kind that are on their way."""
        return [
            message
            for (_, receiver), queue in self.links.items()
            for envelope in queue
            for message in envelope.messages
            if isinstance(message, kind) and to in (None, receiver)
        ]


def ready(**how) -> World:
    """Return a world whose broker 1 leads and is followed by the others."""
    world = World(**how)
    world.run()
    return world
