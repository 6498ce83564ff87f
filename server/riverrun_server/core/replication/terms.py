"""What replication is told from outside: its times and bounds, who is registered; and what it asks for."""

from __future__ import annotations

from dataclasses import dataclass

from riverrun_server.core.cluster.values import Durability, PartitionValue, Replica


@dataclass(frozen=True, slots=True)
class Terms:
    """Times and bounds of replication.

    Attributes:
        lag_s: a follower that did not keep up for longer leaves the replicas in sync.
        ttl_s: for how long a confirmed probe says that nobody else leads.
        probe_s: between two probes.
        retry_s: before a question that was not answered is asked again.
        begin_s: for how long a leader may fail to begin its epoch, its disk being full or behind, before
            it asks that another leads.
        refetch_s: after a replica has thrown away damaged data, before it does so again; doubled
            with each time.
        max_push_bytes: of the batches in one push, unless a single one is larger.
        max_under_way_bytes: that one follower of one partition may leave unacknowledged.
        max_window_bytes: that one broker may leave unacknowledged of all partitions together.
    """

    lag_s: float = 10.0
    ttl_s: float = 3.0
    probe_s: float = 1.0
    retry_s: float = 1.0
    begin_s: float = 10.0
    refetch_s: float = 10.0
    max_push_bytes: int = 1 << 20
    max_under_way_bytes: int = 8 << 20
    max_window_bytes: int = 32 << 20


@dataclass(frozen=True, slots=True)
class Registered:
    """A broker as its registration says.

    Attributes:
        broker_epoch: of its process.
        replica: the life of its data, of the partition's durability class.
        mod_revision: at which the registration was written.
        fenced: the controller does not count on it.
        draining: it is about to go.
        synced: the life of its data that counts where only what is synced does; None where that is not
            told apart from `replica`.
    """

    broker_epoch: int
    replica: Replica
    mod_revision: int
    fenced: bool = False
    draining: bool = False
    synced: Replica | None = None

    def is_life(self, replica: Replica) -> bool:
        """Return whether a replica is a life of the data that this process has, of any class."""
        return replica in (self.replica, self.synced)

    def life(self, durability: Durability) -> Replica:
        """Return the life of its data that counts for a partition whose value has just become another."""
        return self.synced or self.replica if durability is Durability.FSYNC else self.replica


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the partition's value that a replica asks for.

    Attributes:
        value: the next one; it is to be compared with the revision of the one before.
        mod_revision: of that.
        guards: registrations that have to stand as they do, (broker id, mod revision) each: of who
            joins, or of who leads.
    """

    value: PartitionValue
    mod_revision: int
    guards: tuple[tuple[int, int], ...] = ()
