"""What stands in the metadata store: cluster, brokers, controller, topics, partitions, blocks of ids.

Every value may carry fields of a newer version in `unknown`; they are written back as they came, so
that a broker that does not know them does not lose them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Id(bytes):
    """Sixteen random bytes that name a topic or an incarnation for good; text is their hex."""

    __slots__ = ()

    SIZE = 16

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        return self.hex()

    @classmethod
    def parse(cls, text: str) -> Id:
        """Read 32 hexadecimal digits.

        Raises:
            ValueError: it is something else.
        """
        value = cls(bytes.fromhex(text))
        if len(value) != cls.SIZE or str(value) != text:
            raise ValueError("expected 32 lower-case hexadecimal digits")
        return value


class Durability(enum.Enum):
    """When a replica counts an append: once synced, or once written.

    Transitions: fsync -> relaxed -> syncing -> fsync | relaxed. Those to relaxed and to syncing take a new
    leader epoch, for a replica counts as the value said when it took up the epoch.
    """

    FSYNC = "fsync"
    # On its way to `fsync`: an append counts once synced, and what counted before may not be, so the
    # replicas in sync are still those lives that end with any crash.
    SYNCING = "syncing"
    RELAXED = "relaxed"


@dataclass(frozen=True, slots=True)
class Incarnations:
    """Which life of its data a broker is in, for each durability class.

    A life ends when data that counted may be gone: `fsync` changes when the store is found
    unclean or empty, `relaxed` also whenever the broker was not shut down cleanly.
    """

    fsync: Id
    relaxed: Id

    def of(self, durability: Durability) -> Id:
        """Return the incarnation that counts for a class."""
        match durability:
            case Durability.FSYNC:
                return self.fsync
            case Durability.RELAXED | Durability.SYNCING:
                return self.relaxed


@dataclass(frozen=True, slots=True)
class Replica:
    """One life of a broker as a holder of a partition's data."""

    broker: int
    incarnation: Id

    def damaged(self) -> Replica:
        """Return a life that nobody has, as this one stands in an ISR when its own data is damaged.

        Where nobody else has all data it is left as the only one in sync: then nobody leads, and what it
        was can still be told, for the same is done to it once more.
        """
        return Replica(self.broker, Id(bytes(each ^ 0xFF for each in self.incarnation)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What all values have: the fields of a newer version, as (name, JSON)."""

    unknown: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterValue(Value):
    """The cluster itself."""

    cluster_id: str
    create_time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerRegistration(Value):
    """A broker's process; written when it starts, and by the controller when it fences it.

    Fencing belongs to the process: the next one of the same broker begins unfenced.

    Attributes:
        broker_id: configured.
        broker_epoch: names the process; 0 stands for the revision of the write that made this
            value, so whoever writes it again for the same process fills it in.
        incarnations: of the data it came with.
        endpoints: where clients reach it, as host:port, by listener.
        peer_endpoint: where other brokers reach it, as host:port; empty where it has no such
            listener.
        rack: where it stands; replicas are spread over racks.
        host: the machine it runs on; replicas of a partition share one only where no other is free.
        start_time_ms: when the process began.
        fenced: it is not seen alive; it leads nothing and is in no ISR until it is let back.
        draining: it is about to end; it hands on what it leads and leaves the ISRs.
    """

    broker_id: int
    incarnations: Incarnations
    endpoints: Mapping[str, str]
    peer_endpoint: str = ""
    rack: str = ""
    host: str = ""
    start_time_ms: int = 0
    broker_epoch: int = 0
    fenced: bool = False
    draining: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveProcess(Value):
    """A process that is alive as a broker; its key goes with a lease.

    Attributes:
        incarnation: of the data directory that it holds locked.
        host: the machine it runs on.
        start_time_ms: when it began.
    """

    incarnation: Id
    host: str = ""
    start_time_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerValue(Value):
    """The process that fences brokers and elects leaders.

    Its key goes with the lease that says that the process is alive, and is written once: the
    revision of that write names the term, and everything that the controller does insists on it.

    Attributes:
        broker_id: of the broker.
        broker_epoch: of its process.
    """

    broker_id: int
    broker_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicValue(Value):
    """What defines a topic.

    Attributes:
        topic: its name.
        topic_id: one made anew under the same name has another.
        partitions: how many it has.
        replication_factor: how many replicas each has.
        configs: what was set for it, canonical.
        internal: it belongs to the brokers.
        create_time_ms: when it was made.
    """

    topic: str
    topic_id: Id
    partitions: int
    replication_factor: int
    configs: Mapping[str, str] = field(default_factory=dict)
    internal: bool = False
    create_time_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionValue(Value):
    """Who holds a partition and who leads it.

    Attributes:
        leader: the broker that leads it; it stays named when it is away.
        leader_epoch: of its leadership; only grows.
        leader_broker_epoch: the process that was made leader; a later process of the same broker
            leads only after another election.
        partition_epoch: grows with every change of this value.
        replicas: the brokers that hold it.
        isr: the replicas in sync, each as the life that is.
        elr: replicas that left the ISR while it was too small and still have everything committed.
        min_isr: how many replicas in sync it needs in fact.
        durability: the class that its appends are counted by and its ISR is kept for.
    """

    leader: int
    leader_epoch: int = 0
    leader_broker_epoch: int
    partition_epoch: int = 0
    replicas: tuple[int, ...]
    isr: tuple[Replica, ...]
    elr: tuple[Replica, ...] = ()
    min_isr: int = 1
    durability: Durability = Durability.FSYNC


class TombstoneState(enum.Enum):
    """Why a topic id is not that of a topic."""

    CREATING = "creating"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone(Value):
    """A topic id that has no topic yet, or no more, while something of it may be stored.

    Data is deleted for a tombstone and for nothing else: a topic that merely seems to be missing
    keeps its data.

    Transitions: creating -> gone (the topic is complete) | deleting (its making was given up);
    deleting -> gone (every broker in `pending` has deleted its replicas).

    Attributes:
        topic: its name.
        topic_id: of the topic that is not there.
        state: why it is not.
        pending: the brokers that may have replicas of it.
        maker: the broker that is making the topic.
        maker_epoch: its process; 0 in values of versions that knew only one broker.
    """

    topic: str
    topic_id: Id
    state: TombstoneState
    pending: tuple[int, ...] = ()
    maker: int = 0
    maker_epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerIdBlock(Value):
    """The last block of producer ids that was given to a broker.

    Attributes:
        first: the block's first id.
        size: how many ids it has; the next block begins behind it.
        broker_id: who got it.
    """

    first: int
    size: int
    broker_id: int

    @property
    def next_first(self) -> int:
        """Where the next block begins."""
        return self.first + self.size
