"""A process that is named leader, and for how long it may fail to begin before another is to lead."""

from __future__ import annotations

from riverrun_server.core.cluster.values import PartitionValue
from riverrun_server.core.replication.isr import without_leader
from riverrun_server.core.replication.terms import Terms


class GivingWay:
    """One process as a partition's value may name it.

    Its data is whole, and its disk, full or behind, does not take the beginning of the leader epoch.

    Args:
        me: this broker.
        broker_epoch: of this process.
        terms: times and bounds.
    """

    def __init__(self, me: int, broker_epoch: int, terms: Terms) -> None:
        self._me = me
        self._broker_epoch = broker_epoch
        self._begin_s = terms.begin_s
        # In which leader epoch it cannot begin, and since when, or since it last said so.
        self._waiting = (-1, 0.0)

    def is_to_lead(self, value: PartitionValue) -> bool:
        """Return whether a value names this process, and it has not left the replicas in sync since."""
        named = (value.leader, value.leader_broker_epoch) == (self._me, self._broker_epoch)
        return named and any(each.broker == self._me for each in value.isr)

    def failed(self, value: PartitionValue, now: float) -> PartitionValue | None:
        """Learn that it could not begin; return the value to ask for, where that has taken too long.

        Args:
            value: by which it is to lead.
            now: in seconds, monotonic.
        """
        if not self.is_to_lead(value):
            return None
        epoch, since = self._waiting
        if epoch == value.leader_epoch and now - since < self._begin_s:
            return None
        self._waiting = (value.leader_epoch, now)
        if epoch != value.leader_epoch:
            return None
        return without_leader(value, self._me, is_whole=True)
