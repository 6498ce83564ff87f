"""A replica whose data is damaged: when it may throw that away and begin again with its leader's.

Intuition: what a replica has acknowledged may count for as long as it may be elected, so first it has
to be out of the replicas in sync and of those that stayed eligible, in the value that stands. That is
not enough. A change that brings it back, for what it had acknowledged before, may be on its way, or
be asked for a moment later by a leader that has not heard of the damage. So it writes the value once
more, with nothing changed: requests on the one before then fail, and a leader that sees a value that
it did not write believes nobody outside any more until it hears from him anew (Leadership.seen).

And where nobody else has the data nothing is thrown away: a leader has to answer first.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

from riverrun_server.core.cluster.values import PartitionValue
from riverrun_server.core.replication.messages import Message, Push, Restart
from riverrun_server.core.replication.terms import Change, Registered, Terms

# From one round to the next the wait doubles, up to so many times the first.
_WAIT_GROWTH_MAX: Final = 64


class Step(enum.Enum):
    """What to do next."""

    TELL = "tell the leader that nothing here can be served"
    SETTLE = "write the value once more, with nothing changed"
    ASK = "ask the leader to be fed, as one who has nothing"


class Refetching:
    """One replica through all its damages, in one process.

    Transitions:
        whole -> telling (`begin`) -> settling (it may not be elected any more, and another leads who
            is there) -> asking (`settled`) -> whole (`ended`, once the leader has answered)
        any -> telling: it may be elected, or the leader is away
        asking -> settling: another leader epoch

    Args:
        me: this broker.
        terms: times and bounds.

    Attributes:
        rounds: how often the data was thrown away.
    """

    def __init__(self, me: int, terms: Terms) -> None:
        self.rounds = 0
        self._me = me
        self._terms = terms
        self._is_on = False
        self._settled_in = self._asked_in = -1
        self._next_at = self._not_before = float("-inf")

    def begin(self) -> None:
        """Learn of damage."""
        self._is_on = True
        self._settled_in = self._asked_in = -1
        self._next_at = float("-inf")

    def hurry(self) -> None:
        """Learn that something has changed: the value, or a stream to the leader."""
        self._next_at = float("-inf")

    def next_step(
        self, value: PartitionValue, leader: Registered | None, now: float
    ) -> Step | None:
        """Return what to do now; None where it is not time, or where another step has to come first.

        Args:
            value: the newest known of the partition.
            leader: the registration of who leads.
            now: in seconds.
        """
        if value.leader == self._me or self._me not in value.replicas or now < self._next_at:
            return None
        self._next_at = now + self._terms.retry_s
        if not self._is_on or not self._is_out(value) or not _serves(leader, value):
            return Step.TELL
        if now < self._not_before:
            return None
        if self._settled_in != value.leader_epoch:
            return Step.SETTLE
        self._asked_in = value.leader_epoch
        return Step.ASK

    def settling(self, value: PartitionValue, revision: int, leader: Registered) -> Change:
        """Return the change of nothing; the leader's registration has to stand as it does.

        Args:
            value: the newest known of the partition.
            revision: at which that was written.
            leader: the registration of who leads.
        """
        changed = dataclasses.replace(value, partition_epoch=value.partition_epoch + 1)
        return Change(changed, revision, ((value.leader, leader.mod_revision),))

    def settled(self, value: PartitionValue) -> None:
        """Learn that a value was written that this replica asked for."""
        if self._is_on and self._is_out(value):
            self._settled_in = value.leader_epoch
            self.hurry()

    def may_throw_away(self, value: PartitionValue, message: Message) -> bool:
        """Return whether a message of the leader is the answer after which the data may go.

        Args:
            value: the newest known of the partition.
            message: of its leader, in its leader epoch.
        """
        is_answer = isinstance(message, Restart) or (
            isinstance(message, Push) and message.base_offset == 0
        )
        epochs = {self._settled_in, self._asked_in}
        return is_answer and epochs == {value.leader_epoch} and self._is_out(value)

    def ended(self, now: float) -> None:
        """Learn that the data is thrown away; the next time comes later than this one."""
        self._is_on = False
        wait_s = self._terms.refetch_s * min(1 << self.rounds, _WAIT_GROWTH_MAX)
        self._not_before = now + wait_s
        self.rounds += 1

    def _is_out(self, value: PartitionValue) -> bool:
        """Whether a value has another leader, in sync, and this broker nowhere where it could lead."""
        isr = {each.broker for each in value.isr}
        eligible = isr.union(each.broker for each in value.elr)
        return value.leader in isr and self._me in value.replicas and self._me not in eligible


def _serves(leader: Registered | None, value: PartitionValue) -> bool:
    return (
        leader is not None
        and not leader.fenced
        and leader.broker_epoch == value.leader_broker_epoch
    )
